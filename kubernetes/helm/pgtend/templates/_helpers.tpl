{{- define "pgtend.name" -}}
{{- if contains "pgtend" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-pgtend{{ end -}}
{{- end }}

{{- define "pgtend.selector" -}}
app.kubernetes.io/name: pgtend
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pgtend.labels" -}}
{{ include "pgtend.selector" . }}
app.kubernetes.io/component: serve
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "pgtend.secret" -}}
{{- .Values.secrets.existing | default (include "pgtend.name" .) -}}
{{- end }}

{{- define "pgtend.account" -}}
{{- .Values.serviceAccount.name | default (ternary (include "pgtend.name" .) "default" .Values.serviceAccount.create) -}}
{{- end }}
