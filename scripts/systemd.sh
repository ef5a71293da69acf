#!/usr/bin/env bash
# The units of deploy/systemd under a real systemd, which runs in a container: `systemctl start` waits for egress, reload
# and status tell what they should, a worker that hangs has the unit restarted, and a stop drains. Root; see dockerd.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/dockerd.sh
need dockerd=docker.io debootstrap=debootstrap ip=iproute2 iptables=iptables nsenter=util-linux musl-gcc=musl-tools curl=curl python3=python3
consul=$(scripts/consul.sh)

step "a machine"
static
daemon outside
base
daemon inside
mkdir -p "$work"/{units,etc}
cp deploy/systemd/*.service "$work/units/"
cat > "$work/etc/orders.yaml" <<'YAML'
service: order-service
app: {port: 8082}
registration: {checks: [{ttl: 30s}]}
upstreams: {user-service: 3001}
YAML
printf '#!/bin/sh\necho "users at $USER_SERVICE_URL, systemd at ${NOTIFY_SOCKET-nowhere}"\nexec sleep infinity\n' > "$work/order-service"
chmod 755 "$work" "$work/order-service"
# systemd needs mounts and its own branch of the control groups, and nothing else of the machine below.
docker run --detach --name machine --network host --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
  --tmpfs /run --tmpfs /tmp:exec --volume /sys/fs/cgroup/systemd:/sys/fs/cgroup/systemd \
  --volume "$work/etc:/etc/lictor:ro" --volume "$PWD/target/static/lictor:/usr/local/bin/lictor:ro" --volume "$work/order-service:/usr/local/bin/order-service:ro" \
  --env container=docker --stop-signal SIGRTMIN+3 debian:bookworm-slim /lib/systemd/systemd >/dev/null
for unit in "$work"/units/*; do docker cp --quiet "$unit" machine:/etc/systemd/system/ 2>/dev/null || docker cp "$unit" machine:/etc/systemd/system/; done
ctl() { docker exec machine systemctl "$@"; }
journal() { docker exec machine journalctl --no-pager --output cat --unit "$1"; }
shows() { ctl show --value --property "$1" "${2:-lictor@orders}"; }
is() { [ "$("${@:2}")" = "$1" ]; } # what it says, command..
await "systemd" 30 sh -c "docker exec machine systemctl is-system-running --wait | grep -qE 'running|degraded'"
ctl daemon-reload

step "systemctl start returns when egress is up, and not before"
ctl start --no-block lictor@orders
await "it waits for Consul" 20 is "Waiting for the first endpoints" shows StatusText
is activating shows ActiveState || fail "it is $(shows ActiveState) before egress is up"
nsenter --target "$daemon" --net -- "$consul" agent -dev > "$work/consul" 2>&1 &
pids+=($!)
ctl start lictor@orders
is active shows ActiveState || fail "it is $(shows ActiveState)"
is "Egress is up" shows StatusText || fail "its status is $(shows StatusText)"
inside curl -sf http://127.0.0.1:9901/startup || fail "/startup"
echo
docker exec machine systemctl --no-pager --lines=0 status lictor@orders

step "a reload, and one that is refused"
ctl reload lictor@orders
await "the reload is over" 10 is active shows ActiveState
cp "$work/etc/orders.yaml" "$work/orders.yaml"
echo "nonsense: true" >> "$work/etc/orders.yaml"
ctl reload lictor@orders
await "it says so" 10 is "Egress is up; the last reload was refused, the log has the reason" shows StatusText
is active shows ActiveState || fail "it is $(shows ActiveState) after a refused reload"
shows StatusText
cat "$work/orders.yaml" > "$work/etc/orders.yaml"

step "a worker hangs: systemd restarts the unit within WatchdogSec"
lictor=$(pgrep --ns "$(docker inspect --format '{{.State.Pid}}' machine)" --nslist pid --exact lictor)
worker=$(grep --files-with-matches '^worker-0$' "/proc/$lictor/task"/*/comm | cut -d/ -f5)
# Only this thread stops: a tracer's attention is for one. Its end has to be waited for, as a parent would.
python3 - "$worker" <<'PYTHON' &
import ctypes, os, sys

PTRACE_ATTACH, WALL = 16, 0x40000000
worker = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(PTRACE_ATTACH, worker, None, None) == 0, os.strerror(ctypes.get_errno())
while os.WIFSTOPPED(os.waitpid(worker, WALL)[1]):
    pass
PYTHON
pids+=($!)
began=$SECONDS
inside curl -sf -o /dev/null http://127.0.0.1:9901/live || fail "the main thread answers: only the worker hangs"
await "the restart" 40 is 1 shows NRestarts
journal lictor@orders > "$work/journal"
grep -o "Watchdog timeout (limit [0-9a-z]*)" "$work/journal" || { tail -n 20 "$work/journal" | cut -c1-200 >&2; fail "something else had it restarted"; }
echo "restarted after $((SECONDS - began)) s"
await "it is up again" 30 is active shows ActiveState

step "systemctl stop drains"
ctl stop lictor@orders
is success shows Result || fail "it ended with $(shows Result)"
is 0 shows ExecMainStatus || fail "its exit code is $(shows ExecMainStatus)"

step "lictor with its application in one unit"
ctl start order-service
journal order-service | grep -x "users at http://127.0.0.1:3001, systemd at nowhere" || fail "the application's variables"
is "Egress is up" shows StatusText order-service
ctl stop order-service
journal order-service > "$work/journal"
grep -q '"kind":"stopped","code":143' "$work/journal" || fail "lictor does not end with the application's 143"
is inactive shows ActiveState order-service || fail "it is $(shows ActiveState order-service) after a stop"
