#!/usr/bin/env bash
# Prints the path of a consul binary. One on PATH wins; else Debian's package (bullseye is the last suite that has it)
# is downloaded from this machine's own mirror and unpacked under target/tools, without touching the machine's setup.
set -euo pipefail

if command -v consul; then exit 0; fi

root=$(cd "$(dirname "$0")/.." && pwd)
tools="$root/target/tools"
binary="$tools/consul/usr/bin/consul"
mkdir -p "$tools"
exec 9>"$tools/.consul.lock"
flock 9
if [ -x "$binary" ]; then echo "$binary"; exit 0; fi

fail() { echo "scripts/consul.sh: $*; install consul on PATH instead" >&2; exit 1; }
command -v apt-get >/dev/null || fail "no consul on PATH and no apt-get here"

# The mirror: where this machine's own Debian packages come from, security suites aside.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | sort | uniq -c | sort -rn | awk 'NR==1{print $2}')
[ -n "$mirror" ] || fail "apt has no package source"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/parts"
touch "$work/status"
signed=""
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -e "$keyring" ]; then signed="[signed-by=$keyring]"; fi
echo "deb $signed $mirror bullseye main" > "$work/sources.list"
apt=(apt-get -q -o "Dir::State=$work/state" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
  -o "Dir::Etc::sourcelist=$work/sources.list" -o "Dir::Etc::sourceparts=$work/parts" -o APT::Sandbox::User=root
  -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none)
echo "scripts/consul.sh: fetching Debian's consul package" >&2
"${apt[@]}" update >&2 || fail "the mirror has no bullseye suite"
(cd "$work" && "${apt[@]}" download consul >&2) || fail "the mirror has no consul package"
dpkg-deb -x "$work"/consul_*.deb "$work/unpacked"
rm -rf "$tools/consul"
mv "$work/unpacked" "$tools/consul"
[ -x "$binary" ] || fail "the package has no usr/bin/consul"
echo "$binary"
