"""Lines that ran, of each file below a folder, by a record in lcov's format; with LINES=1 those that did not."""

import os
import sys


def ends_at(path):
    """The line of the file's tests, which come last."""
    with open(path) as lines:
        lines = lines.read().split("\n")
    for number, line in enumerate(lines, 1):
        if line == "#[cfg(test)]" and lines[number].startswith("mod tests {"):
            return number
    return len(lines) + 1


def main(record, folder, at_least):
    files, name = {}, None
    with open(record) as lines:
        for line in lines:
            key, _, value = line.rstrip("\n").partition(":")
            if key == "SF":
                name = value
            elif key == "DA":
                number, count = value.split(",")[:2]
                known = files.setdefault(name, {})
                known[int(number)] = max(known.get(int(number), 0), int(count))
    ran = all_lines = 0
    for path in sorted(files):
        short = os.path.relpath(path, folder)
        if short.startswith("..") or short.endswith("tests.rs"):
            continue
        end = ends_at(path)
        counts = {number: count for number, count in files[path].items() if number < end}
        missed = sorted(number for number, count in counts.items() if count == 0)
        if not counts:
            continue
        ran, all_lines = ran + len(counts) - len(missed), all_lines + len(counts)
        print(f"{100 * (1 - len(missed) / len(counts)):6.1f} % of {len(counts):4} {short}")
        if os.environ.get("LINES") and missed:
            print("         not", *missed)
    share = 100 * ran / max(all_lines, 1)
    print(f"{share:6.1f} % of {all_lines:4} lines of all, {at_least} % wanted")
    return share >= at_least


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
