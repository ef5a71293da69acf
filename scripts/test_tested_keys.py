"""What scripts/tested_keys.py reads, on planted tests."""

import pathlib
import tempfile
import unittest

import tested_keys

PAGE = """| key | type | default | |
|---|---|---|---|
| `port` | integer |  | |
| `defaults` | object |  | |
| `defaults.breaker` | object |  | |
| `defaults.breaker.failure_threshold` | integer |  | |
| `defaults.timeout` | string | `30s` | |
| `check.timeout` | string | `5s` | |
| `upstreams.NAME.breaker` | object |  | Its keys are those of `defaults.breaker`. |
| `upstreams.NAME.timeout` | string | `30s` | |
| `upstreams.NAME.routes[].match` | string |  | |
| `upstreams.NAME.tls.cert` | string |  | |
| `inbound.tls.cert` | string |  | |
| `trace.resource.NAME` | string |  | |
"""


class Reads(unittest.TestCase):
    def turned(self, rust):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "docs").mkdir()
            (root / "tests/mesh").mkdir(parents=True)
            (root / "docs/configuration.md").write_text(PAGE)
            (root / "tests/mesh/a.rs").write_text(rust)
            known = tested_keys.keys(PAGE)
            missing = [problem.split(":")[0] for problem in tested_keys.problems(root, {})]
            found = {".".join(key): where for key, where in tested_keys.tests(root, known).items() if where}
            self.assertEqual(sorted([*missing, *found]), sorted(".".join(key) for key in known))
            return found

    def test_what_defaults_has_an_upstream_and_a_route_have_too(self):
        keys = [".".join(key) for key in tested_keys.keys(PAGE)]
        self.assertEqual(
            keys,
            ["breaker.failure_threshold", "check.timeout", "inbound.tls.cert", "port", "timeout", "trace.resource.NAME"]
            + ["upstreams.NAME.routes.match", "upstreams.NAME.tls.cert"],
        )

    def test_flow_maps_blocks_pieces_and_variables_turn_keys(self):
        for rust, key in (
            ('fn it() { caller(", breaker: {failure_threshold: 6}"); }', "breaker.failure_threshold"),
            ('fn it() { format!("users: {{listen: 0, breaker: {{failure_threshold: {count}}}}}"); }', "breaker.failure_threshold"),
            ('fn it() { of("upstreams:\\n  users:\\n    routes:\\n    - {match: /a}\\n"); }', "upstreams.NAME.routes.match"),
            ('fn it() { of(r#"check: {timeout: 5s}"#); }', "check.timeout"),
            ('fn it() { of("trace: {resource: {team: a}}"); }', "trace.resource.NAME"),
            ('fn it() { start(&[("LICTOR_CHECK_TIMEOUT", "5s")]); }', "check.timeout"),
            ('fn it() { start(&["--set", "check.timeout=5s"]); }', "check.timeout"),
        ):
            self.assertEqual(self.turned(rust), {key: ["tests/mesh/a.rs::it"]}, rust)

    def test_a_piece_is_put_where_its_function_or_who_it_calls_has_room(self):
        there = 'fn of(more: &str) { format!("inbound: {{tls: {{key: 1{more}}}}}"); }\n'
        self.assertEqual(self.turned(there + 'fn it() { of(", cert: a"); }'), {"inbound.tls.cert": ["tests/mesh/a.rs::it"]})
        self.assertEqual(self.turned('fn it() { other(", cert: a"); }'), {}, "it may be either")

    def test_comments_code_and_other_maps_turn_nothing(self):
        for rust in ("// breaker: {failure_threshold: 6}\n", "fn it() { Breaker { failure_threshold: 6 } }", 'fn it() { "other: {failures: 6}" }'):
            self.assertEqual(self.turned(rust), {}, rust)

    def test_a_reason_has_words_and_is_needed(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "docs").mkdir()
            (root / "tests/mesh").mkdir(parents=True)
            (root / "docs/configuration.md").write_text("| `port` | integer |  | |\n| `zone` | string |  | |\n")
            (root / "tests/mesh/a.rs").write_text('fn it() { of("port: 1"); }')
            ask = lambda reasons: list(tested_keys.problems(root, reasons))
            self.assertEqual(ask({"zone": "nothing can turn it"}), [])
            self.assertIn("zone: no test", ask({"zone": "later"})[0])
            self.assertIn("needs no reason", ask({"zone": "nothing can turn it", "port": "it is too hard"})[0])
            self.assertIn("is no key", ask({"zone": "nothing can turn it", "prot": "it is too hard"})[0])


if __name__ == "__main__":
    unittest.main()
