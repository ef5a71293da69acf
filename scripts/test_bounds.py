"""What scripts/bounds.py finds, on small planted trees."""

import contextlib
import io
import pathlib
import tempfile
import unittest

import bounds

WIRE = """
const STREAMS_MAX: u32 = 1_000;
pub(super) const WINDOW: u32 = 256 << 10;
const ALL: u32 = STREAMS_MAX * WINDOW;
const KEPT: usize = STREAMS_MAX as usize;
const STREAM_LAST: u32 = (1 << 31) - 1;
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);

impl Calm {
    const MAX: u32 = super::KEPT as u32;
}

"""
TESTS = """
#[cfg(test)]
mod tests {
    const OF_A_TEST: usize = 1;
}
"""
PAGE = """
| constant | value | why |
|---|---|---|
| `http2::STREAMS_MAX` | 1,000 | reasons |
| `http2::WINDOW` | 256 KiB | |
| `http2::ALL` | 250 MiB | |
| `wire::KEPT` | 1000 | |
| `http2::PATIENCE` | 1.5 s | |
| `http2::Calm::MAX` | 1,000 | |
| `defaults.retry.attempts` | 3 | |
"""
CONFIGURATION = "| `defaults.retry.attempts` | integer, string | `3` | Attempts in all. |\n"


class Bounds(unittest.TestCase):
    def look(self, wire=WIRE, page=PAGE, configuration=CONFIGURATION, crate="lictor-proxy", more=None):
        """What it says of a tree with one file, one page and one default."""
        with tempfile.TemporaryDirectory() as folder:
            files = {f"crates/{crate}/src/http2/wire.rs": wire + TESTS, "docs/why/bounds.md": page, "docs/configuration.md": configuration} | (more or {})
            for path, text in files.items():
                file = pathlib.Path(folder) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                code = bounds.main(pathlib.Path(folder))
            return code, said.getvalue()

    def fails(self, words, **tree):
        code, said = self.look(**tree)
        self.assertEqual(code, 1, said)
        self.assertIn(words, said)
        self.assertEqual(said.count("\n"), 1, said)

    def test_what_the_code_says_passes_whichever_crate_it_is_in(self):
        self.assertEqual(self.look(), (0, "docs/why: 7 values are the code's\n"))
        self.assertEqual(self.look(crate="lictor-http")[0], 0)

    def test_another_value_fails_in_the_page_and_in_the_code(self):
        self.fails("docs/why/bounds.md says that `http2::WINDOW` is 255 KiB", page=PAGE.replace("256 KiB", "255 KiB"))
        self.fails("is 1.5 s, and crates/lictor-proxy/src/http2/wire.rs says Duration::from_millis(1600)", wire=WIRE.replace("1500", "1600"))
        self.fails("`http2::PATIENCE` is 1.5 KiB", page=PAGE.replace("1.5 s", "1.5 KiB"))
        self.fails("`http2::PATIENCE` is soon", page=PAGE.replace("1.5 s", "soon"))

    def test_a_name_that_is_none_fails(self):
        self.fails("names `http1::WINDOW`, and no constant is called so", page=PAGE + "| `http1::WINDOW` | 1 | |\n")

    def test_a_constant_of_the_http_code_that_no_table_has_fails(self):
        self.fails("NEW_MAX bounds something", wire="const NEW_MAX: usize = 3;\n" + WIRE)
        self.fails("LEAVES_MAX bounds something", wire=WIRE + "impl Calm {\n    const LEAVES_MAX: u32 = 1;\n    const WEIGHT: u32 = 1;\n}\n")
        self.assertEqual(self.look(more={"crates/lictor-proxy/src/cache.rs": "const OTHER: usize = 1;"})[0], 0)

    def test_two_of_one_name_are_told_apart_by_their_file_or_are_alike(self):
        other = {"crates/lictor-http/src/http2/other.rs": "const WINDOW: u32 = 1;"}
        self.fails("`http2::WINDOW` is 256 KiB, and crates/lictor-http/src/http2/other.rs says 1", more=other)
        page = PAGE.replace("`http2::WINDOW`", "`wire::WINDOW`") + "| `other::WINDOW` | 1 | |\n"
        self.assertEqual(self.look(page=page, more=other)[0], 0)

    def test_a_default_is_the_configurations(self):
        self.fails("`defaults.retry.attempts` is 3, and docs/configuration.md says 4", configuration=CONFIGURATION.replace("`3`", "`4`"))


if __name__ == "__main__":
    unittest.main()
