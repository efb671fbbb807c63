{{/* A peer: pods with these labels in this namespace. The namespace is named by the label that only the API server sets. */}}
{{- define "palisade.peer" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .namespace }}
  podSelector:
    matchLabels:
      {{- toYaml .podLabels | nindent 6 }}
{{- end }}

{{/* All pods of these namespaces. */}}
{{- define "palisade.namespaces" -}}
- namespaceSelector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: In
        values:
          {{- toYaml . | nindent 10 }}
{{- end }}

{{- define "palisade.tcp" -}}
{{- range . }}
- protocol: TCP
  port: {{ . }}
{{- end }}
{{- end }}

{{/* Egress rules to a list of peers, each with ports of its own. */}}
{{- define "palisade.egressTo" -}}
{{- range . }}
- to:
    {{- include "palisade.peer" . | nindent 4 }}
  ports:
    {{- include "palisade.tcp" .ports | trim | nindent 4 }}
{{- end }}
{{- end }}

{{/* Ingress rules from a list of peers to the given ports. */}}
{{- define "palisade.ingressFrom" -}}
{{- $ports := .ports -}}
{{- range .peers }}
- from:
    {{- include "palisade.peer" . | nindent 4 }}
  ports:
    {{- include "palisade.tcp" $ports | trim | nindent 4 }}
{{- end }}
{{- end }}

{{/* What every pod of the mesh needs before it can call anybody: names, and with a proxy in it certificates. */}}
{{- define "palisade.egressOfMesh" -}}
- to:
    {{- include "palisade.peer" .Values.peers.dns | nindent 4 }}
    {{- if .Values.peers.nodeLocalDNS }}
    - ipBlock:
        cidr: 169.254.20.10/32
    {{- end }}
  ports:
    {{- range .Values.peers.dns.ports }}
    - protocol: UDP
      port: {{ . }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
{{- if .proxy }}
{{- include "palisade.egressTo" (list .Values.peers.istiod) }}
{{- end }}
{{- end }}
