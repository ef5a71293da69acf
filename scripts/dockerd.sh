# Sourced by image.sh, stacks.sh, systemd.sh and packages.sh: a Docker of the script's own, which needs no registry and leaves nothing behind.
#
# Its state is a folder under /tmp, or STATE, which is kept for the next time. Images start from a Debian that
# debootstrap makes of this machine's own mirror, under the names that the Dockerfiles use.

fail() { echo "$0: $*" >&2; exit 1; }
step() { printf '\n== %s\n' "$*"; }
[ "$(id -u)" -eq 0 ] || fail "it starts a Docker daemon: run it as root"

need() { # program=package ..
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair%=*}" >/dev/null || [ -x "/usr/sbin/${pair%=*}" ] || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || fail "please install ${missing[*]} (there is no apt-get here)"
  echo "$0: installing ${missing[*]}" >&2
  apt-get -q update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}" >&2
}

await() { # what, seconds, command..
  local what=$1 ends=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $ends ] || fail "not in time: $what"
    sleep 0.1
  done
}

state=${STATE:-$(mktemp -d /tmp/lictor-docker.XXXXXX)}
mkdir -p "$state"
work=$(mktemp -d "$state/work.XXXXXX")
daemon=
# Debian's own client, whose BuildKit needs no plugin, before another one on PATH.
docker() { if [ -x /usr/bin/docker ]; then /usr/bin/docker "$@"; else command docker "$@"; fi; }
export DOCKER_HOST=unix://$state/docker.sock DOCKER_BUILDKIT=1

daemon() { # outside: images are built, with this machine's network; inside: containers run, in a network of their own
  stop_daemon
  local options=(--storage-driver="$(storage)" --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/pid" --host "$DOCKER_HOST")
  if [ "$1" = outside ]; then
    dockerd --iptables=false --bridge=none "${options[@]}" > "$state/log" 2>&1 &
  else
    unshare --net sh -c 'ip link set lo up && exec dockerd "$@"' dockerd "${options[@]}" > "$state/log" 2>&1 &
  fi
  daemon=$!
  await "dockerd ($state/log)" 30 docker info
}

# Layers are copied (vfs) where they cannot be laid over each other.
storage() {
  mkdir -p "$work"/overlay/{lower,upper,work,merged}
  if (cd "$work/overlay" && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && umount merged) 2>/dev/null; then
    echo overlay2
  else
    echo vfs
  fi
}

# A command in the network of the containers.
inside() { nsenter --target "$daemon" --net -- "$@"; }

stop_daemon() {
  [ -n "$daemon" ] || return 0
  docker ps -aq | xargs -r env DOCKER_HOST="$DOCKER_HOST" docker rm --force --volumes >/dev/null
  kill "$daemon" 2>/dev/null || true
  wait "$daemon" || true
  daemon=
}

finish() {
  local code=$?
  if [ $code -ne 0 ] && [ -n "$daemon" ]; then
    for id in $(docker ps -aq | head -n 8); do docker logs --tail 15 "$id" 2>&1 | cut -c1-300 | sed "s/^/$id: /" >&2; done
  fi
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  stop_daemon
  wait
  awk -v state="$state/" 'index($2, state) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount --lazy
  rm -rf "$work"
  [ -n "${STATE:-}" ] || rm -rf "$state"
}
pids=()
trap finish EXIT

# target/tools/bookworm.tar: a Debian with what the examples' applications are written in.
bookworm() {
  local tar=target/tools/bookworm.tar mirror
  [ ! -e "$tar" ] || return 0
  mkdir -p target/tools
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | sort | uniq -c | sort -rn | awk 'NR == 1 {print $2}')
  debootstrap --variant=minbase --include=ca-certificates,python3,nodejs,procps,systemd,dbus bookworm "$work/base" "$mirror" > "$work/debootstrap" \
    || { tail -n 5 "$work/debootstrap" >&2; fail "debootstrap"; }
  tar --create --one-file-system --directory="$work/base" . > "$tar.part"
  mv "$tar.part" "$tar"
  rm -rf "$work/base"
}

# It, by the names of the images that have that.
base() {
  local tar=target/tools/bookworm.tar
  bookworm
  docker image inspect debian:bookworm-slim >/dev/null 2>&1 || docker import "$tar" debian:bookworm-slim >/dev/null
  for name in python:3-slim node:18-alpine; do docker tag debian:bookworm-slim "$name"; done
}

# lictor and the shop, static, in target/static.
static() {
  local target
  target=$(uname -m)-unknown-linux-musl
  rustc --print target-libdir --target "$target" | xargs test -e || rustup target add "$target"
  install -D "$(TARGET=$target scripts/build.sh)" target/static/lictor
  cargo build --quiet --release --locked --package shop --target "$target"
  install -D "${CARGO_TARGET_DIR:-target}/$target/release/shop" target/static/shop
}
