#!/usr/bin/env bash
# Writes docs/configuration.md from `lictor schema`; with --check, says whether it is current.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build -q -p lictor
lictor=${CARGO_TARGET_DIR:-target}/debug/lictor
mkdir -p target
"$lictor" schema | python3 scripts/config_reference.py > target/configuration.md
if [ "${1:-}" = --check ]; then
  diff -u docs/configuration.md target/configuration.md || { echo "docs/configuration.md is old: scripts/config-reference.sh writes it" >&2; exit 1; }
else
  cp target/configuration.md docs/configuration.md
fi
