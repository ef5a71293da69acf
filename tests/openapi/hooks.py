"""What schemathesis is told besides the document: which requests make sense together, that streams have no end, and that nothing passes
that is not described."""

import atexit
import itertools
import json
import os
import re

import jsonschema_rs
import requests
import schemathesis
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

# Ends the process; tests/blocks/openapi.rs gives that order.
LEFT_OUT = ["/quit"]
# One of each that are there; every other request is about these.
THERE = {"upstream": "users", "service": "users", "id": "users-0", "key": "database", "name": "lock", "saga": "order-17"}
DURATION = re.compile(r"^(0|( *[0-9]+ *[A-Za-z]+ *)+)$")
# Within their bounds, which no pattern can say.
WITHIN = {"ttl": "10s", "wait": "0s", "delay": "5s", "for": "1s", "since": "10m"}
# So long a stream is looked at.
LOOKED = 0.1

document = {}
counted = {"operations": 0, "requests": 0, "events": 0}
turns = itertools.count()


@schemathesis.hook
def before_load_schema(context, raw_schema):
    OPENAPI_31_VALIDATOR.validate(raw_schema)
    for path in LEFT_OUT:
        del raw_schema["paths"][path]
    # schemathesis does not ask for the document itself once more.
    counted["operations"] = sum(len(item) for path, item in raw_schema["paths"].items() if path != "/openapi.json")
    close(raw_schema["components"]["schemas"])
    document.update(raw_schema)
    for operation in (operation for item in raw_schema["paths"].values() for operation in item.values()):
        # In 3.1 it would be taken for the schema of an event; `events_conform` looks at those.
        operation["responses"].get("200", {}).get("content", {}).get("text/event-stream", {}).pop("schema", None)


def close(schema):
    """No members but those that are described: what grows without a description is found."""
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema and schema.get("description") != "OpenAPI 3.1.":
            schema["additionalProperties"] = False
        for member in schema.values():
            close(member)
    elif isinstance(schema, list):
        for item in schema:
            close(item)


@schemathesis.hook
def before_call(context, case, **kwargs):
    counted["requests"] += 1
    if next(turns) % 2:
        for name in case.path_parameters or {}:
            case.path_parameters[name] = THERE[name]
    if case.path == "/v1/saga" and isinstance(case.body, dict):
        of_saga(case.body)
    query = case.query
    if not isinstance(query, dict):
        return
    for name, within in WITHIN.items():
        if isinstance(value := query.get(name), str) and DURATION.match(value):
            query[name] = within
    if case.path == "/maintenance":
        if isinstance(query.get("route"), str) and query["route"]:
            query["route"] = "/gone"
        if query.get("state") == "off":
            query.pop("for", None)
    if case.path == "/explain" and not query.get("url") and not query.get("upstream"):
        query["upstream"] = "users"


def of_saga(plan):
    """Steps are of an upstream that there is, and have names of their own, which no schema can say; each is tried for a second."""
    steps = plan.get("steps")
    for number, step in enumerate(steps if isinstance(steps, list) else []):
        if not isinstance(step, dict):
            continue
        if isinstance(step.get("service"), str) and step["service"]:
            step["service"] = "users"
        if isinstance(step.get("name"), str) and any(step["name"] == other.get("name") for other in steps[:number] if isinstance(other, dict)):
            step["name"] = f"{step['name'][:60]}-{number}"
        if isinstance(step.get("timeout"), str):
            step["timeout"] = "1s"


def sent(send):
    """A stream has no end: when nothing has come for LOOKED, schemathesis has all that it looks at."""

    def shortly(adapter, request, **options):
        response = send(adapter, request, **options)
        if response.headers.get("content-type", "").startswith("text/event-stream") and response.raw._fp.fp:
            response.raw._fp.fp.raw._sock.settimeout(LOOKED)
        return response

    return shortly


requests.adapters.HTTPAdapter.send = sent(requests.adapters.HTTPAdapter.send)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Which characters Consul can print is beyond a pattern, and so is its language of filters."""
    return not (type(failure).__name__ == "RejectedPositiveData" and response.status_code == 400 and b"Consul cannot read" in response.content)


@schemathesis.deserializer("application/octet-stream")
def any_bytes(context, response):
    return response.content.hex()


@schemathesis.check
def events_conform(ctx, response, case):
    """Each event's `data` is as the document says of events of its name."""
    if not response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        return
    answer = case.operation.definition.raw["responses"]["200"]["content"]["text/event-stream"]
    for event in response.content.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in event.splitlines() if line and not line.startswith(":"))
        if not fields:
            continue
        counted["events"] += 1
        schema = answer["x-events"].get(fields["event"]) or answer["x-events"].get("")
        assert schema, f"an event `{fields['event']}` is not described"
        jsonschema_rs.validate({**schema, "components": document["components"]}, json.loads(fields["data"]))


@atexit.register
def told():
    with open(os.environ["OPENAPI_TALLY"], "w") as file:
        json.dump(counted, file)
