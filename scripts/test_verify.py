"""How scripts/verify.py counts, judges, goes on and tells."""

import contextlib
import io
import os
import pathlib
import tempfile
import unittest
from unittest import mock

import verify

NAMED = {suite.name: suite for suite in verify.SUITES}
MAKEFILE = (verify.ROOT / "Makefile").read_text()

# What each suite prints when it ends well, cut short, and the cases in it.
ENDS_WELL = {
    "check": ("....\n----\nRan 25 tests in 0.9s\n\nOK\nlictor: 54 files, the largest circle has 0\nRan 12 tests in 1s\n", "37 tests, 1 crate"),
    "deny": ("bans ok, licenses ok, sources ok\n", "3 checks"),
    "structure": ("lictor: 54 files, the largest circle has 0\nlictor-http: 25 files, the largest circle has 3\n", "2 crates"),
    "test": (
        "running 3 tests\ntest a ... ok\n\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n"
        "test result: ok. 1000 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 12.10s\n",
        "1,003 tests, 1 ignored",
    ),
    "demo": (
        "step                                           requests errors retries ejections  endpoints breaker\n"
        "all is well                                         300      0       0         0  3+0       closed\n"
        "an instance is killed                               301      0       7         1  2+1       closed\n",
        "2 steps",
    ),
    "rules": ("\n== rules\nChecking rules\n  SUCCESS: 12 rules found\n\n== scrape configuration\n", "2 steps"),
    "manifests": ("\n== compose\nfile\n", "1 step"),
    "instructions": (
        "pick_p2c_ewma_3                   576.9  was      576.9    +0.0 %\nrequest_get                     37685.0  was    37684.0    +0.0 %\n",
        "2 operations",
    ),
    "conformance": ("pass    0.10s  test_http.test_a\n211 of 211 passed in 90s\n", "211 tests"),
    "openapi": ("43 operations of /openapi.json, 2009 requests, 135 events of streams\n", "43 operations, 2,009 requests, 135 events"),
    "examples-test": ("pass    1.44s  test_portal: it starts\npass    0.54s  test_portal.test_401\n35 of 35 passed in 65s\n", "35 tests"),
    "coverage": (
        "test result: ok. 50 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n  95.1 % of 4015 lines of all, 90.0 % wanted\n",
        "50 tests, 95.1 % of lines",
    ),
    "fuzz": (
        "hpack               62 s of processor time      1200000 executions    900 edges    300 inputs\n"
        "http2_client        61 s of processor time          500 executions    100 edges     30 inputs\n",
        "2 targets, 1,200,500 executions",
    ),
    "chaos": ("test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 90 filtered out; finished in 300s\n", "9 tests"),
    "image": ("\n== the images\n\n== figures\n", "2 steps"),
    "stacks": ("\n== images\n", "1 step"),
    "systemd": ("\n== a machine\n", "1 step"),
    "packages": ("\n== a machine\n", "1 step"),
    "grafana": ("$sidecar: order-service\n31 queries of deploy/grafana/lictor.json return something; exemplars arrive; no rule fails\n", "31 queries"),
    "sbom": ("target/lictor.cdx.json: CycloneDX 1.6, 205 components\n", "205 components"),
    "reproduce": ("reproducible: lictor-0.1.0-x86_64-unknown-linux-gnu at 8dbd0238aaaa\n", "1 comparison"),
    "figures": ("release binary: 9000000 bytes\n", ""),
    "bench": ("\nget100: GET 100 B; 5 rounds of 3 s, median (min-max)\n", "1 load"),
    "soak": ("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1800s\n", "1 test"),
}


class Counting(unittest.TestCase):
    def test_every_suite_is_counted_from_its_own_output(self):
        self.assertEqual(set(ENDS_WELL), set(NAMED))
        for name, (text, cases) in ENDS_WELL.items():
            with self.subTest(name):
                outcome = verify.judge(NAMED[name], 0, text)
                self.assertEqual((outcome.cases, outcome.result), (cases, "passed"))

    def test_what_failed_is_counted_too(self):
        cases = [
            ("test", "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured\ntest result: ok. 5 passed; 0 failed; 0 ignored; 0 measured", "17 tests, 2 failed"),
            ("conformance", "FAIL    0.10s  test_http.test_a\n209 of 211 passed in 90s\nfailed: test_http.test_a", "211 tests, 2 failed"),
            (
                "fuzz",
                "hpack  62 s of processor time  12 executions  9 edges  3 inputs\nscripts/fuzz.sh: route has a finding: x-1\n",
                "2 targets, 12 executions, 1 finding",
            ),
        ]
        for name, text, told in cases:
            with self.subTest(name):
                outcome = verify.judge(NAMED[name], 2, text)
                self.assertEqual((outcome.cases, outcome.result), (told, "FAILED: exit code 2"))

    def test_one_that_ran_nothing_has_not_passed(self):
        for suite in verify.SUITES:
            if suite.count:
                with self.subTest(suite.name):
                    self.assertEqual(verify.judge(suite, 0, "all well\n").result, "FAILED: it ended well, and no case is in its output")

    def test_what_the_machine_lacks_is_no_failure_of_the_code(self):
        ends = {
            "scripts/manifests.sh: please install docker-compose\nmake: *** [Makefile:70: manifests] Error 1\n": "please install docker-compose",
            "\nscripts/rules.sh: please install prometheus (there is no apt-get here)\n": "please install prometheus (there is no apt-get here)",
            "scripts/image.sh: it starts a Docker daemon: run it as root\n": "run it as root",
            "scripts/consul.sh: no consul on PATH and no apt-get here; install consul on PATH instead\n": "install consul on PATH instead",
            "scripts/rules.sh: installing prometheus\nE: Unable to locate package prometheus\n": "apt-get cannot install what it needs: Unable to locate package prometheus",
        }
        for text, why in ends.items():
            with self.subTest(why):
                self.assertEqual(verify.judge(NAMED["rules"], 2, text).result, f"not run: {why}")

    def test_a_failure_after_an_installation_is_a_failure(self):
        for text in ["scripts/rules.sh: installing prometheus\n== rules\nFAILED: rules.yml\n", "please install x\n", "test says `E: no`\n"]:
            with self.subTest(text):
                self.assertEqual(verify.judge(NAMED["rules"], 2, text).result, "FAILED: exit code 2")
        self.assertEqual(verify.judge(NAMED["rules"], 0, "scripts/rules.sh: please install x\n== rules\n").result, "passed")


class Suites(unittest.TestCase):
    def test_every_suite_is_a_target_of_the_makefile_and_every_target_that_judges_is_a_suite(self):
        targets = {line.split(":")[0] for line in MAKEFILE.splitlines() if ": ##" in line or ":" in line and " ## " in line}
        # What makes something, and what is made of suites.
        others = {"help", "fmt", "profile", "release", "presubmit", "verify"}
        self.assertEqual(targets - others, set(NAMED))

    def test_every_suite_is_in_the_table_once_and_says_why_it_is_not_run(self):
        told = {suite.name: why for suite, why in verify.chosen(verify.SUITES, set(), {"image"}, False)}
        self.assertEqual(list(told), list(NAMED))
        self.assertEqual(told["image"], "SKIP names it")
        self.assertEqual(told["chaos"], "it needs root")
        self.assertEqual(told["soak"], "half an hour at least; ONLY=soak runs it")
        self.assertEqual([name for name, why in told.items() if why is None][:5], ["check", "deny", "structure", "test", "demo"])

    def test_only_picks_what_is_not_run_by_itself_too(self):
        told = {suite.name: why for suite, why in verify.chosen(verify.SUITES, {"soak", "deny"}, set(), True)}
        self.assertEqual([name for name, why in told.items() if why is None], ["deny", "soak"])
        self.assertEqual(told["test"], "ONLY names others")

    def test_a_name_that_is_none_is_refused(self):
        with self.assertRaises(SystemExit) as refused:
            list(verify.chosen(verify.SUITES, {"tests"}, {"imgae"}, True))
        self.assertIn("no suite is called imgae or tests; there are check deny", str(refused.exception))


class Planted(verify.Suite):
    """A suite whose one option is its shell command."""

    def command(self):
        return ["sh", "-c", *self.options]


def planted(name, script, **more):
    return Planted(name, verify.STEPS, (script,), **more)


class Running(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name) / "verify"

    def verify(self, *suites, only=frozenset(), skip=frozenset()):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = verify.main(suites, set(only), set(skip), self.folder)
        return code, said.getvalue()

    def test_it_goes_on_after_a_failure_and_tells_all_in_one_table(self):
        code, said = self.verify(
            planted("well", "echo == a; echo == b"),
            planted("planted", "echo == a; echo broken >&2; exit 3"),
            planted("lacking", "echo scripts/x.sh: please install y >&2; exit 1"),
            planted("left-out", "exit 1"),
            planted("later", "echo == c"),
            skip=["left-out"],
        )
        self.assertEqual(code, 1)
        table = said.split("\n\n")[1].splitlines()
        self.assertEqual([line.split() for line in table[1:]][0], ["suite", "cases", "seconds", "result"])
        self.assertRegex(table[2], r"^well +2 steps +0  passed$")
        self.assertRegex(table[3], r"^planted +1 step +0  FAILED: exit code 3$")
        self.assertRegex(table[4], r"^lacking +- +0  not run: please install y$")
        self.assertRegex(table[5], r"^left-out +- +-  not run: SKIP names it$")
        self.assertRegex(table[6], r"^later +1 step +0  passed$")
        self.assertEqual(table[7], "2 passed, 1 failed, 2 not run")
        self.assertEqual((self.folder / "planted.log").read_text(), "== a\nbroken\n")
        self.assertEqual((self.folder / "table.txt").read_text().splitlines()[1:], table[1:8])
        self.assertEqual([line.split("  ")[1] for line in said.splitlines()[:2]], ["well begins", "well passed, 2 steps, 0 s"])

    def test_it_is_content_when_none_failed(self):
        code, said = self.verify(planted("well", "echo == a"), planted("rooted", "exit 1", needs_root=True, why_not="reasons"))
        self.assertEqual(code, 0)
        self.assertIn("1 passed, 0 failed, 1 not run", said)

    def test_a_suite_does_not_take_our_words_for_its_own(self):
        with mock.patch.dict(os.environ, {"ONLY": "x", "SKIP": "y", "MINUTES": "3", "MAKEFLAGS": "--ONLY=x", "STATE": "/kept"}):
            code, _ = self.verify(planted("asks", 'echo "== ${ONLY-}${SKIP-}${MINUTES-}${MAKEFLAGS-}${STATE-}"'), only=["asks"])
        self.assertEqual((code, (self.folder / "asks.log").read_text()), (0, "== /kept\n"))

    def test_one_that_does_not_end_is_ended_with_what_it_started(self):
        code, said = self.verify(planted("hangs", "echo == a; sleep 600 & echo $!; wait", limit=1), planted("later", "echo == b"))
        child = int((self.folder / "hangs.log").read_text().split()[-1])
        self.assertEqual(code, 1)
        self.assertIn("FAILED: not over after 1 s", said)
        self.assertIn("later passed", said)
        self.assertFalse(is_running(child))


def is_running(pid):
    """An orphan that has ended may wait for somebody to reap it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    unittest.main()
