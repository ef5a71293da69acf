#!/usr/bin/env bash
# The systems of examples/ for real, with their tests: tests/examples. Installs what they need and this machine lacks.
# ONLY=portal picks a system, or tests by a word of their names; KEEP=1 ONLY=portal starts that system on its usual ports and stops it on Ctrl-C.
# LICTOR_BIN=FILE takes that binary instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
have() { command -v "$1" >/dev/null 2>&1; }
only=${ONLY:-} only=${only//_/-} # laravel-go is test_laravel_go.py
wants() { case "$only" in *portal* | *node* | *laravel-go*) [[ $only == *"$1"* ]] ;; esac; } # a system; a word that names none may be of each
have python3 || missing+=(python3)
if wants portal; then
  extension() { php -r "exit(extension_loaded('$1') ? 0 : 1);" 2>/dev/null; }
  have php || missing+=(php-cli)
  [ -n "$(compgen -c php-fpm)" ] || missing+=(php-fpm)
  extension pdo_sqlite || missing+=(php-sqlite3)
  extension mbstring || missing+=(php-mbstring)
  extension curl || missing+=(php-curl)
  extension redis || missing+=(php-redis)
  [ -e /usr/share/php/Laravel/Lumen/autoload.php ] || missing+=(php-laravel-lumen-framework)
  [ -e /usr/share/php/GuzzleHttp/autoload.php ] || missing+=(php-guzzlehttp-guzzle)
  have nginx || missing+=(nginx-light)
  have redis-server || missing+=(redis-server)
fi
if wants node; then
  have npm || missing+=(nodejs npm)
  have redis-server || wants portal || missing+=(redis-server)
fi
if wants laravel-go; then
  library() { [ -e "/usr/share/gocode/src/$1" ] || missing+=("$2"); }
  have go || missing+=(golang-go)
  have protoc || missing+=(protobuf-compiler)
  have protoc-gen-go || missing+=(protoc-gen-go-1-5)
  have protoc-gen-go-grpc || missing+=(protoc-gen-go-grpc)
  library google.golang.org/grpc golang-google-grpc-dev
  library google.golang.org/protobuf golang-google-protobuf-dev
  library github.com/golang/protobuf/proto/buffer.go golang-github-golang-protobuf-1-5-dev # gRPC's package takes 1.3 too, which cannot read what protoc-gen-go writes
  library github.com/lib/pq golang-github-lib-pq-dev
  have curl || missing+=(curl)
  [ -n "$(compgen -G '/usr/lib/postgresql/*/bin/postgres')" ] || have postgres || missing+=(postgresql)
fi
if [ ${#missing[@]} -gt 0 ]; then
  fail() { echo "scripts/examples.sh: please install ${missing[*]} $*" >&2; exit 1; }
  have apt-get || fail "(there is no apt-get here)"
  run=()
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || fail "as root"
    run=(sudo)
  fi
  echo "scripts/examples.sh: installing ${missing[*]}" >&2
  "${run[@]}" apt-get -q update >&2
  # RUNLEVEL: what is installed is not started.
  "${run[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}" >&2
fi
if wants node && [ examples/node/package-lock.json -nt examples/node/node_modules/.package-lock.json ]; then
  own=(); ! node -e 'require("node:sqlite")' 2>/dev/null || own=(--omit=dev) # else a Node that has it comes along
  npm ci --prefix examples/node --no-audit --no-fund "${own[@]}" >&2
fi
if wants laravel-go; then examples/laravel-go/build.sh; fi
scripts/consul.sh >/dev/null
if [ -z "${LICTOR_BIN:-}" ]; then
  cargo build -q -p lictor
  LICTOR_BIN=${CARGO_TARGET_DIR:-target}/debug/lictor
fi
LICTOR_BIN=$(realpath "$LICTOR_BIN")
export LICTOR_BIN
exec python3 -B tests/examples/stack.py ${KEEP:+--keep} ${ONLY:+"$ONLY"}
