{{/* The parts of a pod with Palisade in it; the same for all forms. */}}

{{/* A bundle that is fetched is a link to a folder beside it, which is swapped at once. */}}
{{- define "palisade.bundlePath" -}}
/etc/palisade/bundle{{ if .Values.bundle.url }}/current{{ end }}
{{- end }}

{{- define "palisade.image" -}}
{{- with .Values.image -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end }}
{{- end }}

{{- define "palisade.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
# In a sidecar the socket is for this group, which is the proxy's.
runAsGroup: {{ if eq .Values.form "sidecar" }}1337{{ else }}65532{{ end }}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
privileged: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "palisade.container" -}}
name: palisade
image: {{ include "palisade.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/palisade/palisade.toml]
securityContext:
  {{- include "palisade.securityContext" . | nindent 2 }}
resources:
  {{- index .Values.resources .Values.form | toYaml | nindent 2 }}
# All probes ask on the loopback: no port is open for them. Until the first success nothing that comes later starts.
startupProbe:
  exec:
    command: [/usr/bin/palisade, health, --config, /etc/palisade/palisade.toml]
  periodSeconds: 1
  timeoutSeconds: 2
  # Reading a bundle may take load_seconds (300).
  failureThreshold: 330
readinessProbe:
  exec:
    command: [/usr/bin/palisade, health, --config, /etc/palisade/palisade.toml]
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
# Alone whether it answers: what is not ready is not restarted, for its disk would be as full afterwards.
livenessProbe:
  exec:
    command: [/usr/bin/palisade, health, --live, --config, /etc/palisade/palisade.toml]
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
volumeMounts:
  {{- include "palisade.mounts" . | nindent 2 }}
{{- end }}

{{- define "palisade.mounts" -}}
- name: palisade-config
  mountPath: /etc/palisade/palisade.toml
  subPath: palisade.toml
  readOnly: true
- name: palisade-bundle
  mountPath: /etc/palisade/bundle
  readOnly: true
- name: palisade-state
  mountPath: /var/lib/palisade
{{- if eq .Values.form "sidecar" }}
- name: palisade-socket
  mountPath: /run/palisade
# Kubernetes mounts the pod's token where nothing is mounted yet; Palisade has no use for it.
- name: palisade-no-token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
{{- if .Values.config.secretName }}
- name: palisade-secrets
  mountPath: /etc/palisade/secrets
  readOnly: true
{{- end }}
{{- if .Values.control.enabled }}
- name: palisade-control
  mountPath: /etc/palisade/control
  readOnly: true
{{- end }}
{{- end }}

{{/* Fetches the bundle; what has another digest is refused, and the pod does not start. */}}
{{- define "palisade.fetch" -}}
name: palisade-bundle
image: {{ include "palisade.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [bundle, fetch, {{ .Values.bundle.url | quote }}, --sha256, {{ .Values.bundle.sha256 | quote }}, --into, {{ include "palisade.bundlePath" . }}]
securityContext:
  {{- include "palisade.securityContext" . | nindent 2 }}
resources:
  {{- index .Values.resources .Values.form | toYaml | nindent 2 }}
volumeMounts:
  - name: palisade-bundle
    mountPath: /etc/palisade/bundle
  {{- if eq .Values.form "sidecar" }}
  - name: palisade-no-token
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
  {{- end }}
{{- end }}

{{- define "palisade.volumes" -}}
- name: palisade-config
  configMap:
    name: {{ .Release.Name }}-config
- name: palisade-bundle
  {{- if .Values.bundle.configMaps }}
  # One directory of all of them: swapped whole, by renaming one link.
  projected:
    sources:
      {{- range .Values.bundle.configMaps }}
      - configMap:
          name: {{ . }}
      {{- end }}
      {{- if or .Values.agents .Values.sandboxed }}
      - configMap:
          name: {{ .Release.Name }}-agents
      {{- end }}
  {{- else if .Values.bundle.volume }}
  {{- toYaml .Values.bundle.volume | nindent 2 }}
  {{- else }}
  emptyDir:
    sizeLimit: 512Mi
  {{- end }}
- name: palisade-state
  {{- if eq .Values.state.volume "ephemeral" }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .Values.state.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ .Values.state.size }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.state.size }}
  {{- end }}
{{- if eq .Values.form "sidecar" }}
# For the proxy and Palisade alone: admission refuses other containers that mount it.
- name: palisade-socket
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
- name: palisade-no-token
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- if .Values.config.secretName }}
- name: palisade-secrets
  secret:
    secretName: {{ .Values.config.secretName }}
    # Palisade reads no secret that others may read; the group is the pod's fsGroup.
    defaultMode: 0440
{{- end }}
{{- if .Values.control.enabled }}
- name: palisade-control
  secret:
    secretName: {{ .Values.control.secretName }}
    defaultMode: 0440
{{- end }}
{{- end }}
