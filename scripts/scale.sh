#!/usr/bin/env bash
# Memory, CPU and latency by services, endpoints, connections and changes: gets what is missing, builds, and runs bench/scale.py with
# the arguments given. LICTOR_BIN measures another binary.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
for tool in nginx wrk; do
  command -v "$tool" >/dev/null || { echo "scripts/scale.sh: no $tool; scripts/bench.sh installs it" >&2; exit 1; }
done
consul=$(scripts/consul.sh)
target=${CARGO_TARGET_DIR:-target}
if [ -z "${RATE_BIN:-}" ]; then
  cargo build --quiet --release -p lictor-testkit --example rate
  RATE_BIN="$target/release/examples/rate"
fi
LICTOR_BIN=${LICTOR_BIN:-$(scripts/build.sh)}
exec python3 -B bench/scale.py --lictor "$LICTOR_BIN" --consul "$consul" --rate-driver "$RATE_BIN" "$@"
