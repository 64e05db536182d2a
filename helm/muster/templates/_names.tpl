{{- define "muster.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "muster.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: muster
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a selector may hold: nothing that an upgrade changes. */}}
{{- define "muster.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "muster.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "muster.jobsNamespace" -}}
{{- default .Release.Namespace .Values.jobs.namespace -}}
{{- end -}}

{{- define "muster.jobsServiceAccount" -}}
{{- default (printf "%s-jobs" (include "muster.fullname" .)) .Values.jobs.serviceAccount.name -}}
{{- end -}}

{{- define "muster.hooksServiceAccount" -}}
{{- printf "%s-hooks" (include "muster.fullname" .) -}}
{{- end -}}

{{- define "muster.siteConfigMap" -}}
{{- default (printf "%s-site" (include "muster.fullname" .)) .Values.site.existingConfigMap -}}
{{- end -}}

{{- define "muster.workClaim" -}}
{{- default (printf "%s-work" (include "muster.fullname" .)) .Values.work.existingClaim -}}
{{- end -}}

{{/* The name of a GPU pool's PriorityClass: (dict "root" $ "name" KEY "pool" POOL). */}}
{{- define "muster.priorityClass" -}}
{{- $class := default dict .pool.priorityClass -}}
{{- default (printf "%s-%s" (include "muster.fullname" .root) .name) $class.name -}}
{{- end -}}

{{/* What an installation has to restart, or import again, when it changes. */}}
{{- define "muster.siteChecksum" -}}
{{- dict "site" .Values.site "pools" .Values.pools.podTemplates | toJson | sha256sum -}}
{{- end -}}
