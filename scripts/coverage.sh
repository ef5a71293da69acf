#!/usr/bin/env bash
# Which lines of lictor-http its own tests run, file by file; fails below 90 % of all. Tests themselves are not counted.
set -euo pipefail
cd "$(dirname "$0")/.."

# What the compiler writes, tools of the same LLVM read.
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
if ! command -v "llvm-cov-$llvm" >/dev/null; then
    apt-get install -y --no-install-recommends "llvm-$llvm" >/dev/null
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
profiles=$target/coverage
rm -rf "$profiles" && mkdir -p "$profiles"
# Of what is built, only this workspace's crates are instrumented.
printf '#!/bin/sh\nexec "$@" -C instrument-coverage\n' >"$profiles/rustc" && chmod +x "$profiles/rustc"
export RUSTC_WORKSPACE_WRAPPER=$profiles/rustc LLVM_PROFILE_FILE=$profiles/%m_%p.profraw

cargo test -p lictor-http
"llvm-profdata-$llvm" merge -sparse "$profiles"/*.profraw -o "$profiles/all.profdata"
mapfile -t objects < <(cargo test -p lictor-http --no-run --message-format=json 2>/dev/null |
    python3 -c 'import json, sys; [print("--object=" + m["executable"]) for m in map(json.loads, sys.stdin) if m.get("executable")]')
"llvm-cov-$llvm" export --format=lcov --instr-profile="$profiles/all.profdata" "${objects[@]}" \
    --sources "$PWD/crates/lictor-http/src" >"$profiles/lcov.info"
python3 scripts/coverage.py "$profiles/lcov.info" "$PWD/crates/lictor-http/src" "${AT_LEAST:-90}"
