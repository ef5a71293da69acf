#!/usr/bin/env bash
# Makes build/ out of proto/: the messages for PHP and for Go, the descriptor set that the gateway reads, the product service, and a certificate for localhost.
set -euo pipefail
cd "$(dirname "$0")"
go=$PWD/build/go/src
mkdir -p build/php "$go"
shared=(proto/user.proto proto/order.proto proto/product.proto proto/payment.proto)
protoc -I proto --php_out=build/php "${shared[@]}" proto/health.proto
protoc -I proto --go_out="$go" --go-grpc_out="$go" proto/product.proto
protoc -I proto --include_imports --descriptor_set_out=build/shop.pb "${shared[@]}"
ln -sfn "$PWD/product-service" "$go/shop/product"
GO111MODULE=off GOPROXY=off GOPATH="$PWD/build/go:/usr/share/gocode" go build -o build/product-service shop/product
if [ ! -e build/gateway.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -keyout build/gateway.key -out build/gateway.crt \
    -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' 2>/dev/null
fi
