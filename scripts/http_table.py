"""Holds docs/http.md and docs/sources.md to what is tested: each row of their tables names a test that exists, or says why there is none.

    scripts/http_table.py [ROOT]

A row has four cells: section (or row), what it says, what lictor does, and `path::name` (or several) of a function in that file, or `no: ` and a reason.
docs/sources.md has each of the capabilities A1 to A122 and each of the mistakes D1 to D25 at least once."""

import pathlib
import re
import sys

PAGES = ("docs/http.md", "docs/sources.md")
LAST = {"docs/sources.md": {"A": 122, "D": 25}}  # a page has all rows up to these
TEST = re.compile(r"`([\w./-]+)::(\w+)`")
REASON = re.compile(r"no: \S+( \S+){2,}")


def rows(text):
    """The line and the cells of each row that is no head."""
    for number, line in enumerate(text.splitlines(), 1):
        is_rule = re.fullmatch(r"\|[-|: ]+\|", line)
        if line.startswith("|") and not is_rule and not line.startswith(("| section |", "| row |")):
            yield number, [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def has_function(file, name):
    return re.search(rf"\b(?:fn|def) {name}\b", file.read_text()) is not None


def problems(root, page):
    text = (root / page).read_text()
    names = set()
    for number, cells in rows(text):
        names.update(cells[:1])
        at = f"{page}:{number}"
        if len(cells) != 4 or not all(cells):
            yield f"{at}: a row has four cells, each with words: section, what it says, what lictor does, test or reason"
            continue
        tests = TEST.findall(cells[3])
        if not tests and not REASON.match(cells[3]):
            yield f"{at}: {cells[0]} has neither a test nor a reason (`no: ...`)"
        for path, name in tests:
            file = root / path
            if not file.is_file():
                yield f"{at}: {path} is not there"
            elif not has_function(file, name):
                yield f"{at}: {path} has no {name}"
    if not names:
        yield f"{page} has no rows"
    for letter, last in LAST.get(page, {}).items():
        yield from (f"{page} has no row {letter}{number}" for number in range(1, last + 1) if f"{letter}{number}" not in names)


def main(root):
    failed = 0
    for page in PAGES:
        found = list(problems(root, page))
        for problem in found:
            print(problem)
        if not found:
            print(f"{page}: {len(list(rows((root / page).read_text())))} rows have their test or their reason")
        failed += len(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()))
