#!/usr/bin/env bash
# The systems of examples/ for real, with their tests: tests/examples. Installs what they need and this machine lacks.
# ONLY=portal picks a system, or tests by a word of their names; KEEP=1 ONLY=portal starts that system on its usual ports and stops it on Ctrl-C.
# LICTOR_BIN=FILE takes that binary instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
have() { command -v "$1" >/dev/null 2>&1; }
need() { [[ " ${missing[*]} " == *" $1 "* ]] || missing+=("$1"); }
command_of() { have "$1" || need "$2"; }
extension() { php -r "exit(extension_loaded('$1') ? 0 : 1);" 2>/dev/null || need "$2"; }
library() { [ -e "/usr/share/$1" ] || need "$2"; }
only=${ONLY:-} only=${only//_/-} # laravel-go is test_laravel_go.py
wants() { # a system; a word that names none may be of each
  case "$only" in *portal* | *hybrid* | *laravel-go* | *node* | gin | *-gin*) [[ $only == *"$1"* ]] ;; esac
}
command_of python3 python3
if wants portal || wants hybrid; then
  command_of php php-cli
  [ -n "$(compgen -c php-fpm)" ] || need php-fpm
  extension mbstring php-mbstring
  extension curl php-curl
  extension redis php-redis
  command_of nginx nginx-light
fi
if wants portal; then
  extension pdo_sqlite php-sqlite3
  library php/Laravel/Lumen/autoload.php php-laravel-lumen-framework
  library php/GuzzleHttp/autoload.php php-guzzlehttp-guzzle
fi
if wants hybrid; then
  extension pdo_mysql php-mysql
  library php/Google/Protobuf/Internal/Message.php php-google-protobuf
  command_of mariadb-install-db mariadb-server
  command_of prometheus prometheus
  command_of openssl openssl
fi
if wants hybrid || wants laravel-go || wants gin; then
  command_of go golang-go
  command_of protoc protobuf-compiler
  command_of protoc-gen-go protoc-gen-go-1-5
  command_of protoc-gen-go-grpc protoc-gen-go-grpc
  library gocode/src/google.golang.org/grpc golang-google-grpc-dev
  library gocode/src/google.golang.org/protobuf golang-google-protobuf-dev
  library gocode/src/github.com/golang/protobuf/proto/buffer.go golang-github-golang-protobuf-1-5-dev # gRPC's package takes 1.3 too, which cannot read what protoc-gen-go writes
  library gocode/src/github.com/lib/pq golang-github-lib-pq-dev
  command_of curl curl
  [ -n "$(compgen -G '/usr/lib/postgresql/*/bin/postgres')" ] || command_of postgres postgresql
fi
if wants gin; then
  library gocode/src/github.com/gin-gonic/gin golang-github-gin-gonic-gin-dev
  library gocode/src/github.com/golang-jwt/jwt golang-github-golang-jwt-jwt-dev
  library gocode/src/github.com/gomodule/redigo golang-github-gomodule-redigo-dev
  library gocode/src/github.com/rabbitmq/amqp091-go golang-github-rabbitmq-amqp091-go-dev
  library gocode/src/golang.org/x/crypto golang-golang-x-crypto-dev
  library gocode/src/golang.org/x/net golang-golang-x-net-dev
  [ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || need rabbitmq-server
fi
wants node && command_of npm npm # it brings Node
if wants portal || wants hybrid || wants gin || wants node; then command_of redis-server redis-server; fi
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
for system in hybrid laravel-go gin; do
  if wants "$system"; then "examples/$system/build.sh" >&2; fi
done
scripts/consul.sh >/dev/null
if [ -z "${LICTOR_BIN:-}" ]; then
  cargo build -q -p lictor
  LICTOR_BIN=${CARGO_TARGET_DIR:-target}/debug/lictor
fi
LICTOR_BIN=$(realpath "$LICTOR_BIN")
export LICTOR_BIN
exec python3 -B tests/examples/stack.py ${KEEP:+--keep} ${ONLY:+"$ONLY"}
