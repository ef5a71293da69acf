"""What scripts/structure.py sees, on small trees that are planted."""

import contextlib
import io
import pathlib
import tempfile
import unittest
from unittest import mock

import structure

NEXT = {"a": "b", "b": "c", "c": "d", "d": "a"}
LIB = "mod a; mod b; mod c; mod d;"


class Planted(unittest.TestCase):
    """A workspace with lictor-http, and others by need."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name).resolve()
        tables = mock.patch.object(structure, "TABLES", {})
        tables.start()
        self.addCleanup(tables.stop)
        alone = mock.patch.object(structure, "ALONE", ["lictor-http"])
        alone.start()
        self.addCleanup(alone.stop)
        self.write("Cargo.toml", '[workspace.dependencies]\nhttp = "1"\nlictor-core = { path = "crates/lictor-core" }\nodd = { package = "lictor-tls", version = "1" }\n')
        self.manifest("lictor-http", "[dependencies]\nhttp.workspace = true\n")
        self.plant(**{"lib.rs": ""})

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def manifest(self, crate, text):
        self.write(f"crates/{crate}/Cargo.toml", text)

    def plant(self, crate="lictor-http", **files):
        for path, text in files.items():
            self.write(f"crates/{crate}/src/{path}", text)

    def look(self):
        """What the check says, and whether it is content."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = structure.main(self.root)
        return code, said.getvalue()

    def passes(self):
        code, said = self.look()
        self.assertEqual((code, said.count("\n\n")), (0, 0), said)
        return said

    def fails(self, *words):
        code, said = self.look()
        self.assertEqual(code, 1, said)
        for word in words:
            self.assertIn(word, said)
        return said


class Circles(Planted):
    def four(self, line):
        """Four files, each of which takes `made` from the next one, in the words given."""
        self.plant(**{"lib.rs": LIB}, **{f"{name}.rs": f"{line(following)}\npub fn made() {{}}\n" for name, following in NEXT.items()})

    def test_a_circle_of_four_is_named_by_file_and_name(self):
        self.four(lambda name: f"use crate::{name}::made as other;")
        said = self.fails("4 files take names from each other in a circle, and no two may")
        self.assertIn("a.rs takes made from b.rs", said)
        self.assertIn("d.rs takes made from a.rs", said)

    def test_every_spelling_of_a_path_is_an_import(self):
        spellings = [
            "use super::{0}::made;",
            "use self::super::{0}::made;",
            "use crate::{{{0}::{{self, made}}}};",
            "use crate::{{\n    {0}::{{\n        made as other,\n    }},\n}};",
            "use crate::{0}; fn f() {{ {0}::made(); }}",
            "use super::{0} as other; fn f() {{ other::made(); }}",
            "use crate::{0}::*;",
            "fn f() {{ crate::{0}::made(); }}",
            "fn f() {{ super::{0}::made::<u8>(); }}",
            "fn f() -> crate::{0}::made {{}}",
            "fn f() {{ use crate::{0}::made; made(); }}",
            "fn f() {{ for _ in 0..super::{0}::made {{}} }}",
            "macro_rules! m {{ () => {{ $crate::{0}::made() }} }}",
            "impl Trait<super::{0}::made> for X {{}}",
            "mod inner {{ use super::super::{0}::made; }}",
            "const X: u8 = {{ let c = '\"'; crate::{0}::made() }};",
            "fn f<'a>(x: &'a str) -> &'a str {{ crate::{0}::made(x, 'a', '\\'') }}",
            'fn f() {{ g(r#"a " quote"#, crate::{0}::made) }}',
            "#[cfg(not(test))] use crate::{0}::made;",
            '#[cfg(any(test, target_os = "linux"))] use crate::{0}::made;',
        ]
        for spelling in spellings:
            with self.subTest(spelling):
                self.four(spelling.format)
                self.fails("4 files take names")

    def test_what_is_not_code_is_no_import(self):
        spellings = [
            "// use crate::{0}::made;",
            "/* /* nested */ use crate::{0}::made; */",
            "/// [`crate::{0}::made`]",
            'const X: &str = "use crate::{0}::made; \\" crate::{0}::made()";',
            'const X: &str = r##"a "# crate::{0}::made()"##;',
            "const X: &str = \"\n    crate::{0}::made()\n\";",
            "#[cfg(test)] mod tests {{ use crate::{0}::made; }}",
            "#[cfg(test)]\n#[allow(unused)]\nuse crate::{0}::made;",
            "#[cfg(any(fuzzing, test))] pub(crate) fn f<A, B>(a: A) {{ crate::{0}::made() }}",
            '#[cfg(any(test, feature = "laws"))] mod laws {{ use crate::{0}::made; }}',
            '#[cfg(all(test, target_os = "linux"))] const X: [u8; 3] = crate::{0}::made();',
            "#[test] fn f() {{ crate::{0}::made() }}",
            "struct X {{ #[cfg(test)] a: crate::{0}::made, b: u8 }}",
            "fn f() {{ http::{0}::made(); ::crates::{0}::made(); }}",
            "use ::other::{0}::made;",
            "use other::{0}::made;",
        ]
        for spelling in spellings:
            with self.subTest(spelling):
                self.four(spelling.format)
                self.assertIn("the largest circle has 0", self.passes())

    def test_what_follows_something_of_tests_is_read(self):
        for before in ["use x::{y, z};", "mod x { fn f() {} }", "fn f() { if a { b } }", "const X: [u8; 2] = [1, 2];", "struct X(u8);", "type X = Vec<u8>;"]:
            with self.subTest(before):
                self.four(lambda name, before=before: f"#[cfg(test)]\n{before}\nuse crate::{name}::made;")
                self.fails("4 files take names")

    def test_a_file_of_tests_alone_is_none_of_the_house(self):
        self.four(lambda name: f"#![cfg(test)]\nuse crate::{name}::made;")
        self.passes()
        self.plant(**{"lib.rs": f"{LIB}\n#[cfg(test)]\nmod missing;"})
        self.passes()

    def test_a_name_is_taken_from_the_file_that_defines_it(self):
        """A face hands on what two others define: it is in no circle, and theirs is seen through it, over two hops."""
        self.plant(
            **{
                "lib.rs": "mod face; mod a; mod b;",
                "face/mod.rs": "mod inner; pub use inner::*; pub use crate::b::B;",
                "face/inner.rs": "pub use crate::a::A as Other;",
                "a.rs": "use crate::face::B; pub struct A;",
                "b.rs": "use crate::face::Other; pub struct B;",
            }
        )
        said = self.fails("2 files take names", "a.rs takes B from b.rs", "b.rs takes Other from a.rs")
        self.assertNotIn("face", said)

    def test_a_face_that_uses_what_it_hands_on_takes_it(self):
        self.plant(**{"lib.rs": "mod face; mod a;", "face.rs": "pub use crate::a::A; pub struct Own(A);", "a.rs": "use crate::face::Own; pub struct A;"})
        self.fails("face.rs takes A from a.rs")

    def test_a_declaration_is_no_import(self):
        self.plant(**{"lib.rs": "mod a; pub fn f() {}", "a.rs": "mod b; use crate::f;", "a/b.rs": "use super::f;"})
        self.passes()

    def test_a_child_lives_in_its_parents_house(self):
        self.plant(**{"lib.rs": "mod a;", "a/mod.rs": "mod b; use b::B; pub struct A(B);", "a/b.rs": "use super::*; pub struct B(A);"})
        self.passes()

    def test_who_takes_a_child_from_outside_takes_what_it_needs_of_its_parent(self):
        """other -> a/c -> a/b -> a (its parent) -> other."""
        self.plant(
            **{
                "lib.rs": "mod a; mod other;",
                "a/mod.rs": "mod b; pub mod c; use crate::other::Other; pub struct A(Other);",
                "a/b.rs": "use super::A; pub struct B(A);",
                "a/c.rs": "use super::b::B; pub struct C(B);",
                "other.rs": "use crate::a::c::C; pub struct Other(C);",
            }
        )
        self.fails("other.rs takes what a/c.rs needs of it from a/mod.rs", "a/mod.rs takes Other from other.rs")

    def test_the_places_of_a_module(self):
        """name.rs, name/mod.rs, below an inline module, and #[path]."""
        self.plant(
            **{
                "lib.rs": 'mod a; mod b; mod inline { pub mod c; }\n#[path = "elsewhere/x.rs"]\nmod d;',
                "a.rs": "use crate::b::made; pub struct made;",
                "b/mod.rs": "use crate::inline::c::made; pub struct made;",
                "inline/c.rs": "use crate::d::made; pub struct made;",
                "elsewhere/x.rs": "use crate::a::made; pub struct made;",
            }
        )
        self.fails("4 files take names", "inline/c.rs takes made from elsewhere/x.rs")

    def test_a_file_that_is_missing_is_said(self):
        self.plant(**{"lib.rs": "mod nowhere;"})
        self.fails("lib.rs says `mod nowhere;`, and there is no such file")

    def test_main_takes_from_the_library(self):
        self.plant(**{"lib.rs": "pub mod a;", "main.rs": "mod b; use lictor_http::a::A;", "a.rs": "pub struct A;", "b.rs": "use lictor_http::a::A;"})
        self.assertIn("4 files", self.passes())

    def test_every_crate_is_looked_at(self):
        two = {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::X; pub struct X;", "b.rs": "use crate::a::X; pub struct X;"}
        self.plant(**{"lib.rs": ""})
        self.passes()
        self.manifest("newcomer", "")
        self.plant("newcomer", **two)
        self.fails("newcomer: 2 files take names from each other in a circle, and no two may")


class Functions(Planted):
    def function(self, lines, line="    step();", head="pub(crate) fn long() {"):
        self.plant(**{"lib.rs": "// first\n\n" + "\n".join([head, *[line] * (lines - 2), "}"]) + "\n"})

    def test_eighty_lines_pass_and_one_more_fails(self):
        self.function(80)
        self.passes()
        self.function(81)
        self.fails("crates/lictor-http/src/lib.rs:3: `long` has 81 lines, and only tables may have more than 80")

    def test_braces_in_strings_and_comments_end_nothing(self):
        self.function(81, "    g('}', \"}\", r#\"}\"#); // }")
        self.fails("81 lines")

    def test_a_signature_and_where_clause_count(self):
        self.function(79, head="pub async fn long<T>(\n    a: [u8; 4],\n) -> T {")
        self.fails("81 lines")

    def test_methods_and_functions_within_functions_count(self):
        self.plant(**{"lib.rs": "impl X {\n    fn a() {\n        fn inner() {\n" + "x();\n" * 79 + "        }\n    }\n}\n"})
        self.fails("`a` has 83 lines", "`inner` has 81 lines")

    def test_tests_may_be_long(self):
        self.function(100, head="#[cfg(test)]\nfn long() {")
        self.passes()

    def test_tables_may_be_long(self):
        arms = "\n".join(f"        X::A{n} {{ .. }} => \"{n}\"," for n in range(100))
        tables = [
            f"fn name(&self) -> &str {{\n    match self {{\n{arms}\n    }}\n}}",
            "fn all() -> [u8; 100] {\n    [\n" + "        f(1, 2),\n" * 100 + "    ]\n}",
            "fn all() -> Table {\n    Table {\n" + "        a: 1,\n" * 100 + "    }\n}",
            "fn all() -> Vec<u8> {\n    vec![\n" + "        1,\n" * 100 + "    ]\n}",
        ]
        for table in tables:
            with self.subTest(table[:60]):
                self.plant(**{"lib.rs": table})
                self.passes()

    def test_what_only_begins_like_a_table_is_none(self):
        steps = "        step();\n" * 100
        functions = [
            f"fn f(x: u8) {{\n    match x {{\n        1 => {{\n{steps}        }}\n        _ => {{}}\n    }}\n}}",
            f"fn f() {{\n    Table {{ a: 1 }};\n{steps}}}",
            f"fn f() {{\n    loop {{\n{steps}    }}\n}}",
            "fn f(x: u8) {\n    match x {\n" + "        1 => 2,\n" * 90 + "    }\n    .then()\n}",
        ]
        for function in functions:
            with self.subTest(function[:40]):
                self.plant(**{"lib.rs": function})
                self.fails("`f` has")

    def test_a_listed_table_passes_and_a_stale_entry_fails(self):
        self.function(81)
        with mock.patch.dict(structure.TABLES, {"lictor-http/lib.rs::long": "a reason"}):
            self.passes()
            self.function(10)
            self.fails("lictor-http/lib.rs::long is listed as a table")


class Dependencies(Planted):
    def test_a_planted_dependency_fails_whatever_it_is_called_and_wherever_it_stands(self):
        manifests = {
            "[dependencies]\nlictor-core.workspace = true": "has lictor-core in its dependencies",
            "[build-dependencies]\nlictor-core = { path = '../lictor-core' }": "has lictor-core in its build-dependencies",
            "[dev-dependencies]\nlictor-testkit = '0.1'": "has lictor-testkit in its dev-dependencies",
            "[dependencies]\nodd.workspace = true": "has lictor-tls in its dependencies",
            "[dependencies]\ninnocent = { package = 'lictor-core', version = '1' }": "has lictor-core in its dependencies",
            "[dependencies]\nshop = { path = '../../examples/shop' }": "has shop in its dependencies",
            "[target.'cfg(unix)'.dependencies]\nlictor = '1'": "has lictor in its dependencies",
        }
        for manifest, words in manifests.items():
            with self.subTest(manifest):
                self.manifest("lictor-http", manifest)
                self.fails(f"lictor-http is to stand alone, and {words}")

    def test_others_may_need_each_other(self):
        self.manifest("lictor-proxy", "[dependencies]\nlictor-core.workspace = true\n")
        self.plant("lictor-proxy", **{"lib.rs": ""})
        self.passes()

    def test_a_crate_that_is_gone_is_said(self):
        (self.root / "crates/lictor-http/Cargo.toml").unlink()
        self.fails("lictor-http is to stand alone, and there is no crates/lictor-http")


if __name__ == "__main__":
    unittest.main()
