#!/usr/bin/env bash
# Requests made up from /openapi.json, good ones and bad ones, to a real lictor with all building blocks on a real Consul; each
# answer has to be as the document says: tests/openapi. LICTOR_BIN=FILE tests that binary instead of building one; ONLY=WORD picks
# paths that have the word; EXAMPLES=100 is how many requests are made up for each operation and kind.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  echo "scripts/openapi.sh: please install python3-venv" >&2
  exit 1
fi
pinned=tests/openapi/requirements.txt
venv=$PWD/target/tools/openapi
if ! cmp -s "$pinned" "$venv/requirements.txt"; then
  echo "scripts/openapi.sh: making $venv" >&2
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$pinned" >&2
  cp "$pinned" "$venv/requirements.txt"
fi
CONSUL_BIN=$(scripts/consul.sh)
if [ -z "${LICTOR_BIN:-}" ]; then
  cargo build -q -p lictor
  LICTOR_BIN=${CARGO_TARGET_DIR:-target}/debug/lictor
fi
LICTOR_BIN=$(realpath "$LICTOR_BIN")
export CONSUL_BIN LICTOR_BIN
exec "$venv/bin/python" -B tests/openapi/run.py
