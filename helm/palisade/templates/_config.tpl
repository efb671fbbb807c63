{{/* palisade.toml. What the chart has to know is here; config.extra is the operator's, and `palisade config check` judges both. */}}
{{- define "palisade.config" -}}
{{- $c := .root.Values.config -}}
# Written by the Helm chart.
[[listener]]
{{- if eq .root.Values.form "sidecar" }}
unix = "/run/palisade/authz.sock"
unix_mode_octal = "0660"
{{- else }}
# The proxy in this pod alone reaches the loopback.
tcp = "127.0.0.1:9191"
{{- end }}
identity = {{ $c.identity | quote }}

[admin]
listen = "127.0.0.1:9192"

[identity]
trust_domains = {{ concat (list .root.Values.mesh.trustDomain) $c.furtherTrustDomains | toJson }}

[bundle]
path = {{ include "palisade.bundlePath" .root | quote }}
{{- if $c.audit.enabled }}

[audit]
directory = "/var/lib/palisade/log"
durability = {{ $c.audit.durability | quote }}
trust_domain = {{ .root.Values.mesh.trustDomain | quote }}
cluster = {{ $c.audit.cluster | quote }}
namespace = {{ .namespace | quote }}
{{- with $c.audit.keyKey }}
key_file = {{ printf "/etc/palisade/secrets/%s" . | quote }}
{{- end }}
{{- end }}
{{- if $c.sharedStore.urls }}

[secret]
file = {{ printf "/etc/palisade/secrets/%s" $c.sharedStore.secretKey | quote }}

[shared]
urls = {{ $c.sharedStore.urls | toJson }}
{{- with $c.sharedStore.user }}
user = {{ . | quote }}
{{- end }}
{{- with $c.sharedStore.passwordKey }}
password_file = {{ printf "/etc/palisade/secrets/%s" . | quote }}
{{- end }}
{{- with $c.sharedStore.caKey }}
ca_file = {{ printf "/etc/palisade/secrets/%s" . | quote }}
{{- end }}
{{- end }}
{{- if .root.Values.control.enabled }}

[state]
journal = "/var/lib/palisade/journal"

[control]
tcp = "127.0.0.1:9194"
certificate_file = "/etc/palisade/control/tls.crt"
key_file = "/etc/palisade/control/tls.key"
ca_file = "/etc/palisade/control/ca.crt"
{{- end }}
{{- with $c.telemetry.otlpEndpoint }}

[telemetry]
otlp_endpoint = {{ . | quote }}
{{- end }}
{{- with $c.extra }}

{{ . | trim }}
{{- end }}
{{ end }}

{{/* The namespaces in which pods get a sidecar: those of tools, and of agents that take calls. */}}
{{- define "palisade.sidecarNamespaces" -}}
{{- $all := .Values.mesh.tools.namespaces -}}
{{- if .Values.mesh.agents.ports }}{{ $all = concat $all .Values.mesh.agents.namespaces }}{{ end -}}
{{- $all | uniq | sortAlpha | toJson -}}
{{- end }}

{{/* Where configuration and agents' facts are needed. */}}
{{- define "palisade.configNamespaces" -}}
{{- if eq .Values.form "sidecar" }}{{ include "palisade.sidecarNamespaces" . }}{{ else }}{{ list .Release.Namespace | toJson }}{{ end -}}
{{- end }}

{{/* What Kubernetes knows of agents, as entities. */}}
{{- define "palisade.entities" -}}
{{- $td := .Values.mesh.trustDomain -}}
{{- $entities := list -}}
{{- range .Values.agents }}
{{- $parents := list -}}
{{- range .groups }}{{ $parents = append $parents (dict "type" "AgentGroup" "id" .) }}{{ end -}}
{{- $attrs := dict -}}
{{- with .runtimeClass }}{{ $attrs = dict "runtime_class" . }}{{ end -}}
{{- $uid := dict "type" "Agent" "id" (printf "spiffe://%s/ns/%s/sa/%s" $td .namespace .serviceAccount) -}}
{{- $entities = append $entities (dict "uid" $uid "attrs" $attrs "parents" $parents "tags" (default dict .labels)) -}}
{{- end }}
{{- $entities | toPrettyJson -}}
{{- end }}

{{- define "palisade.sandboxed" -}}
{{- range .Values.sandboxed -}}
@id("sandboxed-{{ .server }}")
@reason("Tools of {{ .server }} run what they are given: only workloads in a sandbox may call them")
forbid (principal, action in Action::"tools/call", resource in Server::{{ .server | quote }})
unless { principal has runtime_class && {{ .runtimeClasses | toJson }}.contains(principal.runtime_class) };

{{ end -}}
{{- end }}
