#!/usr/bin/env bash
# Builds lictor as it is published, and prints where the binary is: no path of this machine is in it, and where scripts/profile.sh
# was run for the target, it is optimised by what was seen there. From the environment: TARGET (this machine's), SOURCE (this
# checkout), BUILD (target/published/TARGET), PROFILE (target/profile/TARGET.profdata; `generate`: a binary that counts).
set -euo pipefail
cd "$(dirname "$0")/.."
target=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
source=${SOURCE:-$PWD}
build=${BUILD:-$PWD/target/published/$target}
profile=${PROFILE:-$PWD/target/profile/$target.profdata}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)

mkdir -p "$build"
flag=
# cargo does not know what the wrapper adds: another profile is another build.
afresh() { rm -rf "$build/$target" "$build/release" "$build/lictor.profdata"; }
if [ "$profile" = generate ]; then
  flag=-Cprofile-generate
elif [ -e "$profile" ]; then
  cmp -s "$profile" "$build/lictor.profdata" || { afresh && cp "$profile" "$build/lictor.profdata"; }
  flag=-Cprofile-use=$build/lictor.profdata
elif [ -n "${PROFILE:-}" ]; then
  echo "scripts/build.sh: there is no $profile" >&2
  exit 1
else
  [ ! -e "$build/lictor.profdata" ] || afresh
  echo "scripts/build.sh: without a profile (scripts/profile.sh makes one), at some 5 to 10 % more CPU a request" >&2
fi
# Of several names that fit a path, rustc takes the last.
(cd "$source" && env REMAP="$cargo_home=/cargo"$'\n'"$sysroot=/rust"$'\n'"$source=/lictor"$'\n'"$build=/target" PROFILE_FLAG="$flag" \
  RUSTC_WRAPPER="$source/scripts/rustc-published.sh" CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$build" \
  CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$source=/lictor -ffile-prefix-map=$build=/target" \
  cargo build --quiet --release --locked -p lictor --target "$target" >&2)
echo "$build/$target/release/lictor"
