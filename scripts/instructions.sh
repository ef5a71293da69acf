#!/usr/bin/env bash
# Instructions per operation of the request path, and of whole requests through the release binary (LICTOR_BIN: another), by
# callgrind: each at two counts, the difference by the difference of the counts. Compared with bench/instructions.txt; more than 3 % growth fails. `scripts/instructions.sh --write` writes the file.
set -euo pipefail
cd "$(dirname "$0")/.."
file=bench/instructions.txt
few=500 many=2500

if ! command -v valgrind >/dev/null; then
  command -v apt-get >/dev/null || { echo "scripts/instructions.sh: please install valgrind (there is no apt-get here)" >&2; exit 1; }
  run=()
  [ "$(id -u)" -eq 0 ] || run=(sudo)
  "${run[@]}" apt-get -qq update >&2
  "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends valgrind >/dev/null
fi
declare -A binary # of each operation
names=()
for crate in lictor-core lictor-jose; do
  built=$(cargo bench --quiet -p "$crate" --bench instructions --no-run --message-format json |
    grep -o '"executable":"[^"]*/instructions-[^"]*"' | tail -n 1 | cut -d '"' -f 4)
  for name in $("$built" list); do
    binary[$name]=$built
    names+=("$name")
  done
done

lictor=${LICTOR_BIN:-${CARGO_TARGET_DIR:-target}/release/lictor}
[ -n "${LICTOR_BIN:-}" ] || cargo build --quiet --release -p lictor

count() {
  [[ " ${names[*]} " == *" $1 "* ]] || { python3 -B bench/request.py "$lictor" "${1#request_}" "$2"; return; }
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "${binary[$1]}" "$1" "$2" 2>&1 >/dev/null |
    awk '/Collected/ {print $NF; ok = 1} END {exit !ok}'
}

measured=$(mktemp)
trap 'rm -f "$measured"' EXIT
for name in "${names[@]}" request_{get,post,gateway,gateway_10000,gateway_asked}; do
  from=$few to=$many
  # What loading 10,000 routes has freed is put together when the first thousands of requests want memory.
  [ "$name" != request_gateway_10000 ] || from=2500 to=12500
  low=$(count "$name" "$from")
  high=$(count "$name" "$to")
  printf '%-28s %10.1f\n' "$name" "$(awk "BEGIN {print ($high - $low) / ($to - $from)}")" >> "$measured"
done

if [ "${1:-}" = --write ]; then
  { echo "# Instructions per operation, written by scripts/instructions.sh --write ($(rustc --version | cut -d ' ' -f 1,2), $(uname -m))"
    cat "$measured"; } > "$file"
  cat "$file"
  exit
fi
awk -v limit=1.03 '
  /^#/ { next }
  FNR == NR { before[$1] = $2; next }
  !($1 in before) { printf "%-28s %10.1f   new: write it by --write\n", $1, $2; bad = 1; next }
  { grown = $2 > before[$1] * limit
    printf "%-28s %10.1f  was %10.1f  %+6.1f %%%s\n", $1, $2, before[$1], ($2 / before[$1] - 1) * 100, grown ? "  GROWN" : ""
    bad = bad || grown; delete before[$1] }
  END { for (name in before) { print name " is gone: write it by --write"; bad = 1 }; exit bad }
' "$file" "$measured"
