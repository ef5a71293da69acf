"""Runs the suites in order of cost, goes on after a failure, and ends with one table: what ran, how much of it, and what did not run and why.

    scripts/verify.py            ONLY="test rules" picks suites, SKIP="image" leaves some out; MINUTES is how long each fuzz target runs (1)

A suite is a target of the Makefile. What it says is kept in target/verify/NAME.log, its cases are counted there, and the table is in
target/verify/table.txt. One that ends well without a case in its output has failed; one that lacks a tool or root was not run. The exit code is 1 when
one failed."""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOURS = 3600
# What make hands to its children; a suite is not to take ours for its own.
OURS = ["ONLY", "SKIP", "MINUTES", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL"]


def cargo(text):
    """Tests, of every "test result" line that cargo prints."""
    results = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", text, re.MULTILINE)
    passed, failed, ignored = (sum(int(result[at]) for result in results) for at in range(3))
    return [(passed + failed, "tests"), (failed, "failed"), (ignored, "ignored")]


def conformance(text):
    found = re.findall(r"^(\d+) of (\d+) passed in", text, re.MULTILINE)
    passed, count = map(int, found[-1]) if found else (0, 0)
    return [(count, "tests"), (count - passed, "failed")]


def openapi(text):
    found = re.findall(r"^(\d+) operations of /openapi.json, (\d+) requests, (\d+) events", text, re.MULTILINE)
    operations, requests, events = map(int, found[-1]) if found else (0, 0, 0)
    return [(operations, "operations"), (requests, "requests"), (events, "events")]


def fuzz(text):
    runs = re.findall(r"^\S+ +\d+ s of processor time +(\d+) executions", text, re.MULTILINE)
    findings = len(re.findall(r"^scripts/fuzz.sh: \S+ has a finding", text, re.MULTILINE))
    return [(len(runs) + findings, "targets"), (sum(map(int, runs)), "executions"), (findings, "findings")]


def coverage(text):
    """Tests, and the share of lines that they run."""
    shares = re.findall(r"^ *([\d.]+) % of +\d+ lines of all", text, re.MULTILINE)
    return [*cargo(text), *((float(share), "% of lines") for share in shares)]


def check(text):
    """The scripts' own tests, values of docs/why, and crates whose structure was measured; the compiler counts nothing."""
    tests = sum(map(int, re.findall(r"^Ran (\d+) tests? in", text, re.MULTILINE)))
    return [(tests, "tests"), *number(r"^docs/why: (\d+) values", "values")(text), *CRATES(text)]


def lines(pattern, unit):
    """So many lines look like this."""
    return lambda text: [(len(re.findall(pattern, text, re.MULTILINE)), unit)]


def number(pattern, unit):
    """The number is in the output."""

    def count(text):
        found = re.findall(pattern, text, re.MULTILINE)
        return [(int(found[-1]) if found else 0, unit)]

    return count


@dataclasses.dataclass(frozen=True)
class Suite:
    name: str
    # The first number is that of its cases; None where its output has none.
    count: object = None
    options: tuple = ()
    needs_root: bool = False
    # Why it runs only when it is asked for.
    why_not: str = ""
    limit: int = 2 * HOURS

    def command(self):
        return ["make", "--no-print-directory", self.name, *self.options]


STEPS = lines(r"^== ", "steps")
CRATES = lines(r"^\S+: \d+ files, the largest circle has", "crates")
SUITES = [
    Suite("check", check),
    Suite("deny", lines(r"\b(?:advisories|bans|licenses|sources) ok\b", "checks")),
    Suite("structure", CRATES),
    Suite("test", cargo, ("KEEP_GOING=1",)),
    Suite("demo", lines(r"^\S.* +\d+ +\d+ +\d+ +\d+ +\d+\+\d+ +\w+$", "steps")),
    Suite("rules", STEPS),
    Suite("manifests", STEPS),
    Suite("instructions", lines(r"^\S+ +[\d.]+ +was ", "operations")),
    Suite("conformance", conformance),
    Suite("openapi", openapi),
    Suite("examples-test", conformance),
    Suite("coverage", coverage),
    Suite("fuzz", fuzz, ("MINUTES=" + (os.environ.get("MINUTES") or "1"),), limit=6 * HOURS),
    Suite("chaos", cargo, ("KEEP_GOING=1",), needs_root=True),
    Suite("image", STEPS, needs_root=True),
    Suite("stacks", STEPS, needs_root=True),
    Suite("systemd", STEPS, needs_root=True),
    Suite("packages", STEPS, needs_root=True),
    Suite("grafana", number(r"^(\d+) queries of .* return something", "queries")),
    Suite("sbom", number(r": CycloneDX 1\.6, (\d+) components", "components")),
    Suite("reproduce", lines(r"^reproducible: ", "comparisons"), limit=4 * HOURS),
    Suite("figures", why_not="it judges nothing: its numbers are for a reader"),
    Suite("bench", lines(r"; \d+ rounds of ", "loads"), why_not="it judges nothing, and wants the machine for itself", limit=6 * HOURS),
    Suite("soak", cargo, why_not="half an hour at least", limit=24 * HOURS),
]


@dataclasses.dataclass
class Outcome:
    suite: Suite
    result: str  # "passed", "FAILED: ..", "not run: .."
    cases: str = ""
    seconds: float | None = None


def chosen(suites, only, skip, is_root):
    """Each suite, and why it is not run: None when it is."""
    known = {suite.name for suite in suites}
    strange = sorted((only | skip) - known)
    if strange:
        sys.exit(f"scripts/verify.py: no suite is called {' or '.join(strange)}; there are {' '.join(suite.name for suite in suites)}")
    for suite in suites:
        if suite.name in skip:
            yield suite, "SKIP names it"
        elif only and suite.name not in only:
            yield suite, "ONLY names others"
        elif not only and suite.why_not:
            yield suite, f"{suite.why_not}; ONLY={suite.name} runs it"
        elif suite.needs_root and not is_root:
            yield suite, "it needs root"
        else:
            yield suite, None


def lacks(text):
    """What the machine lacks, when that is how a suite ended: its last words say so."""
    last = [line for line in text.splitlines() if line.strip() and not line.startswith("make: ***")][-8:]
    for line in reversed(last):
        found = re.match(r"scripts/\S+: .*?((?:please install|install \S+ on PATH|run it as root).*)", line)
        if found:
            return found[1]
        if line.startswith("E: "):
            return f"apt-get cannot install what it needs: {line[3:]}"
    return None


def in_words(counted):
    """`12 tests, 1 failed`; what there is none of is not said, but for the cases."""
    return ", ".join(f"{count:,} {unit.removesuffix('s') if count == 1 else unit}" for at, (count, unit) in enumerate(counted) if count or at == 0)


def judge(suite, code, text, over=False):
    """The outcome of a run by its exit code and output."""
    counted = suite.count(text) if suite.count else []
    cases = in_words(counted)
    if over:
        return Outcome(suite, f"FAILED: not over after {suite.limit} s", cases)
    missing = lacks(text) if code else None
    if missing:
        return Outcome(suite, f"not run: {missing}")
    if code:
        return Outcome(suite, f"FAILED: exit code {code}", cases)
    if counted and not any(count for count, _ in counted):
        return Outcome(suite, "FAILED: it ended well, and no case is in its output", cases)
    return Outcome(suite, "passed", cases)


def end(process):
    """Ends a suite and all that it started; a script's trap may put things in order first."""
    for how, patience in ((signal.SIGTERM, 60), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, how)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def run(suite, folder):
    """One suite, with its output in a file."""
    log = folder / f"{suite.name}.log"
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    began, over = time.monotonic(), False
    with log.open("wb") as out:
        process = subprocess.Popen(
            suite.command(), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(suite.limit)
        except subprocess.TimeoutExpired:
            over = True
            end(process)
        except KeyboardInterrupt:
            end(process)
            raise
    outcome = judge(suite, process.returncode, log.read_text(errors="replace"), over)
    outcome.seconds = time.monotonic() - began
    return outcome


def run_all(suites, folder, say):
    """Outcomes of all; Ctrl-C leaves out what is left."""
    interrupted = False
    for suite, why_not in suites:
        if interrupted:
            why_not = "interrupted"
        if why_not:
            yield Outcome(suite, f"not run: {why_not}")
            continue
        say(f"{time.strftime('%H:%M:%S')}  {suite.name} begins")
        try:
            outcome = run(suite, folder)
        except KeyboardInterrupt:
            interrupted = True
            outcome = Outcome(suite, "FAILED: interrupted")
        told = "".join(f", {part}" for part in (outcome.cases, outcome.seconds is not None and f"{outcome.seconds:.0f} s") if part)
        say(f"{time.strftime('%H:%M:%S')}  {suite.name} {outcome.result}{told}")
        yield outcome


def table(outcomes):
    rows = [("suite", "cases", "seconds", "result")]
    for outcome in outcomes:
        seconds = "-" if outcome.seconds is None else f"{outcome.seconds:.0f}"
        rows.append((outcome.suite.name, outcome.cases or "-", seconds, outcome.result))
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    text = [f"{name:{widths[0]}}  {cases:{widths[1]}}  {seconds:>{widths[2]}}  {result}" for name, cases, seconds, result in rows]
    counts = [sum(outcome.result.startswith(word) for outcome in outcomes) for word in ("passed", "FAILED", "not run")]
    return "\n".join([*text, "{} passed, {} failed, {} not run".format(*counts)])


def what():
    """The commit that is looked at."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changes = " and changes that are not committed" if git("status", "--porcelain") else ""
    return f"{git('rev-parse', '--short=12', 'HEAD') or 'no commit'}{changes}, {time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} processors"


def main(suites, only, skip, folder):
    folder.mkdir(parents=True, exist_ok=True)
    commit = what()
    outcomes = list(run_all(list(chosen(suites, only, skip, os.geteuid() == 0)), folder, lambda line: print(line, flush=True)))
    text = f"{commit}\n{table(outcomes)}\n"
    (folder / "table.txt").write_text(text)
    print(f"\n{text}", end="")
    failed = [outcome.suite.name for outcome in outcomes if outcome.result.startswith("FAILED")]
    for name in failed:
        print(f"what {name} said is in {folder / name}.log")
    return 1 if failed else 0


if __name__ == "__main__":
    words = {name: set(os.environ.get(name, "").replace(",", " ").split()) for name in ("ONLY", "SKIP")}
    sys.exit(main(SUITES, words["ONLY"], words["SKIP"], ROOT / "target/verify"))
