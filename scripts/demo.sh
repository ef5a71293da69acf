#!/usr/bin/env bash
# The shop on a real Consul: builds, then runs `shop demo`. KEEP=1 stays up and prints the URLs; PROFILE=dev builds faster, and runs slower.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${PROFILE:-release}
cargo build --profile "$profile" -p lictor -p shop
[ "$profile" != dev ] || profile=debug # the folder of its own name
built=${CARGO_TARGET_DIR:-target}/$profile
exec "$built/shop" demo --lictor "$built/lictor"
