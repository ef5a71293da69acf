"""Configurations: the proxies, each doing the same work, and the backends behind them.

Each proxy balances round robin over three backends with kept connections, retries, ejects what fails, adds `x-request-id` and a
`traceparent`, counts, and writes no access log.
"""

import json
import os
import pwd

import gateway

ANSWERS = {"/100": b"a" * 100, "/10k": b"b" * 10_240, "/1m": b"c" * 1_048_576}
GRPC_PATH = "/bench.Echo/Get"
GRPC_MESSAGE = b"\0\0\0\0\x64" + b"d" * 100  # not compressed, length, message


class Shape:
    """What stands where: `down` is h1, h2c or tls; `up` is h1, h2c, grpc or tls; ports of the three backends; what it is asked as a gateway."""

    def __init__(self, down, up, workers, port, backends, consul, folder, is_gateway=False):
        self.down, self.up, self.workers, self.port, self.is_gateway = down, up, workers, port, is_gateway
        self.backends, self.consul, self.folder = backends, consul, folder

    def file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def pem(self, name):
        return os.path.join(self.folder, name)


def lictor(shape, binary, routes=1):
    tls = f"{{cert: {shape.pem('cert.pem')}, key: {shape.pem('key.pem')}}}"
    address = f"127.0.0.1:{shape.port}"
    listen = f"{{address: '{address}', tls: {tls}}}" if shape.down == "tls" else f"'{address}'"
    protocol = {"h1": "http1", "h2c": "h2c", "grpc": "grpc", "tls": "http1"}[shape.up]
    up_tls = f", tls: {{ca: {shape.pem('ca.pem')}}}" if shape.up == "tls" else ""
    own_listen, at_gateway = (f"listen: {listen}, ", "") if not shape.is_gateway else ("", gateway.lictor(address, shape.up, routes))
    return [binary, "serve", "-c", shape.file("lictor.yaml", f"""\
registration: off
service: bench
consul: {{address: '{shape.consul}'}}
log: {{access: off}}
admin: {{listen: 127.0.0.1:0}}
workers: {shape.workers}
upstreams:
  {shape.up}: {{{own_listen}protocol: {protocol}, balance: round_robin{up_tls}}}
{at_gateway}""")]


def many(shape, binary):
    """The gateway with 10,000 routes."""
    return lictor(shape, binary, gateway.ROUTES)


def sidecar(shape, binary):
    """The same request through a sidecar's upstream, where nobody is asked anything."""
    return lictor(Shape(shape.down, shape.up, shape.workers, shape.port, shape.backends, shape.consul, shape.folder), binary)


def haproxy(shape, binary):
    bind = {"h1": "", "h2c": "proto h2", "tls": f"ssl crt {shape.pem('both.pem')} alpn http/1.1"}[shape.down]
    proto = {"tls": f"ssl verify required ca-file {shape.pem('ca.pem')}", "h1": ""}.get(shape.up, "proto h2")
    servers = "\n".join(f"  server s{port} 127.0.0.1:{port} {proto}" for port in shape.backends)
    return [binary, "-db", "-f", shape.file("haproxy.cfg", f"""\
global
  nbthread {shape.workers}
  maxconn 4000
defaults
  mode http
  timeout connect 1s
  timeout client 1h
  timeout server 30s
  timeout http-keep-alive 1h
  retries 3
  retry-on conn-failure empty-response 500 502 503 504
  option redispatch
listen bench
  bind 127.0.0.1:{shape.port} {bind}
  balance roundrobin
  http-reuse always
  http-request disable-l7-retry if METH_POST
  http-request set-header x-request-id %[uuid]
  http-request set-header traceparent 00-%[uuid]-%[rand]-01
  default-server check inter 2s observe layer7 error-limit 5 on-error mark-down
{servers}
""")]


def relay(shape, binary):
    """haproxy as it carries bytes: it understands, changes, counts and repeats nothing."""
    servers = "\n".join(f"  server s{port} 127.0.0.1:{port}" for port in shape.backends)
    return [binary, "-db", "-f", shape.file("relay.cfg", f"""\
global
  nbthread {shape.workers}
  maxconn 4000
listen bench
  mode tcp
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  bind 127.0.0.1:{shape.port}
  balance roundrobin
{servers}
""")]


def nginx(shape, binary):
    listen = {"h1": "", "h2c": "http2", "tls": "ssl"}[shape.down]
    tls = f"ssl_certificate {shape.pem('cert.pem')}; ssl_certificate_key {shape.pem('key.pem')};" if listen == "ssl" else ""
    kind = "grpc" if shape.up == "grpc" else "proxy"
    scheme = {"grpc": "grpc", "tls": "https"}.get(shape.up, "http")
    up_tls = f"proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_trusted_certificate {shape.pem('ca.pem')};" if shape.up == "tls" else ""
    servers = " ".join(f"server 127.0.0.1:{port} max_fails=5;" for port in shape.backends)
    h1 = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0;' if kind == "proxy" else ""
    return nginx_command(shape, binary, "nginx-proxy", shape.workers, f"""\
  upstream bench {{ {servers} keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h; }}
  server {{
    listen 127.0.0.1:{shape.port} reuseport {listen};
    {tls}
    location / {{
      {kind}_pass {scheme}://bench;
      {h1}
      {up_tls}
      {kind}_next_upstream error timeout http_500 http_502 http_503 http_504;
      {kind}_next_upstream_tries 3;
      {kind}_set_header x-request-id $request_id;
      {kind}_set_header traceparent 00-$request_id-0123456789abcdef-01;
    }}
  }}
""")


def envoy(shape, binary):
    upgrade = "type.googleapis.com/envoy.extensions"
    route = {
        "match": {"prefix": "/"},
        "route": {
            "cluster": "bench",
            "timeout": "30s",
            "retry_policy": {"retry_on": "5xx,reset,connect-failure,refused-stream", "num_retries": 2},
        },
        "request_headers_to_add": [{"header": {"key": "traceparent", "value": "00-%REQ(X-REQUEST-ID)%-01"}}],
    }
    filters = []
    if shape.is_gateway:
        filters, route["typed_per_filter_config"] = gateway.envoy(upgrade)
    manager = {
        "@type": f"{upgrade}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "AUTO",
        "stream_idle_timeout": "3600s",
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "bench"},  # openssl s_time speaks it
        "route_config": {"virtual_hosts": [{"name": "bench", "domains": ["*"], "routes": [route]}]},
        "http_filters": [*filters, {"name": "router", "typed_config": {"@type": f"{upgrade}.filters.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    if shape.down == "tls":
        pair = {"certificate_chain": {"filename": shape.pem("cert.pem")}, "private_key": {"filename": shape.pem("key.pem")}}
        chain["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": f"{upgrade}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [pair], "alpn_protocols": ["http/1.1"]},
        }}
    explicit = {"http2_protocol_options": {}} if shape.up in ("h2c", "grpc") else {"http_protocol_options": {}}
    thresholds = {"max_connections": 1024, "max_requests": 1024, "retry_budget": {"budget_percent": {"value": 20}}}
    cluster = {
        "name": "bench",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [thresholds]},
        "outlier_detection": {"consecutive_5xx": 5},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{upgrade}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": explicit,
        }},
        "load_assignment": {"cluster_name": "bench", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": socket_address(port)}} for port in shape.backends]}
        ]},
    }
    if shape.up == "tls":
        cluster["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": f"{upgrade}.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"validation_context": {"trusted_ca": {"filename": shape.pem("ca.pem")}}},
        }}
    listener = {"name": "bench", "address": socket_address(shape.port), "filter_chains": [chain]}
    config = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    path = shape.file("envoy.json", json.dumps(config, indent=1))
    return [binary, "-c", path, "--concurrency", str(shape.workers), "--disable-hot-restart", "--log-level", "error"]


def socket_address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def backend(shape, binary):
    """An nginx that answers on one port: small answers from the configuration, large ones from files in the page cache."""
    speaks = {"h1": "", "tls": "ssl"}.get(shape.up, "http2")
    tls = f"ssl_certificate {shape.pem('cert.pem')}; ssl_certificate_key {shape.pem('key.pem')};" if shape.up == "tls" else ""
    for path, answer in ANSWERS.items():
        shape.file(path[1:], answer.decode())
    return nginx_command(shape, binary, f"backend-{shape.port}", 1, f"""\
  open_file_cache max=10 inactive=1h;
  server {{
    listen 127.0.0.1:{shape.port} {speaks};
    {tls}
    root {shape.folder};
    default_type text/plain;
    location = /100 {{ return 200 "{ANSWERS['/100'].decode()}"; }}
    location / {{ }}
    location = {GRPC_PATH} {{
      default_type application/grpc;
      add_trailer grpc-status 0;
      return 200 "{GRPC_MESSAGE.decode()}";
    }}
  }}
""")


def nginx_command(shape, binary, name, workers, http):
    user = f"user {pwd.getpwuid(0).pw_name};" if os.getuid() == 0 else ""
    path = shape.file(f"{name}.conf", f"""\
daemon off;
{user}
pid {shape.folder}/{name}.pid;
error_log {shape.folder}/{name}.log crit;
worker_processes {workers};
worker_rlimit_nofile 16384;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  client_body_temp_path {shape.folder}/{name}-body;
  proxy_temp_path {shape.folder}/{name}-proxy;
  fastcgi_temp_path {shape.folder}/{name}-fastcgi;
  uwsgi_temp_path {shape.folder}/{name}-uwsgi;
  scgi_temp_path {shape.folder}/{name}-scgi;
{http}}}
""")
    return [binary, "-p", shape.folder, "-c", path, "-e", os.path.join(shape.folder, f"{name}.log")]


# `before` is another lictor, of an earlier commit for one; `sidecar` and `many` stand beside the gateway alone.
PROXIES = {"lictor": lictor, "before": lictor, "haproxy": haproxy, "nginx": nginx, "envoy": envoy, "relay": relay, "sidecar": sidecar, "many": many}
