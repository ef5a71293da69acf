#!/usr/bin/env bash
# What the published binary is optimised by (profile-guided optimization, rustc's book): builds lictor so that it counts what it
# does, puts it through the loads of scripts/bench.sh, and writes target/profile/TARGET.profdata for scripts/build.sh. It fits
# the rustc that it was made with; code that has changed since is optimised as without. `scripts/profile.sh TARGET` is for
# another target than this machine's; some 8 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
fail() { echo "scripts/profile.sh: $*" >&2; exit 1; }

# The tool must know the format of rustc's LLVM: rustup has it (llvm-tools), else Debian.
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
profdata=$(rustc --print target-libdir)/../bin/llvm-profdata
if [ ! -x "$profdata" ]; then
  profdata=llvm-profdata-$llvm
  if ! command -v "$profdata" >/dev/null; then
    command -v apt-get >/dev/null || fail "please install llvm-profdata of LLVM $llvm (rustup component add llvm-tools)"
    run=()
    [ "$(id -u)" -eq 0 ] || run=(sudo)
    echo "scripts/profile.sh: installing llvm-$llvm" >&2
    "${run[@]}" apt-get -qq update >&2
    "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "llvm-$llvm" >/dev/null \
      || fail "no package llvm-$llvm: rustup component add llvm-tools has it too"
  fi
fi

raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
lictor=$(TARGET=$target PROFILE=generate BUILD=$PWD/target/profile/build/$target scripts/build.sh)
LLVM_PROFILE_FILE="$raw/%p.profraw" LICTOR_BIN=$lictor scripts/bench.sh --proxies lictor --rounds 1 --seconds 2 --patience 0 >&2
"$profdata" merge --sparse --output "target/profile/$target.profdata" "$raw"
echo "target/profile/$target.profdata"
