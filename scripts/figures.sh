#!/usr/bin/env bash
# Sizes and times of the release build, on a real Consul: what the README and the issues ask for in numbers.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p shop
lictor=$(scripts/build.sh)
target=${CARGO_TARGET_DIR:-target}
echo "release binary: $(stat -c %s "$lictor") bytes"
for crate in hyper rustls openssl-sys native-tls reqwest; do
  count=$(cargo tree -e normal -p lictor --prefix none --format '{p}' | awk '{print $1, $2}' | sort -u | grep -c "^$crate " || true)
  echo "cargo tree: $count x $crate"
done
exec "$target/release/shop" figures --lictor "$lictor"
