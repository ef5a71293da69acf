#!/usr/bin/env bash
# The packages that scripts/release.sh makes, of a debug build: two runs give the same bytes, lintian and rpmlint have nothing to say but
# what is allowed below, and in a Debian of its own both are installed, run, installed again over a changed configuration, removed
# and purged. The first lines of README.md are typed there too. LICTOR_BIN takes another binary. Root, on a bare Debian with cargo; see dockerd.sh, of which no Docker is used.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/dockerd.sh
need debootstrap=debootstrap unshare=util-linux ip=iproute2 curl=curl lintian=lintian rpm=rpm rpmlint=rpmlint ruby=ruby objdump=binutils python3=python3

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

step "the chart is the folder's, and the formula installs what is in the archive"
mkdir "$work/chart"
tar --extract --file "$(echo "$work"/one/*.tgz)" --directory "$work/chart"
diff -r "$work/chart/lictor" deploy/helm/lictor
ruby scripts/formula.rb "$work/one" "$work/brewed"
[ "$(find "$work/brewed" -type f | wc -l)" = 5 ] || fail "the formula installs something else"

step "lintian and rpmlint"
# Debian's own tracker has no bug that asks for it.
lintian --allow-root --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$deb"
# A release is signed elsewhere; units are no binaries; SPDX's names are younger than this rpmlint; `rm` is for Debian's purge alone.
cat > "$work/rpmlint.toml" <<'TOML'
Filters = ["no-signature", "only-non-binary-in-usr-lib", "invalid-license Apache-2.0", "dangerous-command-in-%postun rm", "manpage-not-compressed bz2"]
TOML
rpmlint --strict --config "$work/rpmlint.toml" "$rpm" 2>/dev/null | tee "$work/rpmlint" || fail "rpmlint"
rpm --query --package --configfiles "$rpm" | grep -qx /etc/lictor/example.yaml || fail "the .rpm would replace a changed configuration"

step "in a Debian: installed and run"
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
  on find /usr/bin/lictor /usr/lib/systemd/system /usr/share -name '*lictor*' ! -path '/usr/share/doc/lictor' > "$work/left" 2>/dev/null || true
  [ ! -s "$work/left" ] || fail "it leaves behind: $(cat "$work/left")"
}
on dpkg --install /lictor.deb
works
on dpkg --verify lictor

step "the first lines of README.md"
# The package is installed in the Debian; the others are typed in a network of their own, where ports are free.
sed -n '/^```sh$/,/^```$/{//!p; /^```$/q}' README.md > "$work/lines"
[ "$(wc -l < "$work/lines")" = 4 ] || fail "README.md has $(wc -l < "$work/lines") first lines"
cp "$deb" "$work/machine/root/"
on sh -c "cd /root && sudo() { \"\$@\"; } && $(head -n 1 "$work/lines")"
cat > "$work/typed" <<SH
set -e
ip link set lo up
export PATH=$work/machine/usr/bin.lictor:$(dirname "$(realpath "$(scripts/consul.sh)")"):\$PATH
mkdir $work/hello && cd $work/hello && echo hello > index.html
$(sed -n 2,4p "$work/lines")
kill %2 && wait %2 || [ \$? = 143 ]
kill %1 && wait %1 || true
SH
mkdir "$work/machine/usr/bin.lictor" && ln "$work/machine/usr/bin/lictor" "$work/machine/usr/bin.lictor/"
timeout 300 unshare --net bash "$work/typed" > "$work/typed.said" 2>&1 || { tail -n 20 "$work/typed.said" | cut -c1-300 >&2; fail "README.md's first lines"; }
grep -ax hello "$work/typed.said" || fail "curl has no answer"
rm -r "$work/machine/usr/bin.lictor"

step "installed again over a changed configuration"
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
