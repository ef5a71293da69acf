#!/usr/bin/env bash
# Checks deploy/prometheus with promtool: the scrape configuration, the rules, their tests, that the rules ask for
# metrics that exist, and Prometheus' linter on what a live lictor exports. Installs Debian's prometheus if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
have() { command -v "$1" >/dev/null 2>&1; }
missing=()
have promtool || missing+=(prometheus)
have curl || missing+=(curl)
have python3 || missing+=(python3)
if [ ${#missing[@]} -gt 0 ]; then
  have apt-get || { echo "scripts/rules.sh: please install ${missing[*]} (there is no apt-get here)" >&2; exit 1; }
  run=()
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || { echo "scripts/rules.sh: please install ${missing[*]} as root" >&2; exit 1; }
    run=(sudo)
  fi
  echo "scripts/rules.sh: installing ${missing[*]}" >&2
  "${run[@]}" apt-get -q update >&2
  "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}" >&2
fi
cargo build -q -p lictor
lictor=${CARGO_TARGET_DIR:-target}/debug/lictor
work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap finish EXIT
step() { printf '\n== %s\n' "$*"; }

step rules
promtool check rules deploy/prometheus/rules.yml
(cd deploy/prometheus && promtool test rules rules_test.yml)

step scrape configuration
# Debian builds Prometheus without Consul's discovery. There, everything else is checked, with an instance as Consul
# would give it in its place.
config=deploy/prometheus/prometheus.yml
if ! promtool check config "$config" >"$work/config" 2>&1; then
  if ! grep -q 'field consul_sd_configs not found' "$work/config"; then
    cat "$work/config" >&2
    exit 1
  fi
  echo "this promtool does not know consul_sd_configs: the rest is checked, with a static target in their place"
  cp deploy/prometheus/rules.yml "$work/"
  awk '
    /^    consul_sd_configs:/ {
      print "    static_configs:\n      - targets: [\"[::1]:8082\"]\n        labels:"
      print "          __meta_consul_service: orders\n          __meta_consul_service_id: orders-1"
      print "          __meta_consul_service_metadata_metrics_port: \"9902\"\n          __meta_consul_service_metadata_protocol: grpc"
      print "      - targets: [\"10.0.0.1:6379\"]\n        labels: {__meta_consul_service: redis}"
      skipping = 1; next
    }
    /^    [a-z]/ { skipping = 0 }
    !skipping
  ' "$config" > "$work/prometheus.yml"
  config=$work/prometheus.yml
  promtool check config "$config"
  promtool check service-discovery "$config" lictor > "$work/targets"
  python3 - "$work/targets" <<'PYTHON'
import json, sys
text = open(sys.argv[1]).read()
found = [target.get("labels") for target in json.loads(text[text.index("["):])]
labels = [known for known in found if known]
assert len(labels) == 1, f"one target is a sidecar, not {labels}"
wanted = {"__address__": "[::1]:9902", "sidecar": "orders", "instance": "orders-1", "job": "grpc-services"}
for name, value in wanted.items():
    assert labels[0].get(name) == value, f"{name} is {labels[0].get(name)}, not {value}"
print("relabelling gives", wanted)
PYTHON
else
  cat "$work/config"
fi

step what a live lictor exports
# An upstream that answers, one that refuses, one with a route and a cache, a TCP one, our own application behind `inbound`,
# and a gateway that limits, asks who it is, is asked by pages and compresses.
mkdir "$work/www" && echo hello > "$work/www/index.html"
ports=$(python3 -c '
import socket
open = [socket.socket() for _ in range(9)]
for each in open: each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in open))')
read -r app admin good bad cached bytes inbound nobody edge <<<"$ports"
python3 -m http.server --bind 127.0.0.1 --directory "$work/www" "$app" >/dev/null 2>&1 &
pids+=($!)
cat > "$work/lictor.yaml" <<YAML
service: orders
registration: off
app: {port: $app}
inbound: {listen: "127.0.0.1:$inbound"}
admin: {listen: "127.0.0.1:$admin"}
upstreams:
  good: {listen: $good, static: ["127.0.0.1:$app"]}
  bad: {listen: $bad, static: ["127.0.0.1:$nobody"], retry: {delays: [1ms]}, breaker: {failure_threshold: 2}}
  cached: {listen: $cached, static: ["127.0.0.1:$app"], routes: [{match: "GET /{page}", cache: 5s}]}
  bytes: {listen: $bytes, protocol: tcp, static: ["127.0.0.1:$app"]}
gateway:
  listen: "127.0.0.1:$edge"
  limit: 100/60s
  cors: {origins: ["https://app.example"]}
  compress: {min_size: 1}
  auth: {jwt: {secret: a-secret-of-thirty-two-bytes-or-more}, mode: none}
  routes:
    - {path: /index.html, to: good, mirror: {to: cached}}
    - {path: /told, respond: {body: "told", content_type: text/plain}}
    - {path: /who, respond: {body: "who"}, auth: required}
YAML
"$lictor" serve -c "$work/lictor.yaml" > "$work/log" &
pids+=($!)
"$lictor" wait --for startup --admin "127.0.0.1:$admin" || { cat "$work/log" >&2; exit 1; }
for port in "$app" "$good" "$bad" "$bad" "$bad" "$cached" "$cached" "$bytes" "$inbound"; do
  curl -s -o /dev/null --retry 5 --retry-connrefused "http://127.0.0.1:$port/index.html" || true
done
curl -s -o /dev/null -H 'content-type: application/grpc' -H 'te: trailers' -X POST "http://127.0.0.1:$bad/a.B/C" || true
curl -s -o /dev/null "http://127.0.0.1:$good/" -H 'Host: a b' || true
for path in index.html told who; do
  curl -s -o /dev/null --compressed -H 'Origin: https://app.example' "http://127.0.0.1:$edge/$path" || true
done
curl -sf "http://127.0.0.1:$admin/metrics" > "$work/metrics"
for family in lictor_gateway_request_duration_seconds lictor_gateway_cors_decisions_total lictor_gateway_compressed_total \
  lictor_auth_decisions_total lictor_limit_decisions_total; do
  grep -q "^# TYPE $family " "$work/metrics" || { echo "$family is not there" >&2; exit 1; }
done
echo "$(grep -c '^# TYPE' "$work/metrics") families, $(grep -vc '^#' "$work/metrics") samples"
promtool check metrics < "$work/metrics"

step the rules ask for what exists
python3 - deploy/prometheus/rules.yml $(find crates/lictor/src crates/lictor-proxy/src -path '*metrics*' -name '*.rs') <<'PYTHON'
import re, sys
rules, *sources = (open(path).read() for path in sys.argv[1:])
known = set(re.findall(r'"((?:lictor|http|grpc|circuit|active|process)_[a-z_]+)"', "".join(sources)))
expressions = "".join(re.findall(r"expr:(.*?)(?=\n        (?:for|labels):)", rules, re.S))
asked = {re.sub("_(bucket|count|sum)$", "", name) for name in re.findall(r"\b(?:lictor|http|grpc|circuit)_[a-z_]+", expressions)}
assert asked and asked <= known, f"no such family: {sorted(asked - known)}"
print(*sorted(asked), sep="\n")
PYTHON
