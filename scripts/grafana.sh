#!/usr/bin/env bash
# Runs every query of deploy/grafana/lictor.json against a real Prometheus that scrapes the live demonstration and a
# gateway, and fails when one is refused or returns nothing. Needs Debian's prometheus (scripts/rules.sh installs it).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v prometheus >/dev/null || { echo "scripts/grafana.sh: please install prometheus (scripts/rules.sh does)" >&2; exit 1; }
cargo build -q -p lictor -p shop
target=${CARGO_TARGET_DIR:-target}/debug
work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
  [ -z "${gateway:-}" ] || kill "$gateway" 2>/dev/null || true # it was started with INT ignored, and leaves that so
  wait
  rm -rf "$work"
}
trap finish EXIT

# KEEP=1 stays up when the steps are over, and then says where it is.
KEEP=1 "$target/shop" demo --lictor "$target/lictor" > "$work/demo" &
pids+=($!)
await() { # what, seconds, command..
  local what=$1 ends=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $ends ] || { echo "scripts/grafana.sh: not in time: $what" >&2; cat "$work/demo" >&2; exit 1; }
    kill -0 "${pids[0]}" 2>/dev/null || { echo "scripts/grafana.sh: the demonstration ended" >&2; cat "$work/demo" >&2; exit 1; }
    sleep 0.2
  done
}
await "the sidecar's address" 180 grep -q "its sidecar" "$work/demo"
admin=$(sed -nE 's|.*its sidecar +http://([^/]+)/.*|\1|p' "$work/demo")
ports=$(python3 -c '
import socket
open = [socket.socket() for _ in range(3)]
for each in open: each.bind(("127.0.0.1", 0))
print(*("127.0.0.1:%d" % each.getsockname()[1] for each in open))')
read -r listen edge edge_admin <<<"$ports"
# A gateway that sends on, refuses, limits and is asked by pages.
cat > "$work/edge.yaml" <<YAML
service: edge
registration: off
admin: {listen: "$edge_admin"}
gateway:
  listen: "$edge"
  cors: {origins: ["https://app.example"]}
  auth: {jwt: {secret: a-secret-of-thirty-two-bytes-or-more}, mode: none}
  routes:
    - {path: /live, to: "http://$admin"}
    - {path: /few, to: "http://$admin", limit: {rate: 1/1h, by: []}}
    - {path: /who, respond: {body: hello}, auth: required}
YAML
"$target/lictor" serve -c "$work/edge.yaml" > "$work/edge" &
gateway=$!
pids+=($gateway)
await "the gateway" 30 curl -sf "http://$edge_admin/startup"
cp deploy/prometheus/rules.yml "$work/"
cat > "$work/prometheus.yml" <<YAML
global: {scrape_interval: 1s, evaluation_interval: 5s}
rule_files: [rules.yml]
scrape_configs:
  - job_name: lictor
    static_configs:
      - {targets: ["$admin"], labels: {sidecar: order-service, instance: order-1}}
      - {targets: ["$edge_admin"], labels: {sidecar: edge, instance: edge-1}}
YAML
prometheus --config.file "$work/prometheus.yml" --storage.tsdb.path "$work/tsdb" --web.listen-address "$listen" \
  --enable-feature=exemplar-storage --log.level=error > "$work/prometheus" 2>&1 &
pids+=($!)
await "Prometheus" 30 curl -sf "http://$listen/-/ready"
python3 - "$listen" "$edge" deploy/grafana/lictor.json <<'PYTHON'
import json, re, sys, threading, time, urllib.error, urllib.parse, urllib.request

at, edge, file = sys.argv[1:]
board = json.load(open(file))


def ask(path, **query):
    with urllib.request.urlopen(f"http://{at}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
        return json.load(answer)["data"]


def run(expression):
    expression = expression.replace("$__rate_interval", "10s")
    expression = re.sub(r"\$(sidecar|upstream)\b", ".*", expression)
    try:
        return [one for one in ask("query", query=expression)["result"] if one["value"][1] != "NaN"]
    except urllib.error.HTTPError as error:
        sys.exit(f"refused: {expression}\n{error.read().decode()}")


def visit():
    while True:
        for path in ["live", "few", "who", "none"]:
            try:
                urllib.request.urlopen(urllib.request.Request(f"http://{edge}/{path}", headers={"Origin": "https://app.example"}), timeout=5).close()
            except urllib.error.HTTPError:
                pass  # a refusal is what is to be seen
        time.sleep(0.1)


threading.Thread(target=visit, daemon=True).start()
queries = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
assert len(queries) >= 20, len(queries)
empty, ends = queries, time.monotonic() + 60
while empty and time.monotonic() < ends:
    empty = [(title, query) for title, query in empty if not run(query)]
    time.sleep(0.5)
for title, query in empty:
    print(f"nothing: {title}: {query}")
for variable in board["templating"]["list"]:
    if variable["type"] == "query":
        metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
        values = {one["metric"].get(label) for one in run(metric)}
        assert values and None not in values, f"{variable['name']} has no values"
        print(f"${variable['name']}: {', '.join(sorted(values))}")
for annotation in board["annotations"]["list"]:
    run(annotation["expr"])  # empty unless something was just reloaded
ill = [rule for group in ask("rules")["groups"] for rule in group["rules"] if rule["health"] == "err"]
assert not ill, ill
examples = ask("query_exemplars", query="lictor_upstream_request_duration_seconds_bucket", start=time.time() - 600, end=time.time())
assert any(one["exemplars"] for one in examples), "no exemplars were scraped"
if empty:
    sys.exit(1)
print(f"{len(queries)} queries of {file} return something; exemplars arrive; no rule fails")
PYTHON
