#!/usr/bin/env bash
# Starts every stack of examples/compose for real, on a Docker with a network of its own, and asks it what its README says.
# Needs the image (scripts/image.sh makes it, in the same STATE). Python, Node and Consul are Debian's, under the names of
# the images that the stacks name.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/dockerd.sh
need dockerd=docker.io debootstrap=debootstrap ip=iproute2 iptables=iptables nsenter=util-linux curl=curl docker-compose=docker-compose
consul=$(scripts/consul.sh)

step "images"
static
daemon outside
base
docker build --quiet --network host -f deploy/docker/Dockerfile --build-arg BINARY=prebuilt -t lictor . >/dev/null
mkdir "$work/consul"
cp "$consul" "$work/consul/consul"
printf 'FROM debian:bookworm-slim\nCOPY consul /bin/consul\nENTRYPOINT ["consul"]\n' > "$work/consul/Dockerfile"
docker build --quiet -t hashicorp/consul:1.20 "$work/consul" >/dev/null
daemon inside

compose() { PATH=/usr/bin:$PATH COMPOSE_DOCKER_CLI_BUILD=1 docker-compose --project-name stack --file "$file" "$@"; }
says() { inside curl -sf --max-time 5 "http://127.0.0.1:$1" > "$work/answer" && [ "$(grep -cE "$2" "$work/answer")" -eq "$3" ]; }
probe() { # container
  docker exec "$1" /lictor wait --for ready --timeout 20s && docker exec "$1" /lictor health
}

stack() { # file, container with lictor, then URL, lines that the answer must have, and how many
  file=examples/compose/$1
  step "$1"
  compose config --quiet
  compose up --detach --build > "$work/up" 2>&1 || { tail -n 20 "$work/up" >&2; fail "$1 does not come up"; }
  probe "$2"
  local container=$2; shift 2
  while [ $# -gt 0 ]; do
    await "$1 answers $2, $3 times" 60 says "$1" "$2" "$3"
    cat "$work/answer"
    shift 3
  done
  began=$SECONDS
  docker stop "$container" >/dev/null
  echo "$container stopped after $((SECONDS - began)) s with exit code $(docker wait "$container")"
  compose kill > /dev/null 2>&1
  compose down --volumes --remove-orphans > "$work/down" 2>&1 || { tail -n 5 "$work/down" >&2; fail "$file does not go down"; }
}

stack one-container.yaml stack_order-service_1 8082/api/users/1 'from user-service' 1
stack shared-network.yaml stack_order-lictor_1 8082/api/users/1 'from user-service' 1
stack php-portal.yaml stack_gateway-lictor_1 8080/api/users/1 'from user-service' 1 8080/api/products/1 'from product-service' 1
stack gin.yaml stack_gateway-lictor_1 8080/api/users/1 'from user-service' 1 8080/api/orders/1 'from (order|user|product)-service' 3
stack node.yaml stack_api-gateway_1 3000/api/products/1 'from product-service' 1 3000/api/orders/1 'from (order|user|product)-service' 3
