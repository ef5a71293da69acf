#!/usr/bin/env bash
# Builds the image and the shop's order-service on it, and runs that as an orchestrator would: as nobody, without
# capabilities, on a read-only root, beside a real Consul. Its probes, its end and its exit codes are looked at. Prints the
# image's figures. Root, on a bare Debian with cargo; see dockerd.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/dockerd.sh
need dockerd=docker.io debootstrap=debootstrap ip=iproute2 iptables=iptables nsenter=util-linux musl-gcc=musl-tools curl=curl python3=python3 jq=jq
consul=$(scripts/consul.sh)

step "the images"
static
daemon outside
base
docker build --quiet --network host -f deploy/docker/Dockerfile --build-arg BINARY=prebuilt -t lictor . >/dev/null
docker build --quiet -f examples/shop/Dockerfile -t order-service . >/dev/null
size=$(docker image inspect --format '{{.Size}}' lictor)
echo "lictor: $((size / 1000)) kB; order-service: $(($(docker image inspect --format '{{.Size}}' order-service) / 1000)) kB"
[ "$size" -le 25000000 ] || fail "the image has more than 25 MB"
docker image inspect --format '{{.Config.User}} {{.Config.Healthcheck.Test}}' lictor | grep -qx '65532:65532 \[CMD /lictor health\]' \
  || fail "the image has another user, or no health check"

daemon inside
# A service of the shop, by name; the others are what it calls.
start() { # container, service, its port, admin's port, upstreams, -- docker's options
  local name=$1 service=$2 port=$3 admin=$4 upstreams=$5; shift 6
  docker run --detach --name "$name" --network host --read-only --user 65532 --cap-drop ALL --security-opt no-new-privileges \
    --health-interval 1s --stop-timeout 50 -e TERMINATION_GRACE=50 -e CONSUL_HTTP_ADDR=http://127.0.0.1:8500 -e LICTOR_ADMIN="127.0.0.1:$admin" \
    -e SERVICE_NAME="$service-service" -e SERVICE_PORT="$port" -e SERVICE_HOST=127.0.0.1 -e LICTOR_REGISTRATION_ID="$name" \
    -e LICTOR_UPSTREAMS="$upstreams" "$@" order-service /shop "$service" --port "$port" >/dev/null
}
code() { inside curl -s -o /dev/null -w '%{http_code}' --max-time 5 "http://127.0.0.1:$1" || true; }
is() { [ "$("${@:2}")" = "$1" ]; } # what it says, command..
health() { docker inspect --format '{{.State.Health.Status}}' "$1"; }
exit_code() { docker wait "$1"; }

step "before Consul is there: alive, not ready, and the application is not started"
start order-1 order 8082 9902 user-service:3001,product-service:3002 --
await "the admin listener" 10 is 200 code 9902/live
is 503 code 9902/startup || fail "/startup is $(code 9902/startup) before egress is up"
is 503 code 9902/ready || fail "/ready is $(code 9902/ready) before egress is up"
is 000 code 8082/health || fail "the application runs before egress is up"
is starting health order-1 || fail "the container is $(health order-1)"

step "with Consul, users and products: healthy, ready, and an order is answered"
nsenter --target "$daemon" --net -- "$consul" agent -dev > "$work/consul" 2>&1 &
pids+=($!)
start user-1 user 8001 9911 "" --
start product-1 product 8005 9915 "" --
await "HEALTHCHECK goes healthy" 40 is healthy health order-1
await "/ready" 10 is 200 code 9902/ready
await "an order" 20 is 200 code 8082/orders/7
await "Consul lists it as passing" 30 sh -c "nsenter --target $daemon --net -- curl -sf 'http://127.0.0.1:8500/v1/health/service/order-service?passing' | jq --exit-status 'length == 1'"
inside curl -s http://127.0.0.1:8082/orders/7; echo
docker exec order-1 /lictor wait --for ready --timeout 5s || fail "lictor wait"
docker exec order-1 /lictor doctor > "$work/doctor" || { cat "$work/doctor" >&2; fail "lictor doctor"; }

step "docker stop: it drains, and no request fails"
start order-2 order 8083 9903 user-service:3011,product-service:3012 --
# The caller has no second attempt: what the end of an instance breaks, is seen.
docker run --detach --name caller --network host --read-only -e CONSUL_HTTP_ADDR=http://127.0.0.1:8500 -e LICTOR_ADMIN=127.0.0.1:9904 \
  -e LICTOR_REGISTRATION=off lictor serve --set upstreams.order-service.listen=3021 --set upstreams.order-service.retry=off >/dev/null
await "both orders are listed" 30 sh -c "nsenter --target $daemon --net -- curl -sf http://127.0.0.1:9904/endpoints | jq --exit-status '.[\"order-service\"].endpoints | length == 2'"
cat > "$work/load.py" <<'PYTHON'
import os, sys, urllib.request

good, bad = 0, []
while not os.path.exists(sys.argv[1]) or good + len(bad) < 300:
    try:
        with urllib.request.urlopen("http://127.0.0.1:3021/orders/1", timeout=10) as answer:
            answer.read()
            good += 1
    except OSError as error:
        bad.append(str(error))
print(good, "answered,", len(bad), "failed", bad[:3])
PYTHON
nsenter --target "$daemon" --net -- python3 "$work/load.py" "$work/enough" > "$work/load" &
pids+=($!)
await "requests that reach order-1" 20 sh -c "docker logs order-1 2>&1 | grep -c '\"direction\":\"outbound\"' | xargs test 20 -le"
began=$SECONDS
docker stop order-1 >/dev/null
echo "stopped after $((SECONDS - began)) s with exit code $(exit_code order-1)"
is 0 exit_code order-1 || fail "docker stop ended it with $(exit_code order-1)"
# By way of a file: a reader that stops early ends the writer, and with it what is asked here.
docker logs order-1 > "$work/order-1" 2>&1
grep -q '"kind":"stopped"' "$work/order-1" || fail "it did not stop in order"
if grep -q "lictor may be killed" "$work/order-1"; then fail "TERMINATION_GRACE=50 is enough"; fi
touch "$work/enough"
wait "${pids[-1]}"
cat "$work/load"
grep -q " answered, 0 failed " "$work/load" || fail "requests failed"
grep -c '"direction":"outbound"' "$work/order-1" > "$work/served" || true
[ "$(cat "$work/served")" -ge 20 ] || fail "order-1 had only $(cat "$work/served") calls to make"

step "the application's exit code is the container's"
start usage nobody 8090 9990 "" -- # shop knows no such service
is 2 exit_code usage || fail "the application's exit code is 2, the container's $(exit_code usage)"
app=$(pgrep --parent "$(docker inspect --format '{{.State.Pid}}' order-2)")
kill -KILL "$app"
is 137 exit_code order-2 || fail "the application was killed, the container's exit code is $(exit_code order-2)"
docker run --name short --network none -e TERMINATION_GRACE=30 -e LICTOR_REGISTRATION=off order-service /shop nobody >/dev/null 2>&1 || true
docker logs short > "$work/short" 2>&1
grep -q "longer than TERMINATION_GRACE" "$work/short" || fail "no warning although 30 s are too short"

step "figures"
started() { docker inspect --format '{{.State.StartedAt}}' "$1" | xargs -I{} date --date={} +%s%N; }
docker rm --force product-1 >/dev/null
for round in 1 2 3 4 5; do
  docker run --detach --name "quick-$round" --network host --read-only -e CONSUL_HTTP_ADDR=http://127.0.0.1:8500 -e LICTOR_ADMIN=127.0.0.1:9905 \
    -e LICTOR_REGISTRATION=off lictor serve --set upstreams.user-service.listen=3031 >/dev/null
  until is 200 code 3031/users/1; do :; done
  echo "start to first answer: $((($(date +%s%N) - $(started "quick-$round")) / 1000000)) ms"
  [ "$round" = 5 ] || docker rm --force "quick-$round" >/dev/null
done
grep VmRSS "/proc/$(docker inspect --format '{{.State.Pid}}' quick-5)/status" | sed 's/VmRSS:/resident, idle:/'
