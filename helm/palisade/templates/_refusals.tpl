{{/* What the schema cannot say: values that contradict one another, or that would open what the chart is there to close. */}}
{{- define "palisade.refusals" -}}
{{- $v := .Values -}}
{{- $shared := ne $v.form "sidecar" -}}
{{- $sources := 0 -}}
{{- range list $v.bundle.configMaps $v.bundle.volume $v.bundle.url }}{{ if . }}{{ $sources = add1 $sources }}{{ end }}{{ end -}}
{{- if ne (int $sources) 1 }}{{ fail "bundle: expected exactly one of configMaps, volume and url" }}{{ end -}}
{{- if and $v.bundle.url (not $v.bundle.sha256) }}{{ fail "bundle.sha256: what comes from a URL is taken by its digest alone" }}{{ end -}}
{{- if and (or $v.agents $v.sandboxed) (not $v.bundle.configMaps) (not $v.bundle.includesAgents) }}
{{- fail "agents, sandboxed: a bundle from a volume or URL is used as it is. Put the files of the ConfigMap RELEASE-agents into it and set bundle.includesAgents" }}
{{- end -}}
{{- if and (not $shared) (not $v.mesh.tools.namespaces) (not (and $v.mesh.agents.namespaces $v.mesh.agents.ports)) }}
{{- fail "mesh: expected tools.namespaces, or agents.namespaces with agents.ports: nowhere is a pod that gets a sidecar" }}
{{- end -}}
{{- if and $v.mesh.tools.namespaces (not $v.mesh.tools.ports) }}{{ fail "mesh.tools.ports: at which pod ports are tools reached?" }}{{ end -}}
{{- range $v.mesh.tools.namespaces }}{{ if has . $v.mesh.agents.namespaces }}
{{- fail (printf "mesh: namespace %s is in agents and in tools: an agent there would reach tools as their neighbour" .) }}
{{- end }}{{ end -}}
{{- range concat $v.mesh.tools.namespaces $v.mesh.agents.namespaces }}{{ if eq . $.Release.Namespace }}
{{- fail (printf "mesh: namespace %s is the release's own: Palisade runs apart from agents and tools" .) }}
{{- end }}{{ end -}}
{{- if $shared }}
{{- if not $v.clients }}{{ fail "clients: who may ask? Without a client nobody could be told from anybody" }}{{ end -}}
{{- range $v.clients }}{{ if has .namespace (concat $v.mesh.agents.namespaces $v.mesh.tools.namespaces) }}
{{- fail (printf "clients: %s is a namespace of agents or tools, whose processes could ask as their proxy does; take the sidecar form for them" .namespace) }}
{{- end }}{{ end -}}
{{- else }}
{{- if $v.clients }}{{ fail "clients: a sidecar is asked by the proxy of its pod alone" }}{{ end -}}
{{- if eq $v.mesh.dataPlane "ambient" }}{{ fail "mesh.dataPlane: in ambient mode no pod has a proxy of its own; take form shared or daemonset" }}{{ end -}}
{{- if eq $v.config.identity "xfcc" }}{{ fail "config.identity: xfcc is for waypoints, which ask the shared forms" }}{{ end -}}
{{- if $v.control.enabled }}{{ fail "control: sidecars have no port for it; enable it in a shared form with the same sharedStore" }}{{ end -}}
{{- end }}
{{- if and $v.control.enabled (not $v.config.sharedStore.urls) (or (eq $v.form "daemonset") $v.shared.autoscaling.enabled (gt (int $v.shared.replicas) 1)) }}
{{- fail "control: a hold at one of several pods would be none at the others; set config.sharedStore.urls, or one replica without autoscaling" }}
{{- end -}}
{{- if and $v.control.enabled (not $v.control.secretName) }}{{ fail "control.secretName: its certificate" }}{{ end -}}
{{- if and (or $v.config.sharedStore.urls $v.config.audit.keyKey) (not $v.config.secretName) }}{{ fail "config.secretName: where are the keys?" }}{{ end -}}
{{- if and $v.config.audit.enabled (eq $v.state.volume "emptyDir") }}
{{- fail "state.volume: the log only grows, and a pod whose emptyDir has more than state.size is evicted with all that is in it; set ephemeral, a claim that is full and no more" }}
{{- end -}}
{{- if and $v.test.through (not $v.mesh.agents.namespaces) }}{{ fail "test.through: from which of mesh.agents.namespaces?" }}{{ end -}}
{{- if and $v.test.through (not $shared) (not $v.sidecar.native) }}
{{- fail "test.through: a pod with ordinary sidecars never ends; run palisade mesh probe by hand" }}
{{- end -}}
{{- if and $v.guard.enabled (eq $v.mesh.dataPlane "sidecar") (concat $v.mesh.agents.namespaces $v.mesh.tools.namespaces) (not $v.guard.proxyImages) }}
{{- fail "guard.proxyImages: by which images is Istio's proxy known?" }}
{{- end -}}
{{- if and $v.networkPolicies.enabled (eq $v.mesh.dataPlane "ambient") (not $v.peers.waypoints) }}
{{- fail "peers.waypoints: without them nobody reaches a tool in ambient mode" }}
{{- end -}}
{{- range $v.peers.waypoints }}{{ if has .namespace (concat $v.mesh.agents.namespaces $v.mesh.tools.namespaces) }}
{{- fail (printf "peers.waypoints: %s is a namespace of agents or tools, where anybody could wear a waypoint's labels" .namespace) }}
{{- end }}{{ end -}}
{{- $seen := dict -}}
{{- range $v.agents }}
{{- $who := printf "%s/%s" .namespace .serviceAccount -}}
{{- if hasKey $seen $who }}{{ fail (printf "agents: %s is there twice" $who) }}{{ end -}}
{{- $_ := set $seen $who true -}}
{{- end }}
{{- end }}
