{{/* The pod of a hook: (dict "root" $ "component" NAME "command" LIST "env" LIST-AS-YAML). */}}
{{- define "muster.hookPod" -}}
metadata:
  labels:
    {{- include "muster.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  annotations:
    checksum/site: {{ include "muster.siteChecksum" .root }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "muster.hooksServiceAccount" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    runAsNonRoot: true
    seccompProfile:
      type: RuntimeDefault
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .root.Values.hooks.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.hooks.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "muster.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command:
        {{- toYaml .command | nindent 8 }}
      env:
        {{- .env | nindent 8 }}
        - name: HOME
          value: /tmp
        - name: MUSTER_HOME
          value: /tmp/muster
        - name: AIRFLOW_HOME
          value: /tmp/airflow
      resources:
        {{- toYaml .root.Values.hooks.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: scratch
          mountPath: /tmp
        {{- if .site }}
        - name: site
          mountPath: /etc/muster
          readOnly: true
        {{- end }}
  volumes:
    - name: scratch
      emptyDir:
        sizeLimit: 1Gi
    {{- if .site }}
    - name: site
      projected:
        sources:
          - configMap:
              name: {{ include "muster.siteConfigMap" .root }}
          - configMap:
              name: {{ include "muster.fullname" .root }}-pools
    {{- end }}
{{- end -}}

{{/* Annotations of a hook that Helm deletes before it makes the next: (dict "when" NAMES "weight" N). */}}
{{- define "muster.hookAnnotations" -}}
helm.sh/hook: {{ .when }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation
{{- end -}}
