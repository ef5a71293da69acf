"""The public cache tests (http-tests/cache-tests, of the HTTP working group's chair) on both sides of lictor."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess

import kit
from kit import Lictor, limit

HERE = pathlib.Path(__file__).parent
SUITE = pathlib.Path(os.environ["CACHE_TESTS"])


@contextlib.contextmanager
def origin():
    """The suite's own server; where it listens."""
    folder = kit.folder("cache")
    env = {"PATH": os.environ["PATH"], "npm_config_protocol": "http", "npm_config_port": "0",
           "npm_config_pidfile": str(folder / "pid")}
    log = folder / "log"
    with log.open("w") as out:
        server = subprocess.Popen(["node", HERE / "cache_origin.mjs", SUITE / "server/server.mjs"], env=env, cwd=folder,
                                  stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0)
    try:
        listening = kit.eventually("the suite's server listens", lambda: re.search(r"http://([\d.:]+)/", log.read_text()))
        yield listening[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def expected():
    """The tests that are not passed, by id, with why."""
    lines = (HERE / "cache_expected.txt").read_text().splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "each with its reason"
    return dict(pairs)


@limit(240)
def test_public_cache_tests():
    # Nothing lives that does not say so; each request is sent once, on a connection of its own.
    upstream = {"listen": 0, "cache": {"ttl": "0s", "coalesce": False}, "retry": "off", "breaker": "off",
                "ejection": "off",
                "pool": {"idle": "1ms"}}
    with origin() as address, Lictor(upstreams={"users": {**upstream, "static": [address]}}) as lictor:
        base = f"http://{lictor.address('users')}"
        told = json.loads(kit.run("node", HERE / "cache_tests.mjs", SUITE, base, timeout=200))
    allowed, failed = expected(), {}
    for test in told:
        # Of a "check" neither result is wrong: the suite only asks.
        if not test["passed"] and test["kind"] != "check":
            failed[test["id"]] = test["why"]
    counts = {kind: sum(test["kind"] == kind for test in told) for kind in ("required", "optimal", "check")}
    passed = {kind: sum(test["kind"] == kind and test["passed"] for test in told) for kind in counts}
    print("      " + ", ".join(f"{kind}: {passed[kind]} of {counts[kind]}" for kind in counts))
    assert counts["required"] > 100 and counts["optimal"] > 80, counts
    wrong = [f"{name}: {why}" for name, why in failed.items() if name not in allowed]
    stale = [f"{name} passes by now: take it off cache_expected.txt" for name in allowed if name not in failed]
    assert not wrong and not stale, "\n".join(wrong + stale)
