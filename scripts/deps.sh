#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: OpenSSL's headers (for consulrs, the tests' independent Consul
# client), and the foreign clients curl, Python and Node, a Redis, an ACME server (pebble); `scripts/deps.sh chaos` also what make chaos needs. Says nothing when there is
# nothing to do.
set -euo pipefail
missing=()
have() { command -v "$1" >/dev/null 2>&1; }
have pkg-config || missing+=(pkg-config)
pkg-config --exists openssl 2>/dev/null || missing+=(libssl-dev)
have curl || missing+=(curl)
have python3 || missing+=(python3)
have node || missing+=(nodejs)
have ps || missing+=(procps)
have redis-server || missing+=(redis-server)
have pebble || missing+=(pebble)
have make || missing+=(make)
if [ "${1:-}" = chaos ]; then
  have ip || missing+=(iproute2)
  have iptables || missing+=(iptables)
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
fi
[ ${#missing[@]} -eq 0 ] && exit 0
have apt-get || { echo "scripts/deps.sh: please install ${missing[*]} (there is no apt-get here)" >&2; exit 1; }
run=()
if [ "$(id -u)" -ne 0 ]; then
  have sudo || { echo "scripts/deps.sh: please install ${missing[*]} as root" >&2; exit 1; }
  run=(sudo)
fi
echo "scripts/deps.sh: installing ${missing[*]}" >&2
"${run[@]}" apt-get -q update >&2
"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install "${missing[@]}" >&2
