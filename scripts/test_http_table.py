"""What scripts/http_table.py finds, on a small planted page."""

import contextlib
import io
import pathlib
import tempfile
import unittest

import http_table

HEAD = "| section | says | lictor | test |\n|---|---|---|---|\n"


class Finds(unittest.TestCase):
    def found(self, rows, page=http_table.PAGES[0]):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "docs").mkdir()
            (root / "tests").mkdir()
            (root / "tests/a.rs").write_text("#[test]\nfn it_is_so() {}\nfn it_is_so_too() {}\n")
            (root / page).write_text(HEAD + rows)
            return list(http_table.problems(root, page))

    def test_a_row_with_its_tests_or_its_reason_is_right(self):
        self.assertEqual(self.found("| 1 | a | b | `tests/a.rs::it_is_so`, `tests/a.rs::it_is_so_too` |\n| 2 | a | b | no: nobody sends that any more |\n"), [])

    def test_what_is_missing_is_told_with_its_line(self):
        for row, what in (
            ("| 1 | a | b | c |", "neither a test nor a reason"),
            ("| 1 | a | b | no: later |", "neither a test nor a reason"),
            ("| 1 | a | b |  |", "four cells"),
            ("| 1 | a | b |", "four cells"),
            ("| 1 | a | b | `tests/b.rs::it_is_so` |", "tests/b.rs is not there"),
            ("| 1 | a | b | `tests/a.rs::it_is` |", "has no it_is"),
        ):
            [problem] = self.found(row + "\n")
            self.assertTrue(problem.startswith("docs/http.md:3: ") and what in problem, (row, problem))

    def test_a_page_without_rows_is_none(self):
        self.assertEqual(self.found(""), ["docs/http.md has no rows"])

    def test_no_capability_and_no_mistake_of_the_sources_is_left_out(self):
        names = [f"A{number}" for number in range(1, 123)] + [f"D{number}" for number in range(1, 26)]
        row = lambda name: f"| {name} | a | b | `tests/a.rs::it_is_so` |\n"
        self.assertEqual(self.found("".join(map(row, names)), "docs/sources.md"), [])
        self.assertEqual(self.found("".join(map(row, names + ["A7"])), "docs/sources.md"), [])  # of another source
        for name in ("A1", "A92", "A122", "D25"):
            self.assertEqual(self.found("".join(row(one) for one in names if one != name), "docs/sources.md"), [f"docs/sources.md has no row {name}"])

    def test_every_page_is_looked_at(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
            root = pathlib.Path(folder)
            (root / "docs").mkdir()
            (root / "docs/http.md").write_text(HEAD + "| 1 | a | b | no: nobody sends that any more |\n")
            (root / "docs/sources.md").write_text("| row | says | lictor | test |\n|---|---|---|---|\n| A1 | a | b | c |\n")
            self.assertEqual(http_table.main(root), 1)
        self.assertIn("docs/sources.md:3: A1 has neither a test nor a reason", said.getvalue())

    def test_a_bar_may_be_escaped(self):
        self.assertEqual(self.found("| 1 | `a\\|b` | b | `tests/a.rs::it_is_so` |\n"), [])


if __name__ == "__main__":
    unittest.main()
