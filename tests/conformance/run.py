"""Runs every `test_*` function of every `test_*.py` (and `long.py` with --long); words select by name."""

import faulthandler
import importlib
import os
import pathlib
import signal
import sys
import time
import traceback

import kit

for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]


class OutOfTime(BaseException):
    """The test's time limit has passed; no `except Exception` may swallow it."""


def expire(*_):
    """The alarm's handler."""
    raise OutOfTime


def run(name, test):
    """Runs one test within its limit and prints how it went."""
    limit, began = getattr(test, "limit", 30), time.monotonic()
    signal.alarm(limit)
    faulthandler.dump_traceback_later(limit + 30, exit=True)  # a C extension may not let the alarm through
    try:
        test()
        problem = None
    except (Exception, OutOfTime):
        problem = traceback.format_exc()
    signal.alarm(0)
    faulthandler.cancel_dump_traceback_later()
    print(f"{'FAIL' if problem else 'pass'}  {time.monotonic() - began:6.2f}s  {name}", flush=True)
    if problem:
        print("\n".join("      " + line for line in problem.splitlines()), flush=True)
        for line in kit.last_log():
            print("      | " + line, flush=True)
    return problem is None


def run_all(arguments):
    """All that were asked for; how many failed, or 1 when there were none."""
    words = [word for word in arguments if not word.startswith("--")]
    modules = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("test_*.py"))
    modules += ["long"] if "--long" in arguments else []
    signal.signal(signal.SIGALRM, expire)
    began, failed, count = time.monotonic(), [], 0
    for module in modules:
        for name, test in list(vars(importlib.import_module(module)).items()):
            full = f"{module}.{name}"
            if name.startswith("test_") and (not words or any(word in full for word in words)):
                count += 1
                if not run(full, test):
                    failed.append(full)
    print(f"{count - len(failed)} of {count} passed in {time.monotonic() - began:.0f}s")
    for full in failed:
        print(f"failed: {full}")
    return len(failed) if count else 1


if __name__ == "__main__":
    code = 1
    try:
        code = min(run_all(sys.argv[1:]), 1)
    except BaseException:
        traceback.print_exc()
    finally:
        kit.clean()
        sys.stdout.flush()
        os._exit(code)  # threads of a client that hangs keep nobody waiting
