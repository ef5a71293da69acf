#!/usr/bin/env bash
# A service of the portal as one application, for `lictor run -- ./serve.sh NAME PORT`: PHP-FPM, and nginx in front of it on 127.0.0.1:PORT.
# DATA is the folder of its tables (default: ./data); stopping either stops both.
set -euo pipefail
cd "$(dirname "$0")"
export APP_NAME=$1 DATA=${DATA:-$PWD/data}
mkdir -p "$DATA/storage/logs"
run=$(mktemp -d "${TMPDIR:-/tmp}/portal.XXXXXX")
trap 'rm -rf "$run"' EXIT
if [ "$(id -u)" -eq 0 ]; then chown -R www-data "$DATA" "$run"; as=(runuser -u www-data --); fi
"${as[@]}" php migrate.php
sed "s|@RUN@|$run|; s|@WORKERS@|${WORKERS:-4}|" fpm.conf > "$run/fpm.conf"
sed "s|@RUN@|$run|; s|@PORT@|$2|; s|@HERE@|$PWD|" nginx.conf > "$run/nginx.conf"
"$(compgen -c php-fpm | head -n 1)" -F -R -O -y "$run/fpm.conf" & fpm=$!
nginx -e stderr -c "$run/nginx.conf" & nginx=$!
stop() { kill -QUIT "$fpm" "$nginx" 2>/dev/null || true; }
trap stop TERM INT
wait -n || true
stop
wait
