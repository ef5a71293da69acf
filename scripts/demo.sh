#!/usr/bin/env bash
# The shop on a real Consul: builds, then runs `shop demo`. KEEP=1 stays up and prints the URLs.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p lictor -p shop
exec "${CARGO_TARGET_DIR:-target}/release/shop" demo --lictor "${CARGO_TARGET_DIR:-target}/release/lictor"
