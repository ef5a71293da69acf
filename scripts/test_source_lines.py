"""What scripts/source_lines.py finds, on a small planted example."""

import pathlib
import tempfile
import unittest

import source_lines

README = """# A system

## What goes

| the source's code | lines | here |
|---|---|---|
| `Registry` | 30 | `service` |
| clients | in `Registry` | [calls.py](calls.py), 2 lines: an address |
| `Breaker` | 12 | a default |
| together | 42 | 3 lines of YAML, 2 of Python |

## What is different
"""


class Finds(unittest.TestCase):
    def found(self, before="", after=""):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "lictor").mkdir()
            (root / "lictor/a.yaml").write_text("# what it is\nservice: a\n\nport: 1 # its own\n")
            (root / "lictor/b.yaml").write_text("service: b\n")
            (root / "calls.py").write_text("# where\n\nimport os\n    // so\n * so\nprint(os)\n")
            assert before in README
            (root / "README.md").write_text(README.replace(before, after) if before else README)
            return list(source_lines.problems(root))

    def test_a_table_that_is_so(self):
        self.assertEqual(self.found(), [])

    def test_what_is_not_so(self):
        for before, after, problem in (
            ("| 30 |", "| 31 |", "lines of the source: 43, not 42"),
            ("3 lines of YAML", "4 lines of YAML", "lines of YAML: 3, not 4"),
            ("YAML, 2 of", "YAML, 5 of", "lines of Python: 2, not 5"),
            ("(calls.py), 2 lines", "(calls.py), 1 lines", "calls.py has 2 lines, not 1"),
        ):
            self.assertIn(problem, self.found(before, after))
        for before in ("## What goes", "3 lines of YAML, 2 of Python"):
            [problem] = self.found(before, "little")
            self.assertIn("the table ends with", problem)


if __name__ == "__main__":
    unittest.main()
