{{- /* What is not a matter of one value. Each refusal is one line. */ -}}
{{- define "adprior.check" -}}
{{- with .Values.repository }}
{{- if eq (empty .volume) (empty .url) }}
{{- fail "repository: give volume or url, and not both" }}
{{- end }}
{{- if ne (empty .version) (empty .url) }}
{{- fail "repository: url and version go together" }}
{{- end }}
{{- if and .serviceAccount (not .url) }}
{{- fail "repository.serviceAccount goes with repository.url" }}
{{- end }}
{{- if and .url .subPath }}
{{- fail "repository.subPath goes with repository.volume" }}
{{- end }}
{{- if and .url $.Values.networkPolicy.enabled (not $.Values.networkPolicy.stores) }}
{{- fail "repository.url needs networkPolicy.stores: else pods cannot reach it" }}
{{- end }}
{{- end }}
{{- if and (not .Values.tls.secret) (not .Values.plainText) }}
{{- fail "tls.secret is empty and plainText is false: give a certificate, or plainText: true on a network that is trusted or encrypted" }}
{{- end }}
{{- if and .Values.tls.secret .Values.plainText }}
{{- fail "plainText is true, and tls.secret is given: choose one" }}
{{- end }}
{{- if and .Values.tls.mutual (not .Values.tls.secret) }}
{{- fail "tls.mutual needs tls.secret" }}
{{- end }}
{{- if and .Values.tokens.admin (not .Values.tokens.secret) }}
{{- fail "tokens.admin needs tokens.secret" }}
{{- end }}
{{- if and .Values.monitoring.alerts (not .Values.monitoring.enabled) }}
{{- fail "monitoring.alerts needs monitoring.enabled" }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .by (not $.Values.monitoring.enabled) }}
{{- fail (printf "autoscaling.by is %s, which needs monitoring.enabled" .by) }}
{{- end }}
{{- if and (eq .by "keda") (not .prometheus) }}
{{- fail "autoscaling.by is keda, which needs autoscaling.prometheus" }}
{{- end }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas is %v, expected at most maxReplicas, %v" .minReplicas .maxReplicas) }}
{{- end }}
{{- end }}
{{- if .Values.bulk.enabled }}
{{- range $name := list "image" "options" "volume" }}
{{- if not (get $.Values.bulk $name) }}
{{- fail (printf "bulk.enabled needs bulk.%s" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Labels by which objects find the pods. Argument: [component, root]. */ -}}
{{- define "adprior.selector" -}}
app.kubernetes.io/name: adprior
app.kubernetes.io/instance: {{ (index . 1).Release.Name }}
app.kubernetes.io/component: {{ index . 0 }}
{{- end }}

{{- define "adprior.labels" -}}
{{ include "adprior.selector" . }}
app.kubernetes.io/version: {{ (index . 1).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 1).Release.Service }}
{{- end }}

{{- /* The image's user is 1000. The group lets it read Secrets, which belong to root. */ -}}
{{- define "adprior.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "adprior.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{- /* HTTP listens on loopback, so the probe runs inside. It asks as the image's HEALTHCHECK does. */ -}}
{{- define "adprior.probe" -}}
exec:
  command:
    - python3
    - -c
    - "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=2); c.request('GET', '/v2/health/{{ . }}'); raise SystemExit(c.getresponse().status != 200)"
timeoutSeconds: 10
{{- end }}

{{- /* Name and labels, as JSON, of the gauge of requests that wait for the language model. The
       Python engines leave requests in Triton's queue, TensorRT-LLM takes them into its own. */ -}}
{{- define "adprior.waiting" -}}
{{- if eq .Values.target "tensorrt-llm" -}}
{"name": "nv_trt_llm_request_metrics", "labels": {"model": "llm_engine", "request_type": "waiting"}}
{{- else -}}
{"name": "nv_inference_pending_request_count", "labels": {"model": "llm_engine"}}
{{- end }}
{{- end }}
