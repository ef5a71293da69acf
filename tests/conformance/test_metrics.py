"""Metrics, as Prometheus' own parsers read them."""

import re
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

import kit

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def scrape(lictor, accept):
    """The content type and the text."""
    request = urllib.request.Request(f"http://{lictor.address('admin')}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_openmetrics_with_exemplars():
    """The same families in both forms; a sampled request is the example of its bucket, another is not."""
    with kit.Web() as web, kit.closed_port() as nobody:
        upstreams = {"users": {"listen": 0, "static": [web.address]}, "bad": {"listen": 0, "static": [nobody]},
                     'odd': {"listen": 0, "static": [web.address], "routes": [{"match": 'GET /a"b'}]}}
        with kit.Lictor(upstreams=upstreams, trace={"sample": "0%"}) as lictor:
            for name, path, parent in (("users", "/", TRACEPARENT), ("odd", '/a"b', ""), ("bad", "/", "")):
                kit.curl("-o", "/dev/null", "-H", f"traceparent: {parent}", f"http://{lictor.address(name)}{path}")
            kind, text = scrape(lictor, ACCEPT)
            assert kind.startswith("application/openmetrics-text; version=1.0.0"), kind
            families = {family.name: family for family in openmetrics(text)}
            plain_kind, plain_text = scrape(lictor, "text/plain")
            assert plain_kind.startswith("text/plain; version=0.0.4"), plain_kind
            names = {re.sub("_total$", "", family.name) for family in plain(plain_text)}
            assert set(families) == names, set(families) ^ names
            duration = families["lictor_upstream_request_duration_seconds"]
            examples = [(sample.labels["upstream"], sample.exemplar) for sample in duration.samples if sample.exemplar]
            [(upstream, example)] = examples
            assert upstream == "users" and example.labels["trace_id"] == TRACEPARENT.split("-")[1], examples
            count = next(s.value for s in duration.samples if s.name.endswith("_count") and s.labels["upstream"] == "users")
            assert count == 1 and 0 < example.value < 5, duration


@kit.limit(240)
def test_distinct_paths_end_at_the_ceiling_of_the_process():
    """100,000 gRPC methods, on four workers, are 200 labels and `other`."""
    uris = kit.folder("uris") / "uris"
    with kit.closed_port() as nobody:
        upstreams = {"calls": {"listen": 0, "protocol": "grpc", "static": [nobody], "retry": "off"}}
        with kit.Lictor(workers=4, upstreams=upstreams, log={"access": "off"}) as lictor:
            address = lictor.address("calls")
            uris.write_text("".join(f"http://{address}/shop.Users/M{number}\n" for number in range(100_000)))
            told = kit.run("h2load", "--h1", "-n", "100000", "-c", "16", "-t", "2", "-i", uris, "-H", "content-type: application/grpc",
                           "-H", "te: trailers", timeout=200)
            assert "100000 succeeded" in told, told
            _, text = scrape(lictor, "text/plain")
            samples = [s for family in plain(text) for s in family.samples if s.name == "grpc_requests_total"]
            assert sum(sample.value for sample in samples) == 100_000, samples[:3]
            assert len({sample.labels["method"] for sample in samples}) == 201, len(samples)
            other = sum(sample.value for sample in samples if sample.labels["method"] == "other")
            overflow = lictor.metric("lictor_label_overflow_total")
            assert other == overflow >= 100_000 - 200 * 16, (other, overflow)
            assert len(text) < 2 << 20, len(text)
