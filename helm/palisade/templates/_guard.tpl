{{- /*
What is demanded of the containers that the injector adds: that they are as it makes them. Whoever makes a pod may put containers of
these names into it, and the injector merges its own over them.
*/}}

{{- /* A pod that is going may lose its finalizers, and nothing else may change. */}}
{{- define "palisade.notGoing" -}}
- name: not-going
  expression: >-
    !has(object.metadata.deletionTimestamp) || request.operation != 'UPDATE' ||
    object.spec != oldObject.spec ||
    (has(object.metadata.labels) ? dyn(object.metadata.labels) : dyn({})) != (has(oldObject.metadata.labels) ? dyn(oldObject.metadata.labels) : dyn({})) ||
    (has(object.metadata.annotations) ? dyn(object.metadata.annotations) : dyn({})) != (has(oldObject.metadata.annotations) ? dyn(oldObject.metadata.annotations) : dyn({}))
{{- end }}

{{- /* Istio's and Palisade's. */}}
{{- define "palisade.guardOfKnown" -}}
{{- $root := index . 0 -}}
{{- $known := index . 1 | toJson -}}
- message: Istio's and Palisade's containers are in the place where the injector puts them
  expression: >-
    (!has(object.spec.ephemeralContainers) || object.spec.ephemeralContainers.all(c, !(c.name in {{ $known }}))) &&
    object.spec.containers.all(c, !(c.name in ['istio-validation', 'istio-init', 'palisade-bundle']) || !(c.name in {{ $known }})) &&
    (!has(object.spec.initContainers) || object.spec.initContainers.all(c, !(c.name in {{ $known }}) ||
    (c.name in ['istio-proxy', 'palisade']) == (has(c.restartPolicy) && c.restartPolicy == 'Always')))
- message: Istio's and Palisade's containers run their own program
  expression: >-
    variables.containers.all(c, !(c.name in {{ $known }}) || !has(c.command))
- message: nothing else runs in Istio's and Palisade's containers, by a hook or a probe
  expression: >-
    variables.containers.all(c, !(c.name in {{ $known }}) || (
    [has(c.startupProbe) ? dyn(c.startupProbe) : dyn({}), has(c.readinessProbe) ? dyn(c.readinessProbe) : dyn({}), has(c.livenessProbe) ? dyn(c.livenessProbe) : dyn({})].all(p,
    !has(p.exec) || (c.name == 'palisade' && p.exec.command in [
    ['/usr/bin/palisade', 'health', '--config', '/etc/palisade/palisade.toml'],
    ['/usr/bin/palisade', 'health', '--live', '--config', '/etc/palisade/palisade.toml']])) &&
    (!has(c.lifecycle) ||
    [has(c.lifecycle.postStart) ? dyn(c.lifecycle.postStart) : dyn({'sleep': 0}), has(c.lifecycle.preStop) ? dyn(c.lifecycle.preStop) : dyn({'sleep': 0})].all(h,
    has(h.sleep) || (c.name == 'istio-proxy' && has(h.exec) && h.exec.command in [
    ['pilot-agent', 'wait'], ['pilot-agent', 'request', '--debug-port=15020', 'POST', 'drain']])))))
{{- end }}

{{- /* The proxy, and what redirects to it. */}}
{{- define "palisade.guardOfIstio" -}}
{{- $root := index . 0 -}}
{{- $mesh := index . 1 -}}
{{- $values := $root.Values -}}
{{- $redirect := list "istio-iptables" "-p" "15001" "-z" "15006" "-u" "1337" "-m" "REDIRECT" "-i" "*" "-x" "" "-b" "*" "-d" "15090,15021,15020" -}}
{{- $environment := list "PILOT_CERT_PROVIDER" "CA_ADDR" "POD_NAME" "POD_NAMESPACE" "INSTANCE_IP" "SERVICE_ACCOUNT" "HOST_IP" "ISTIO_CPU_LIMIT" "PROXY_CONFIG" "ISTIO_META_POD_PORTS" "ISTIO_META_APP_CONTAINERS" "GOMEMLIMIT" "GOMAXPROCS" "ISTIO_META_CLUSTER_ID" "ISTIO_META_NODE_NAME" "ISTIO_META_INTERCEPTION_MODE" "ISTIO_META_NETWORK" "ISTIO_META_WORKLOAD_NAME" "ISTIO_META_OWNER" "ISTIO_META_MESH_ID" "TRUST_DOMAIN" "ISTIO_PROMETHEUS_ANNOTATIONS" "ISTIO_KUBE_APP_PROBERS" -}}
{{- $environment = concat $environment $values.guard.proxyEnvironment -}}
{{- $places := list "/var/run/secrets/workload-spiffe-uds" "/var/run/secrets/credential-uds" "/var/run/secrets/workload-spiffe-credentials" "/var/run/secrets/istio" "/var/run/secrets/istio/crl" "/var/lib/istio/data" "/etc/istio/proxy" "/var/run/secrets/tokens" "/etc/istio/pod" "/run/palisade" "/var/run/secrets/kubernetes.io/serviceaccount" -}}
{{- $own := list "istio-envoy" "istio-data" "istio-token" "workload-socket" "credential-socket" "workload-certs" -}}
- message: Istio's containers run as the user and group 1337
  expression: >-
    variables.containers.all(c, !(c.name in ['istio-proxy', 'istio-validation']) || (has(c.securityContext) &&
    has(c.securityContext.runAsUser) && c.securityContext.runAsUser == 1337 && has(c.securityContext.runAsGroup) && c.securityContext.runAsGroup == 1337))
- message: the proxy has the arguments that the injector gives it
  expression: >-
    variables.containers.all(c, c.name != 'istio-proxy' || (has(c.args) && size(c.args) > 1 && c.args[0] == 'proxy' && c.args[1] == 'sidecar' &&
    c.args.all(a, a in ['proxy', 'sidecar'] || a.matches('^([$][(]POD_NAMESPACE[)][.]svc[.][a-z0-9.-]+|[0-9]+|--domain|--log_as_json|--concurrency|--(concurrency|stsPort)=[0-9]+|--(proxyLogLevel|proxyComponentLogLevel|log_output_level)=[a-zA-Z0-9:,_-]+)$'))))
- message: the proxy has the environment that the injector gives it, and guard.proxyEnvironment; its configuration is of guard.proxyConfigs
  expression: >-
    variables.containers.all(c, !(c.name in {{ $mesh | toJson }}) || (!has(c.envFrom) && (!has(c.env) || (c.name == 'istio-proxy' &&
    c.env.all(e, e.name in {{ $environment | toJson }} && c.env.exists_one(o, o.name == e.name)) &&
    c.env.all(e, e.name != 'PROXY_CONFIG' || (has(e.value) && e.value.trim() in {{ $values.guard.proxyConfigs | toJson }})) &&
    c.env.all(e, e.name != 'ISTIO_META_INTERCEPTION_MODE' || (has(e.value) && e.value == 'REDIRECT')) &&
    c.env.all(e, !(e.name in ['POD_NAMESPACE', 'SERVICE_ACCOUNT']) || (has(e.valueFrom) && has(e.valueFrom.fieldRef) &&
    e.valueFrom.fieldRef.fieldPath == {'POD_NAMESPACE': 'metadata.namespace', 'SERVICE_ACCOUNT': 'spec.serviceAccountName'}[e.name]))))))
- message: nothing is mounted into the proxy but what the injector mounts
  expression: >-
    variables.containers.all(c, !(c.name in {{ $mesh | toJson }}) || !has(c.volumeMounts) || c.volumeMounts.all(m,
    m.mountPath == '/var/run/secrets/kubernetes.io/serviceaccount' || (c.name == 'istio-proxy' && m.mountPath in {{ $places | toJson }} && !has(m.subPath) && !has(m.subPathExpr))))
- message: what is the proxy's own is in its containers alone, and a token for Istio's CA in istio-token alone
  expression: >-
    variables.containers.all(c, c.name == 'istio-proxy' || !has(c.volumeMounts) || c.volumeMounts.all(m, !(m.name in {{ $own | toJson }}))) &&
    (!has(object.spec.volumes) || dyn(object.spec.volumes).all(v, !has(v.projected) || v.name == 'istio-token' || v.projected.sources.all(s,
    !has(s.serviceAccountToken) || !has(s.serviceAccountToken.audience) || s.serviceAccountToken.audience != 'istio-ca')) &&
    dyn(object.spec.volumes).all(v, !(v.name in ['istio-envoy', 'istio-data']) || has(v.emptyDir)) &&
    dyn(object.spec.volumes).all(v, v.name != 'istio-podinfo' || (has(v.downwardAPI) && has(v.downwardAPI.items) && v.downwardAPI.items.all(i,
    has(i.fieldRef) && i.fieldRef.fieldPath == 'metadata.' + i.path))))
- message: istio-validation and istio-init redirect everything, and have no other arguments
  expression: >-
    variables.containers.all(c, !(c.name in {{ without $mesh "istio-proxy" | toJson }}) || (has(c.args) && c.args.filter(a, !a.startsWith('--log_output_level=')) in [
    {{ $redirect | toJson }}, {{ concat $redirect (list "--run-validation" "--skip-rule-apply") | toJson }}]))
{{- if has "istio-init" $mesh }}
- message: istio-init has NET_ADMIN and NET_RAW, and nothing else
  expression: >-
    variables.containers.all(c, c.name != 'istio-init' || (has(c.securityContext) &&
    (!has(c.securityContext.privileged) || c.securityContext.privileged == false) &&
    (!has(c.securityContext.allowPrivilegeEscalation) || c.securityContext.allowPrivilegeEscalation == false) &&
    (!has(c.securityContext.capabilities) || !has(c.securityContext.capabilities.add) || c.securityContext.capabilities.add.all(one, one in ['NET_ADMIN', 'NET_RAW']))))
{{- end }}
{{- end }}

{{- define "palisade.guardOfPalisade" -}}
{{- $v := .Values -}}
{{- /* As palisade.mounts and palisade.volumes have them. */}}
{{- $places := dict "palisade-config" (list "/etc/palisade/palisade.toml") "palisade-bundle" (list "/etc/palisade/bundle") "palisade-state" (list "/var/lib/palisade") "palisade-socket" (list "/run/palisade") "palisade-no-token" (list "/var/run/secrets/kubernetes.io/serviceaccount") "palisade-secrets" (list "/etc/palisade/secrets") -}}
- message: Palisade's containers have Palisade's image, and its arguments
  expression: >-
    variables.containers.all(c, !(c.name in ['palisade', 'palisade-bundle']) || (
    (c.image.startsWith({{ printf "%s:" $v.image.repository | squote }}) || c.image.startsWith({{ printf "%s@" $v.image.repository | squote }})) &&
    !has(c.env) && !has(c.envFrom) && has(c.args) && (c.name == 'palisade' ? c.args == ['serve', '--config', '/etc/palisade/palisade.toml'] :
    {{- if $v.bundle.url }}
    (request.operation == 'UPDATE' || c.args == ['bundle', 'fetch', {{ squote $v.bundle.url }}, '--sha256', {{ squote $v.bundle.sha256 }}, '--into', {{ include "palisade.bundlePath" . | squote }}]))))
    {{- else }}
    false)))
    {{- end }}
- message: Palisade runs as its own user, and in the proxy's group
  expression: >-
    variables.containers.all(c, !(c.name in ['palisade', 'palisade-bundle']) || (has(c.securityContext) &&
    has(c.securityContext.runAsUser) && c.securityContext.runAsUser == 65532 && has(c.securityContext.runAsGroup) && c.securityContext.runAsGroup == 1337))
- message: Palisade has its own files, and no others
  expression: >-
    variables.containers.all(c, !(c.name in ['palisade', 'palisade-bundle']) || !has(c.volumeMounts) || c.volumeMounts.all(m,
    m.name in {{ keys $places | sortAlpha | toJson }} && m.mountPath in {{ $places | toJson }}[m.name])) &&
    (!has(object.spec.volumes) || dyn(object.spec.volumes).all(v, !v.name.startsWith('palisade-') ||
    (v.name == 'palisade-config' ? has(v.configMap) && v.configMap.name == '{{ .Release.Name }}-config' :
    {{- if $v.bundle.configMaps }}
    v.name == 'palisade-bundle' ? has(v.projected) && v.projected.sources.all(s, has(s.configMap) && s.configMap.name in {{ append $v.bundle.configMaps (printf "%s-agents" .Release.Name) | toJson }}) :
    {{- else if $v.bundle.volume }}
    v.name == 'palisade-bundle' ? dyn(v) == dyn({{ merge (dict "name" "palisade-bundle") $v.bundle.volume | toJson }}) :
    {{- else }}
    v.name == 'palisade-bundle' ? has(v.emptyDir) :
    {{- end }}
    {{- if $v.config.secretName }}
    v.name == 'palisade-secrets' ? has(v.secret) && v.secret.secretName == {{ squote $v.config.secretName }} :
    {{- end }}
    v.name == 'palisade-state' ? has(v.emptyDir) || has(v.ephemeral) :
    v.name in ['palisade-socket', 'palisade-no-token'] && has(v.emptyDir))))
- message: what is between the proxy and Palisade is mounted by them alone
  expression: >-
    variables.containers.all(c, c.name in ['istio-proxy', 'palisade', 'palisade-bundle'] || !has(c.volumeMounts) || c.volumeMounts.all(m, !m.name.startsWith('palisade-'))) &&
    variables.containers.all(c, c.name != 'istio-proxy' || !has(c.volumeMounts) || c.volumeMounts.all(m, !m.name.startsWith('palisade-') || m.name == 'palisade-socket'))
{{- end }}
