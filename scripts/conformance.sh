#!/usr/bin/env bash
# Foreign clients and servers through the real lictor: tests/conformance. Installs what it needs and this machine lacks.
# LICTOR_BIN=FILE tests that binary instead of building one; LONG=1 adds the long tests; ONLY=WORD runs those whose
# name has the word.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
have() { command -v "$1" >/dev/null 2>&1; }
have redis-server || missing+=(redis-server)
have initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
have h2load || missing+=(nghttp2-client)
have nghttpd || missing+=(nghttp2-server)
have curl || missing+=(curl)
have node || missing+=(nodejs)
have npm || missing+=(npm)
have chromium || have google-chrome || missing+=(chromium fonts-dejavu-core)
have openssl || missing+=(openssl)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  fail() { echo "scripts/conformance.sh: please install ${missing[*]} $*" >&2; exit 1; }
  have apt-get || fail "(there is no apt-get here)"
  run=()
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || fail "as root"
    run=(sudo)
  fi
  echo "scripts/conformance.sh: installing ${missing[*]}" >&2
  "${run[@]}" apt-get -q update >&2
  "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}" >&2
fi

pinned=tests/conformance/requirements.txt
venv=$PWD/target/tools/venv
if ! cmp -s "$pinned" "$venv/requirements.txt"; then
  echo "scripts/conformance.sh: making $venv" >&2
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$pinned" >&2
  cp "$pinned" "$venv/requirements.txt"
fi

# The public cache tests: data and a small program, without what their package would bring besides.
tests=http-cache-tests-0.4.5
sum=0e3bb037d9d46572d35bec1abf52d1112099355c65f12b21c0ecb8cf5a71b966d6b79fdacbab0cf5043595e6c16833ba3f520c0682ba99d7fe3ee54ffd034bf0
suite=$PWD/target/tools/cache-tests
if [ ! -d "$suite/$tests" ]; then
  echo "scripts/conformance.sh: fetching $tests" >&2
  rm -rf "$suite" && mkdir -p "$suite/new"
  npm pack --silent --pack-destination "$suite" "http-cache-tests@${tests##*-}" >/dev/null
  echo "$sum  $suite/$tests.tgz" | sha512sum --check --quiet >&2
  tar -xzf "$suite/$tests.tgz" -C "$suite/new"
  mv "$suite/new/package" "$suite/$tests"
fi
export CACHE_TESTS=$suite/$tests

if [ -z "${LICTOR_BIN:-}" ]; then
  cargo build -q -p lictor
  LICTOR_BIN=${CARGO_TARGET_DIR:-target}/debug/lictor
fi
LICTOR_BIN=$(realpath "$LICTOR_BIN")
export LICTOR_BIN
exec "$venv/bin/python" -B tests/conformance/run.py ${LONG:+--long} ${ONLY:+"$ONLY"}
