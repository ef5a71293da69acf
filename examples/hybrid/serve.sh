#!/usr/bin/env bash
# A service in PHP as one application, for `lictor run -- ./serve.sh NAME PORT`: PHP-FPM, and nginx in front of it, which speaks gRPC on 127.0.0.1:PORT,
# what follows its configuration, and for orders what undoes those that are left. It runs as whoever starts it; when one of them stops, so do the others.
set -euo pipefail
cd "$(dirname "$0")"
export APP_NAME=$1
export RUN=${DATA:-$PWD/data}/run/$2
run=$RUN
mkdir -p "$run"
rm -f "$run/fpm.sock"
php migrate.php
for file in fpm.conf nginx.conf; do
  sed "s|@RUN@|$run|; s|@USER@|$(id -un)|; s|@PORT@|$2|; s|@HERE@|$PWD|; s|@WORKERS@|${WORKERS:-4}|" "$file" > "$run/$file"
done
"$(compgen -c php-fpm | head -n 1)" -F -R -O -y "$run/fpm.conf" & fpm=$!
until [ -S "$run/fpm.sock" ]; do kill -0 "$fpm" && sleep 0.05; done
nginx -e stderr -c "$run/nginx.conf" & nginx=$!
others=()
[ -z "${LICTOR_TOKEN:-}" ] || { php watch.php & others+=("$!"); }
[ "$1" != order-service ] || { php recover.php & others+=("$!"); }
stop() { kill "${others[@]}" 2>/dev/null || true; kill -QUIT "$fpm" "$nginx" 2>/dev/null || true; }
trap stop TERM INT
wait -n || true
stop
wait
