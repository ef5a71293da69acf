#!/usr/bin/env bash
# What is published: target/dist/lictor-VERSION-TARGET.tar.gz with the binary, its manual page, completions, the software
# bill of materials and the licences of what is linked; its sha256; and the profile that it was optimised by. PROFILE takes
# an earlier one instead of making it. With --reproduce it is built twice, from two checkouts of HEAD in two folders, and
# the two must be the same byte for byte; KEEP=1 leaves the two folders for a look.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
fail() { echo "scripts/release.sh: $*" >&2; exit 1; }

commit=${LICTOR_COMMIT:-$(git rev-parse --short=12 HEAD)}
# Times in archives and documents are the commit's: a build later is the same build.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
target=$(rustc -vV | sed -n 's/^host: //p')
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=lictor-$version-$target

# Builds a checkout.
build() {
  LICTOR_COMMIT="$commit" SOURCE=$1 BUILD=$2 PROFILE=$profile "$1/scripts/build.sh" > /dev/null
}

# The archive of a build; its bytes depend on nothing but its contents.
pack() {
  local source=$1 build=$2 dist=$3 lictor=$2/$target/release/lictor folder
  folder=$dist/$name
  rm -rf "$folder" && mkdir -p "$folder/completions"
  install -m 755 "$lictor" "$folder/lictor"
  "$lictor" man > "$folder/lictor.1"
  for shell in bash zsh fish elvish powershell; do "$lictor" completions "$shell" > "$folder/completions/lictor.$shell"; done
  (cd "$source" && python3 scripts/bill_of_materials.py cyclonedx --target "$target" > "$folder/lictor.cdx.json" \
    && python3 scripts/bill_of_materials.py licences --target "$target" > "$folder/THIRD-PARTY-LICENCES.txt" \
    && install -m 644 LICENSE README.md CHANGELOG.md "$folder")
  tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
    --directory="$dist" "$name" | gzip --no-name -9 > "$dist/$name.tar.gz"
  (cd "$dist" && sha256sum "$name.tar.gz" > "$name.tar.gz.sha256")
  cp "$profile" "$dist/$name.profdata"
}

[ "${1:-}" = --reproduce ] || [ -z "$(git status --porcelain)" ] || fail "there are changes that are not committed: the commit would not say what was built"
profile=$(realpath "${PROFILE:-$(scripts/profile.sh)}")

if [ "${1:-}" = --reproduce ]; then
  work=$(mktemp -d)
  trap '[ -n "${KEEP:-}" ] || rm -rf "$work"' EXIT
  for folder in one another/place; do
    mkdir -p "$work/$folder"
    git archive HEAD | tar --extract --directory="$work/$folder"
    build "$work/$folder" "$work/$folder/out"
    pack "$work/$folder" "$work/$folder/out" "$work/$folder/dist"
    (cd "$work/$folder" && sha256sum "out/$target/release/lictor" "dist/$name.tar.gz")
    if grep --text --quiet --fixed-strings "$work" "$work/$folder/out/$target/release/lictor"; then fail "the binary names this machine's folders"; fi
  done
  cmp "$work/one/out/$target/release/lictor" "$work/another/place/out/$target/release/lictor" || fail "two builds of one commit differ"
  cmp "$work/one/dist/$name.tar.gz" "$work/another/place/dist/$name.tar.gz" || fail "two archives of one commit differ"
  echo "reproducible: $name at $commit"
else
  build "$root" "$root/target/dist/build"
  pack "$root" "$root/target/dist/build" "$root/target/dist"
  cat "target/dist/$name.tar.gz.sha256"
fi
