"""A key that is accepted works: holds each key of docs/configuration.md to a test that turns it and goes through the real binary.

    scripts/tested_keys.py [ROOT] [-v]

The tests' YAML stands in their string literals, often in pieces: `", breaker: {{failure_threshold: 6}}"` turns `breaker.failure_threshold`
wherever that is. A piece counts for the one key whose path it fits best, and for none where it fits several. `-v` says which tests they are."""

import functools
import pathlib
import re
import sys

PAGE = "docs/configuration.md"
TESTS = ("tests/mesh", "tests/protocols", "tests/faults", "tests/outages", "tests/chaos", "tests/gateway", "tests/blocks", "crates/lictor/tests")
# Keys that no test can turn, and why.
REASONS = {}

ROW = re.compile(r"^\| `([\w.\[\]]+)` \|", re.M)
TOKEN = re.compile(r"""//[^\n]*|r(#*)"(.*?)"\1|b?"((?:[^"\\]|\\.)*)"|'(?:[^'\\\n]|\\.)'""", re.S)
PLACEHOLDER = re.compile(r"\{[\w.]*(?::[^ {}]*)?\}")
PIECE = re.compile(r"""[{}\[\],\n§]|(?<![\w.-])['"]?(\w[\w-]*)['"]?:(?=[\s§]|$)""")
FUNCTION = re.compile(r"^ *(?:pub(?:\([a-z]+\))? )?fn (\w+)", re.M)
CALL = re.compile(r"\b(\w+)\(")


def keys(text):
    """The page's keys that have none below them. What `defaults` has, an upstream and a route have too, and what a gateway has its routes: it is one key."""
    paths = ROW.findall(text)
    policies = {path.removeprefix("defaults.") for path in paths if path.startswith("defaults.")}
    routes = {path.removeprefix("gateway.routes[].") for path in paths if path.startswith("gateway.routes[].")}

    def one(path):
        for place in ("gateway.routes[].", "gateway."):
            rest = path.removeprefix(place)
            if path.startswith(place) and rest in routes and f"gateway.{rest}" in paths:
                return rest
        for place in ("defaults.", "upstreams.NAME.routes[].", "upstreams.NAME.", "gateway.routes[]."):
            if path.startswith(place) and path.removeprefix(place) in policies:
                return path.removeprefix(place)
        return path

    found = {tuple(one(path).replace("[]", "").split(".")) for path in paths}
    return tuple(sorted(key for key in found if key != ("defaults",) and not any(other != key and other[: len(key)] == key for other in found)))


def literals(text):
    """Each string literal of Rust text, as the program has it."""
    for match in TOKEN.finditer(text):
        if match[2] is not None:
            yield match[2]
        elif match[3] is not None:
            yield re.sub(r"\\\n\s*", "", match[3]).replace("\\n", "\n").replace('\\"', '"')


def formatted(literal):
    """The literal with `§` for what is put in, and single braces."""
    if "{{" not in literal and not PLACEHOLDER.search(literal):
        return literal
    return re.sub(r"\{\{|\}\}|" + PLACEHOLDER.pattern, lambda found: found[0][0] if found[0] in ("{{", "}}") else "§", literal)


def read(literal):
    """The path of each key in it, and of each place where something is put in: of flow maps, of blocks by their indentation, and of parts of either."""
    yaml = "\n" + formatted(literal)
    flow, block, pending, indent, after = [], [], None, 0, 0
    paths, holes = set(), set()
    for match in PIECE.finditer(yaml):
        sign = match[0]
        outer = tuple(key for _, key in (block if flow or pending else [])) + tuple(key for key in flow if key)
        if sign in "{[":
            if pending and not flow:
                block.pop()  # it is in `flow` now
            flow.append(pending)
            pending = None
        elif sign in "}]":
            pending = flow.pop() and None if flow else None
        elif sign == ",":
            pending = None
        elif sign == "§":
            is_value = pending and flow and not yaml[after : match.start()].strip(" '\"")
            holes.add(outer + ((pending,) if is_value else ()))
            pending = None
        elif sign == "\n" and not flow:
            rest = yaml[match.end() :]
            indent, pending = len(rest) - len(rest.lstrip(" -")), None
            block = [(depth, key) for depth, key in block if depth < indent]
        elif match[1]:
            pending, after = match[1], match.end()
            if flow:
                paths.add(outer + (pending,))
            else:
                block = [(depth, key) for depth, key in block if depth < indent] + [(indent, pending)]
                paths.add(tuple(key for _, key in block))
    return paths, holes


def overlap(piece, key):
    """How many segments of their ends are the same, and how many of them by their own name; none when one is no end of the other."""
    count = min(len(piece), len(key))
    pairs = list(zip(piece[-count:], key[-count:]))
    exact = sum(a == b for a, b in pairs)
    return (count, exact) if exact and all(b in (a, "NAME") for a, b in pairs) else (0, 0)


@functools.cache
def best(piece, known):
    """How well it fits the one key that it fits best, and that key; none where several are as good."""
    fits = sorted(((overlap(piece, key), key) for key in known), reverse=True)
    (count, exact), key = fits[0]
    return (count, key) if count and fits[1:2] and fits[1][0] < (count, exact) else (0, None)


def turned(literal, holes, known):
    """The keys that a literal turns which is put into one of these holes, or into none."""
    for piece in read(literal)[0]:
        within = {key for count, key in (best(hole + piece, known) for hole in holes if hole) if count > len(piece)}
        key = piece if piece in known else best(piece, known)[1]
        yield from within or ((key,) if key else ())
    for key in known:
        path = ".".join(key)
        if literal == "LICTOR_" + path.upper().replace(".", "_") or literal.startswith(path + "="):
            yield key


def functions(root):
    """Each function of the tests: its file, its name and its text."""
    for file in sorted(file for folder in TESTS for file in (root / folder).glob("*.rs")):
        text = file.read_text()
        starts = [(0, "")] + [(match.start(), match[1]) for match in FUNCTION.finditer(text)]
        for (start, name), (end, _) in zip(starts, starts[1:] + [(len(text), "")]):
            yield file.relative_to(root), name, text[start:end]


def tests(root, known):
    """For each key the tests that turn it. What a function says may be put into what it calls."""
    found, holes = {key: [] for key in known}, {}
    bodies = list(functions(root))
    for file, name, text in bodies:
        own = holes.setdefault((file.parent, name), set())
        own.update(*(read(literal)[1] for literal in literals(text)))
    for file, name, text in bodies:
        calls = {name, *CALL.findall(text)}
        reach = set().union(*(holes.get((file.parent, call), ()) for call in calls))
        for literal in literals(text):
            for key in turned(literal, reach, known):
                found[key].append(f"{file}::{name}")
    return found


def problems(root, reasons):
    known = keys((root / PAGE).read_text())
    if not known:
        yield f"{PAGE} has no keys"
        return
    for key, found in tests(root, known).items():
        path = ".".join(key)
        reason = reasons.get(path)
        if not found and len((reason or "").split()) < 3:
            yield f"{path}: no test that goes through the binary turns it, and no reason says why"
        if found and reason:
            yield f"{path}: {found[0]} turns it; it needs no reason"
    for path in reasons:
        if tuple(path.split(".")) not in known:
            yield f"{path} has a reason, and is no key"


def main(arguments):
    is_verbose = "-v" in arguments
    roots = [argument for argument in arguments if argument != "-v"]
    root = pathlib.Path(roots[0] if roots else pathlib.Path(__file__).parent.parent).resolve()
    found = list(problems(root, REASONS))
    known = keys((root / PAGE).read_text())
    if is_verbose:
        for key, where in tests(root, known).items():
            print(".".join(key), *sorted(set(where)))
    for problem in found:
        print(problem)
    if not found:
        print(f"{PAGE}: {len(known)} keys are turned by a test or have their reason")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
