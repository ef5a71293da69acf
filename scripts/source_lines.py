"""Holds the tables "What goes" of examples/*/README.md to what is there, and prints them as one: lines of code for communication, with lictor and without.

    scripts/source_lines.py [ROOT]

Lines are those that are neither blank nor all comment. Those of a source are counted in its document, which is not here: their sum is checked.
Those of this side are counted: lictor/*.yaml, and each `[file](file), N lines` of the table."""

import pathlib
import re
import sys

FILE = re.compile(r"\[[^]]*\]\(([^)]*)\), (\d+) lines")
TOGETHER = re.compile(r"(\d+) lines of YAML, (\d+) of (\w+)")


def lines_of(file):
    return sum(1 for line in file.read_text().splitlines() if line.strip() and not re.match(r"\s*(#|//|/?\*)", line))


def table(text):
    """The cells of each row below "What goes", without the heads."""
    part = text.partition("\n## What goes\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| ") and not line.startswith("| the source's")]


def problems(folder):
    """What a table says and is not so."""
    rows = table((folder / "README.md").read_text())
    if not rows or not (said := TOGETHER.match(rows[-1][2])):
        yield "the table ends with `| together | N | N lines of YAML, N of a language |`"
        return
    files = [(name, int(count)) for row in rows for name, count in FILE.findall(row[2])]
    for name, count in files:
        if lines_of(folder / name) != count:
            yield f"{name} has {lines_of(folder / name)} lines, not {count}"
    for what, told, counted in [
        ("of the source", int(rows[-1][1]), sum(int(row[1]) for row in rows[:-1] if row[1].isdigit())),
        ("of YAML", int(said[1]), sum(map(lines_of, (folder / "lictor").glob("*.yaml")))),
        (f"of {said[3]}", int(said[2]), sum(count for _, count in files)),
    ]:
        if told != counted:
            yield f"lines {what}: {counted}, not {told}"


def main(root):
    failed, sums = 0, [0, 0, 0]
    print(f"{'system':12}{'source':>8}{'YAML':>8}{'code':>8}")
    for readme in sorted((root / "examples").glob("*/README.md")):
        if "\n## What goes\n" not in readme.read_text():
            continue
        found = list(problems(readme.parent))
        for problem in found:
            print(f"{readme.relative_to(root)}: {problem}")
        failed += len(found)
        if not found:
            last = table(readme.read_text())[-1]
            said = TOGETHER.match(last[2])
            numbers = [int(last[1]), int(said[1]), int(said[2])]
            sums = [one + more for one, more in zip(sums, numbers)]
            print(f"{readme.parent.name:12}{numbers[0]:8}{numbers[1]:8}{numbers[2]:8}  {said[3]}")
    print(f"{'together':12}{sums[0]:8}{sums[1]:8}{sums[2]:8}")
    return 1 if failed or not sums[0] else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()))
