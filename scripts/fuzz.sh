#!/usr/bin/env bash
# Fuzzes what reads hostile input: each target of fuzz/ for MINUTES of processor time (default 10), or only TARGET. Fails on a
# finding. New inputs are in target/fuzz/corpus; `scripts/fuzz.sh --keep` puts those that reach something new in fuzz/corpus.
# BUILD=0 takes the targets as they were built last; SLICE is how many seconds one runs before its time is looked at; AT_ONCE targets run
# at once (as many as there are processors).
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools out=$PWD/target/fuzz
# Coverage and AddressSanitizer are flags of nightly compilers. Ours has them too, when it is told so.
export RUSTC_BOOTSTRAP=1 PATH="$tools/bin:$PATH"
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --root "$tools" cargo-fuzz@0.13.2

targets=${TARGET:-$(grep -A 1 -F '[[bin]]' fuzz/Cargo.toml | sed -n 's/^name = "\(.*\)"/\1/p')}
if [ "${BUILD:-1}" = 1 ]; then
  cargo fuzz build --target-dir "$out" ${TARGET:-}
fi
binary() { echo "$out/x86_64-unknown-linux-gnu/release/$1"; }
options=(-max_len=4096 -timeout=20 -rss_limit_mb=2048)

keep() { # The fewest inputs that reach every edge that was reached, and those that are named: they were found once.
  local kept=fuzz/corpus/$1 fewest
  fewest=$(mktemp -d)
  "$(binary "$1")" -set_cover_merge=1 -use_counters=0 "${options[@]}" -artifact_prefix="$out/artifacts/$1-" "$fewest" "$kept" "$out/corpus/$1" >/dev/null 2>&1
  find "$kept" -type f ! -name '*-*' -delete
  cp "$fewest"/* "$kept"
  rm -r "$fewest"
  echo "$1: $(find "$kept" -type f | wc -l) inputs are kept"
}

run() { # Until its processor time is over: others may use the machine as well.
  local wanted=$((${MINUTES:-10} * 60)) used=0 executions=0 edges log took units words=()
  log=$out/$1.log
  [ ! -f "fuzz/dictionaries/$1.dict" ] || words=("-dict=fuzz/dictionaries/$1.dict")
  mkdir -p "$out/corpus/$1" "$out/artifacts"
  while [ "$used" -lt "$wanted" ]; do
    took=$( { TIMEFORMAT=%U; time nice -n 19 "$(binary "$1")" "${options[@]}" "${words[@]}" -print_final_stats=1 -max_total_time="${SLICE:-60}" \
      -artifact_prefix="$out/artifacts/$1-" "$out/corpus/$1" "fuzz/corpus/$1" >"$log" 2>&1; } 2>&1 ) || {
      tail -n 40 "$log"
      echo "scripts/fuzz.sh: $1 has a finding: $(ls -t "$out/artifacts/$1"-* 2>/dev/null | head -n 1)" >&2
      return 1
    }
    units=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    used=$((used + ${took%.*} + 1)) executions=$((executions + units))
    edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -d ' ' -f 2 || true) # none in a slice that ended before it said so
  done
  printf '%-16s %5d s of processor time %12d executions %6d edges %6d inputs\n' \
    "$1" "$used" "$executions" "$edges" "$(find "$out/corpus/$1" "fuzz/corpus/$1" -type f | wc -l)"
}

trap 'trap - INT TERM; kill 0' INT TERM # what runs in the background hears of no Ctrl-C
findings=0 running=0
ended() { wait -n || findings=$((findings + 1)); running=$((running - 1)); } # one target's finding hides no other's
for target in $targets; do
  if [ "${1:-}" = --keep ]; then keep "$target"; continue; fi
  [ "$running" -lt "${AT_ONCE:-$(nproc)}" ] || ended
  run "$target" & running=$((running + 1))
done
while [ "$running" -gt 0 ]; do ended; done
[ "$findings" -eq 0 ]
