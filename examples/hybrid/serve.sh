#!/usr/bin/env bash
# A service in PHP as one application, for `lictor run -- ./serve.sh NAME PORT`: PHP-FPM, and nginx in front of it, which speaks gRPC on 127.0.0.1:PORT,
# and what follows its configuration, if it has one. It runs as whoever starts it; when one of them stops, so do the others.
set -euo pipefail
cd "$(dirname "$0")"
export APP_NAME=$1
export RUN=${DATA:-$PWD/data}/run/$2
run=$RUN
mkdir -p "$run"
rm -f "$run/fpm.sock" "$run/steps.sock"
php migrate.php
for file in fpm.conf nginx.conf; do
  sed "s|@RUN@|$run|; s|@USER@|$(id -un)|; s|@PORT@|$2|; s|@HERE@|$PWD|; s|@WORKERS@|${WORKERS:-4}|" "$file" > "$run/$file"
done
"$(compgen -c php-fpm | head -n 1)" -F -R -O -y "$run/fpm.conf" & fpm=$!
until [ -S "$run/fpm.sock" ] && [ -S "$run/steps.sock" ]; do kill -0 "$fpm" && sleep 0.05; done
nginx -e stderr -c "$run/nginx.conf" & nginx=$!
[ -z "${LICTOR_TOKEN:-}" ] || { php watch.php & watch=$!; }
stop() { kill ${watch:+"$watch"} 2>/dev/null || true; kill -QUIT "$fpm" "$nginx" 2>/dev/null || true; }
trap stop TERM INT
wait -n || true
stop
wait
