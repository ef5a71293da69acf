#!/usr/bin/env bash
# The packages that scripts/release.sh makes, of a debug build: two runs give the same bytes, lintian and rpmlint have nothing to say but
# what is allowed below, and in a Debian of its own both are installed, run, installed again over a changed configuration, removed
# and purged. LICTOR_BIN takes another binary. Root, on a bare Debian with cargo; see dockerd.sh, of which no Docker is used.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/dockerd.sh
need debootstrap=debootstrap lintian=lintian rpm=rpm rpmlint=rpmlint objdump=binutils python3=python3

step "two runs give the same bytes"
if [ -z "${LICTOR_BIN:-}" ]; then
  cargo build --quiet --locked -p lictor
  LICTOR_BIN=$work/lictor
  strip --output-file="$LICTOR_BIN" "${CARGO_TARGET_DIR:-target}/debug/lictor"
fi
export LICTOR_BIN
for run in one two; do DIST=$work/$run scripts/release.sh > "$work/$run.said" 2>&1 || { cat "$work/$run.said" >&2; fail "release.sh"; }; done
sums=$(basename "$work"/one/*.sha256)
cmp "$work/one/$sums" "$work/two/$sums" || fail "two runs differ"
(cd "$work/one" && sha256sum --check "$sums")
[ "$(wc -l < "$work/one/$sums")" = "$(find "$work/one" -maxdepth 1 -type f ! -name '*.sha256' | wc -l)" ] || fail "$sums leaves something out"
deb=$(echo "$work"/one/*.deb) rpm=$(echo "$work"/one/*.rpm)

step "lintian and rpmlint"
lintian --allow-root --fail-on error,warning "$deb"
# A release is signed elsewhere; units are no binaries; SPDX's names are younger than this rpmlint; `rm` is for Debian's purge alone.
cat > "$work/rpmlint.toml" <<'TOML'
Filters = ["no-signature", "only-non-binary-in-usr-lib", "invalid-license Apache-2.0", "dangerous-command-in-%postun rm", "manpage-not-compressed bz2"]
TOML
rpmlint --strict --config "$work/rpmlint.toml" "$rpm" 2>/dev/null | tee "$work/rpmlint" || fail "rpmlint"
rpm --query --package --configfiles "$rpm" | grep -qx /etc/lictor/example.yaml || fail "the .rpm would replace a changed configuration"

step "in a Debian: installed, run, again over a changed configuration"
bookworm
mkdir "$work/machine"
tar --extract --file=target/tools/bookworm.tar --directory="$work/machine"
cp "$deb" "$work/machine/lictor.deb"
on() { chroot "$work/machine" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }
works() {
  on lictor --version
  on lictor check -c /etc/lictor/example.yaml
  on systemd-analyze verify --man=no lictor@example.service 2>&1 | tee "$work/units"
  [ ! -s "$work/units" ] || fail "systemd has something to say"
}
changed() { grep -qx '# changed here' "$work/machine/etc/lictor/$1"; }
gone() { # what an administrator has not written
  on find /usr/bin/lictor /usr/lib/systemd/system /usr/share -name '*lictor*' ! -path '/usr/share/doc/lictor' 2>/dev/null | tee "$work/left"
  [ ! -s "$work/left" ] || fail "it leaves something behind"
}
on dpkg --install /lictor.deb
works
on dpkg --verify lictor
echo '# changed here' >> "$work/machine/etc/lictor/example.yaml"
on dpkg --install /lictor.deb
changed example.yaml || fail "the .deb replaces a changed configuration"

step "removed and purged"
mkdir -p "$work/machine/var/lib/private/lictor/orders"
on dpkg --remove lictor
gone
changed example.yaml && [ -e "$work/machine/var/lib/private/lictor" ] || fail "a removed package takes what is the administrator's"
on dpkg --purge lictor
[ ! -e "$work/machine/etc/lictor" ] && [ ! -e "$work/machine/var/lib/private/lictor" ] || fail "a purged package leaves something behind"

step "the same of the .rpm"
# Its libraries are Debian's, of which rpm knows nothing.
at() { rpm --root "$work/machine" --dbpath /var/lib/rpm "$@"; }
at --initdb
at --install --nodeps "$rpm"
works
at --verify --nodeps lictor
echo '# changed here' >> "$work/machine/etc/lictor/example.yaml"
at --upgrade --replacepkgs --nodeps "$rpm"
changed example.yaml || fail "the .rpm replaces a changed configuration"
at --erase lictor
gone
changed example.yaml.rpmsave || fail "the .rpm takes a changed configuration with it"
ls -l "$deb" "$rpm" | awk '{print $5, $9}' | sed "s|$work/one/||"
