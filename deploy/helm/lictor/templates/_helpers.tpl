{{/*
For other charts, which have this one as a dependency with `gateway.enabled: false`, and its `config`:

  spec:
    terminationGracePeriodSeconds: {{ .Values.lictor.grace }}
    initContainers:
      {{- include "lictor.sidecar" .Subcharts.lictor | nindent 6 }}
    volumes:
      {{- include "lictor.volume" .Subcharts.lictor | nindent 6 }}
*/}}
{{- define "lictor.sidecar" -}}
- {{ include "lictor.container" . | nindent 2 | trim }}
  # It starts before the application, which waits for its startup probe, and stops after it.
  restartPolicy: Always
  ports:
    - {name: lictor-public, containerPort: 9902}
{{- end }}

{{- define "lictor.volume" -}}
- name: lictor
  configMap: {name: {{ include "lictor.name" . }}}
{{- end }}

{{/* Of what belongs to the release; 63 characters are what a label may have. */}}
{{- define "lictor.name" -}}
{{- printf "%s-lictor" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "lictor.labels" -}}
app.kubernetes.io/name: lictor
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The container without its ports. */}}
{{- define "lictor.container" -}}
name: lictor
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: POD_IP
    valueFrom: {fieldRef: {fieldPath: status.podIP}}
  - name: HOST_IP
    valueFrom: {fieldRef: {fieldPath: status.hostIP}}
  - {name: CONSUL_HTTP_ADDR, value: {{ .Values.consul.address | quote }}}
  {{- with .Values.consul.token }}
  {{- if .secret }}
  - name: CONSUL_HTTP_TOKEN
    valueFrom: {secretKeyRef: {name: {{ .secret | quote }}, key: {{ .key | quote }}}}
  {{- end }}
  {{- end }}
  - {name: LICTOR_ADMIN_PUBLIC, value: "0.0.0.0:9902"}
  - {name: TERMINATION_GRACE, value: {{ .Values.grace | quote }}}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
startupProbe:
  httpGet: {path: /startup, port: lictor-public}
  periodSeconds: 1
  failureThreshold: 35
readinessProbe:
  httpGet: {path: /ready, port: lictor-public}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /live, port: lictor-public}
  periodSeconds: 10
  timeoutSeconds: 3
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - {name: lictor, mountPath: /etc/lictor, readOnly: true}
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
