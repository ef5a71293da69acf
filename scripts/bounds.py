"""Holds docs/why to what the code says: every constant of a table there exists and has that value, every default is the configuration's, and every
bound of the HTTP code is in a table.

    scripts/bounds.py [ROOT]

A row begins with `part::NAME`: a constant of a file whose path has these parts, in crates/*/src, wherever it moves; or with `defaults.key`, a row of
docs/configuration.md."""

import ast
import pathlib
import re
import sys

# Constants of http1/ and http2/ that bound nothing: numbers of the protocols.
NO_BOUNDS = {"OVERHEAD", "STREAM_LAST"}
# Files of such numbers.
NUMBERS = {"frame.rs", "huffman.rs", "laws.rs", "tests.rs"}

CONSTANT = re.compile(r"^( *)(?:pub(?:\([^)]*\))? )?const (\w+): (?:usize|u\d+|i\d+|Duration) =\s*([^;]+);", re.MULTILINE)
IMPL = re.compile(r"^impl(?:<[^>]*>)? (\w+)", re.MULTILINE)
ROW = re.compile(r"^\| `([\w.:]+)` \| ([^|]+?) \|", re.MULTILINE)
UNITS = {"": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "ms": 0.001, "s": 1, "min": 60, "h": 3600}


def constants(root):
    """Of product code: the parts of each one's path, its name, its text, and its file."""
    for file in sorted((root / "crates").glob("*/src/**/*.rs")):
        text = re.split(r"^#\[cfg\(test\)\]\nmod \w+ \{", file.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
        parts = file.relative_to(root / "crates").with_suffix("").parts
        for found in CONSTANT.finditer(text):
            holders = [one[1] for one in IMPL.finditer(text, 0, found.start())]
            holder = holders[-1:] if found[1] else []
            yield [part for part in parts if part != "mod"] + holder, found[2], found[3], file


def value(text, known):
    """What a constant's expression comes to; a duration in seconds."""
    text = re.sub(r"Duration::from_secs\((.+?)\)", r"(\1)", text)
    text = re.sub(r"Duration::from_millis\((.+?)\)", r"((\1) / 1000)", text)
    text = re.sub(r" as \w+|(?<=\d)_(?=\d)|\b(?:Self|super|crate|\w+)::(?=[A-Z])", "", text)
    return compute(ast.parse(text.strip(), mode="eval").body, known)


def compute(node, known):
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return value(known[node.id], known)
    left, right = compute(node.left, known), compute(node.right, known)
    operations = {ast.LShift: lambda: left << right, ast.Mult: lambda: left * right, ast.Sub: lambda: left - right, ast.Add: lambda: left + right}
    return (operations | {ast.Div: lambda: left / right})[type(node.op)]()


def quantity(text):
    found = re.match(r"([\d,.]+) ?(KiB|MiB|bytes|ms|min|s|h)?\b", text)
    return float(found[1].replace(",", "")) * UNITS[found[2] or ""] if found else None


def is_within(parts, path):
    """Whether these parts stand in the path, in order."""
    rest = iter(path)
    return all(part in rest for part in parts)


def rows(root):
    for page in sorted((root / "docs/why").glob("*.md")):
        for found in ROW.finditer(page.read_text()):
            yield page.relative_to(root).as_posix(), found[1], found[2]


def look_at_constants(root):
    all_of_them = list(constants(root))
    everywhere = {name: text for _, name, text, _ in all_of_them}
    told = set()
    for page, called, shown in rows(root):
        if "::" not in called:
            continue
        *parts, last = called.split("::")
        meant = [(text, file, path) for path, name, text, file in all_of_them if name == last and is_within(parts, path)]
        if not meant:
            yield f"{page} names `{called}`, and no constant is called so"
        for text, file, path in meant:
            told.add((file, last, path[-1]))
            known = everywhere | {name: text for _, name, text, other in all_of_them if other == file}
            if value(text, known) != quantity(shown):
                yield f"{page} says that `{called}` is {shown}, and {file.relative_to(root)} says {text}"
    for path, name, _, file in all_of_them:
        is_http = not {"http1", "http2"}.isdisjoint(path) and file.name not in NUMBERS
        # What a type has for itself is a weight or a word, unless it is a limit.
        is_bound = not path[-1][0].isupper() or name.endswith("MAX")
        if is_http and is_bound and name not in NO_BOUNDS and (file, name, path[-1]) not in told:
            yield f"{file.relative_to(root)}: {name} bounds something: docs/why/http2-bounds.md is to say what, how much, and which attack it answers"


def look_at_defaults(root):
    keys = dict(re.findall(r"^\| `([\w.]+)` \| [^|]* \| `?([^|`]*)`? \|", (root / "docs/configuration.md").read_text(), re.MULTILINE))
    for page, called, shown in rows(root):
        if "." in called and keys.get(called) != shown.strip("`"):
            yield f"{page} says that `{called}` is {shown}, and docs/configuration.md says {keys.get(called, 'nothing of it')}"


def main(root):
    problems = [*look_at_constants(root), *look_at_defaults(root)]
    for problem in problems:
        print(problem)
    if not problems:
        print(f"docs/why: {len(list(rows(root)))} values are the code's")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()))
