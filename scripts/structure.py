"""The walls of the house: no circle of files, no lictor crate in those of ALONE, no function over FUNCTION_MAX lines.

    scripts/structure.py [ROOT]

It reads Rust as text: comments, strings and what only tests are made of are taken away, modules are followed from lib.rs and main.rs, and every path
(in a `use` or in code) is looked up as rustc would. A name counts as taken from the file that defines it, not from one that hands it on by `pub use`;
`mod x;` and a `pub use` of a name that the file does not use itself take nothing. A child lives in
its parent's house: what a module takes from the modules that it stands in (`super::`, or `crate::` for what lib.rs defines) ties it to no circle, but whoever
takes the child from outside the house takes that from the parent too. What macros make and methods of types that came from elsewhere
are not seen."""

import pathlib
import re
import sys
import tomllib

# Crates that stand by themselves: no crate of this workspace is among their dependencies, those of builds and tests included.
ALONE = ["lictor-http", "lictor-jose"]
FUNCTION_MAX = 80
# Tables that do not look like one, with the reason. Those whose body is one match with arms of one line, or one list, are seen.
TABLES = {
    "lictor-proxy/metrics.rs::new": "one metric after the other, each with its help and labels",
}
# Cargo features that only tests and fuzzers switch on.
FEATURES_OF_TESTS = {"laws"}

KINDS = {"fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"}
ITEMS = KINDS | {"mod", "impl", "use", "pub", "unsafe", "async", "extern"}
OPEN, CLOSE = {"{", "(", "["}, {"}", ")", "]"}
HIDDEN = re.compile(
    r"""//[^\n]*|/\*|(?<![\w])(?:b|c)?r(?P<hashes>\#*)"|(?:(?<![\w])[bc])?"(?:[^"\\]|\\.)*"|(?:(?<![\w])b)?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'\n])'""",
    re.DOTALL,
)
TOKEN = re.compile(r"r#\w+|[A-Za-z_]\w*|\d\w*(?:\.\d\w*)?|::|=>|->|\.\.|\S")
WORD = re.compile(r"[A-Za-z_]\w*$")


def blank(text):
    """The text with spaces for comments, strings and characters; every line and column stays where it was."""
    out, at = [], 0
    while found := HIDDEN.search(text, at):
        end = found.end()
        if found.group() == "/*":
            end = end_of_comment(text, end)
        elif found["hashes"] is not None:
            closing = text.find('"' + found["hashes"], end)
            end = len(text) if closing < 0 else closing + 1 + len(found["hashes"])
        out += [text[at : found.start()], re.sub(r"[^\n]", " ", text[found.start() : end])]
        at = end
    return "".join(out) + text[at:]


def end_of_comment(text, at):
    """Block comments stand within one another in Rust."""
    depth = 1
    while depth:
        found = re.compile(r"/\*|\*/").search(text, at)
        if not found:
            return len(text)
        depth += 1 if found.group() == "/*" else -1
        at = found.end()
    return at


class Module:
    """One module: what it defines, what it takes, and the paths in its code."""

    def __init__(self, crate, parent, file):
        self.crate, self.parent, self.file = crate, parent, file
        self.children, self.items = {}, set()
        self.uses = []  # (path, name it has here or None for a glob, is it handed on)
        self.paths, self.words = set(), set()
        crate.modules.append(self)

    def root(self):
        return self if self.parent is None else self.parent.root()

    def holders(self):
        """The files that it stands in."""
        return {self.parent.file} | self.parent.holders() if self.parent else set()


class Crate:
    def __init__(self, folder):
        self.folder, self.name = folder, folder.name
        self.modules, self.functions, self.problems = [], [], []
        source = folder / "src"
        self.library = self.tree(source / "lib.rs") if (source / "lib.rs").exists() else None
        for root in [source / "main.rs", *sorted((source / "bin").glob("*.rs"))]:
            if root.exists():
                self.tree(root)

    def tree(self, file):
        module = Module(self, None, file)
        Reader(self, module, file, file.parent).read()
        return module

    def shown(self, file):
        return file.relative_to(self.folder / "src").as_posix()


class Reader:
    """Reads one file into its module, and the files of its `mod x;` after it. `below` is the folder where those are looked for."""

    def __init__(self, crate, module, file, below):
        self.crate, self.module, self.file, self.below = crate, module, file, below
        self.original = file.read_text()
        self.text = blank(self.original)
        found = list(TOKEN.finditer(self.text))
        self.tokens = [token.group() for token in found]
        self.places = [token.start() for token in found]
        self.lines = [0] + [line.end() for line in re.finditer("\n", self.text)]
        self.ends = self.pairs()

    def pairs(self):
        """Where each bracket is closed."""
        ends, waiting = {}, []
        for at, token in enumerate(self.tokens):
            if token in OPEN:
                waiting.append(at)
            elif token in CLOSE and waiting:
                ends[waiting.pop()] = at
        return ends | {at: len(self.tokens) - 1 for at in waiting}

    def token(self, at):
        return self.tokens[at] if at < len(self.tokens) else ""

    def read(self):
        self.items(0, len(self.tokens), self.module, self.below, True)

    def items(self, at, end, module, below, here):
        """`here`: these are the items of the module itself, not those within a function or an impl."""
        path = None
        while at < end:
            token, following = self.tokens[at], self.token(at + 1)
            if token == "#" and following in {"[", "!"}:
                inner = following == "!"
                closed = self.ends.get(at + 2 if inner else at + 1, at)
                if self.only_tests(at, closed):
                    at = end if inner else self.skip(closed + 1, end)
                else:
                    path = self.path_attribute(at, closed) or path
                    at = closed + 1
            elif token == "mod" and WORD.match(following) and self.token(at + 2) in {";", "{"}:
                at = self.submodule(at, module, below, path)
                path = None
            elif token == "use" and (following == "::" or following == "{" or WORD.match(following)):
                stop = self.until(at + 1, {";"}, end)
                handed_on = here and self.is_public(at)
                module.uses += [(leaf, name, handed_on) for leaf, name in self.use_tree(at + 1, stop, [])]
                at = stop + 1
            elif token == "{" and at in self.ends:
                self.items(at + 1, self.ends[at], module, below, False)
                at = self.ends[at] + 1
            else:
                self.definition(at, module, here)
                at = self.code(at, module)

    def definition(self, at, module, here):
        token, name = self.tokens[at], self.token(at + 1)
        if token == "macro_rules":
            name = self.token(at + 2)
        if token == "static" and name == "mut":
            name = self.token(at + 2)
        if token not in KINDS or not WORD.match(name) or name in KINDS:
            return
        if here:
            module.items.add(name)
        if token == "fn":
            self.function(at, name)

    def function(self, at, name):
        start = at
        while start and self.tokens[start - 1] in {"pub", "const", "async", "unsafe", "extern", ")", "crate", "super", "(", "in", "self"}:
            start -= 1
            if self.tokens[start] == "pub":
                break
        start = start if self.tokens[start] in ITEMS else at
        body = self.until(at, {"{", ";"}, len(self.tokens))
        if self.token(body) != "{":
            return
        lines = self.line(self.ends[body]) - self.line(start) + 1
        self.crate.functions.append((self.file, name, self.line(start), lines, self.is_table(body)))

    def is_table(self, body):
        """Its body is one match whose arms are lines, or one list of values."""
        first, last = body + 1, self.ends[body] - 1
        if self.token(first) == "match":
            opened = self.until(first, {"{"}, last)
            return self.ends.get(opened) == last and self.arms_are_lines(opened, last)
        opened = first
        while opened < last and (WORD.match(self.tokens[opened]) or self.tokens[opened] in {"::", "&", "!"}):
            opened += 1
        return self.tokens[opened] in OPEN and self.ends.get(opened) == last and self.tokens[first] not in {"if", "while", "loop", "for", "unsafe", "async"}

    def arms_are_lines(self, opened, closed):
        at = opened + 1
        while at < closed:
            arrow = self.until(at, {"=>"}, closed)
            stop = self.ends[arrow + 1] if self.token(arrow + 1) == "{" else self.until(arrow + 1, {","}, closed) - 1
            if arrow < closed and self.line(stop) != self.line(arrow):
                return False
            at = stop + 1
            at += self.token(at) == ","
        return True

    def code(self, at, module):
        """One token of code, or a whole path."""
        token = self.tokens[at]
        if token == "$" and self.token(at + 1) == "crate":
            return at + 1
        if not WORD.match(token):
            return at + 1
        if at and self.tokens[at - 1] in {"::", "."}:
            return at + 1
        module.words.add(token)
        names, after = [token], at + 1
        while self.token(after) == "::" and WORD.match(self.token(after + 1)):
            names.append(self.tokens[after + 1])
            after += 2
        if len(names) > 1:
            module.paths.add(tuple(names))
        return after

    def use_tree(self, at, end, before):
        """The leaves of `a::{b, c as d, self, *}`: each path, and the name that it has here."""
        path = list(before)
        while at < end:
            token = self.tokens[at]
            if token == "{":
                inner = at + 1
                while inner < self.ends[at]:
                    stop = self.until(inner, {","}, self.ends[at])
                    yield from self.use_tree(inner, stop, path)
                    inner = stop + 1
                return
            if token == "*":
                yield (tuple(path), None)
                return
            if token == "as":
                yield (tuple(path), self.token(at + 1))
                return
            if token == "::":
                if not path:
                    return  # another crate, whatever is here
            elif token != "self" or not path:
                path.append(token)
            at += 1
        if path:
            yield (tuple(path), path[-1])

    def submodule(self, at, module, below, path):
        name, opening = self.token(at + 1), self.token(at + 2)
        if opening == "{":
            child = module.children[name] = Module(self.crate, module, self.file)
            self.items(at + 3, self.ends[at + 2], child, below / name, True)
            return self.ends[at + 2] + 1
        places = [self.file.parent / path] if path else [below / f"{name}.rs", below / name / "mod.rs"]
        file = next((place for place in places if place.exists()), None)
        if file is None:
            self.crate.problems.append(f"{self.crate.name}: {self.crate.shown(self.file)} says `mod {name};`, and there is no such file")
            return at + 3
        child = module.children[name] = Module(self.crate, module, file)
        Reader(self.crate, child, file, file.parent if path or file.name == "mod.rs" else below / name).read()
        return at + 3

    def path_attribute(self, at, closed):
        text = self.original[self.places[at] : self.places[closed] + 1]
        found = re.fullmatch(r'#\[\s*path\s*=\s*"([^"]+)"\s*\]', text)
        return found and found[1]

    def only_tests(self, at, closed):
        text = re.sub(r"\s", "", self.original[self.places[at] : self.places[closed] + 1])
        if re.fullmatch(r"#\[(\w+::)?test\]", text):
            return True
        found = re.fullmatch(r"#!?\[cfg\((.*)\)\]", text)
        return bool(found) and holds(found[1]) is False

    def skip(self, at, end):
        """After the item (or the field, arm or statement) that begins here."""
        while self.token(at) == "#" and self.token(at + 1) == "[":
            at = self.ends[at + 1] + 1
        stops = {";", "{"}
        if self.token(at) not in ITEMS | {"let"}:
            stops = {",", ";", "{"}
        if any(word in {"use", "const", "static", "let", "type"} for word in self.head(at)) and "fn" not in self.head(at):
            stops = {";"}
        return self.after(self.until(at, stops, end))

    def head(self, at):
        """The first words of an item."""
        words = []
        while WORD.match(self.token(at)) or self.token(at) == "(" and words == ["pub"]:
            if self.token(at) == "(":
                at = self.ends[at]
            else:
                words.append(self.tokens[at])
            at += 1
        return words[:4]

    def after(self, at):
        return self.ends[at] + 1 if self.token(at) == "{" else at + 1

    def until(self, at, stops, end):
        """The next of these tokens that stands in no bracket."""
        while at < end and self.tokens[at] not in stops:
            at = self.ends[at] + 1 if self.tokens[at] in OPEN and at in self.ends else at + 1
        return min(at, end)

    def is_public(self, at):
        return at > 0 and self.tokens[at - 1] in {"pub", ")"}

    def line(self, at):
        low, high, place = 0, len(self.lines), self.places[min(at, len(self.places) - 1)]
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.lines[middle] <= place else (low, middle)
        return low + 1


def holds(condition):
    """What a cfg says of product code: True, False, or None where it depends on the machine."""
    if condition in {"test", "fuzzing"}:
        return False
    feature = re.fullmatch(r'feature="([^"]+)"', condition)
    if feature:
        return False if feature[1] in FEATURES_OF_TESTS else None
    found = re.fullmatch(r"(all|any|not)\((.*)\)", condition)
    if not found:
        return None
    parts, depth = [""], 0
    for letter in found[2]:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    values = [holds(part) for part in parts if part]
    if found[1] == "not":
        return None if values[0] is None else not values[0]
    decided = found[1] == "any"
    if decided in values:
        return decided
    return None if None in values else not decided


def resolve(module, path, visited=frozenset()):
    """What a path names, seen from a module: modules, and the files that define an item of that name."""
    first, rest = path[0], path[1:]
    if first == "crate":
        at = [module.root()]
    elif first in {"self", "super"}:
        here = module
        while path and path[0] in {"self", "super"} and here:
            here, path = (here.parent if path[0] == "super" else here), path[1:]
        at, rest = [here] if here else [], path
    elif module.crate.library and first == module.crate.name.replace("-", "_") and module.root() is not module.crate.library:
        at = [module.crate.library]
    else:
        at = lookup(module, first, visited)
    for name in rest:
        inner = [one for holder in at if isinstance(holder, Module) for one in lookup(holder, name, visited)]
        files = [one for one in at if not isinstance(one, Module)]
        # A name that a macro makes stands in the module itself.
        at = inner or files or [holder.file for holder in at]
        if not inner:
            break
    return at


def lookup(module, name, visited):
    """A name in the scope of a module."""
    if (module, name) in visited:
        return []
    visited = visited | {(module, name)}
    found = [module.children[name]] if name in module.children else []
    if name in module.items:
        found.append(module.file)
    for path, known_as, _ in module.uses:
        if known_as == name:
            found += resolve(module, path, visited)
    if found:
        return found
    for path, known_as, _ in module.uses:
        if known_as is None:
            for holder in resolve(module, path, visited):
                if isinstance(holder, Module) and holder is not module:
                    found += lookup(holder, name, visited)
    return found


def imports(crate):
    """Which file takes which names from which: {file: {file: names}}."""
    edges = {}

    def add(module, target, name):
        if target != module.file:
            edges.setdefault(module.file, {}).setdefault(target, set()).add(name)

    for module in crate.modules:
        heads = {path[0] for path in module.paths}
        for path, known_as, handed_on in module.uses:
            if handed_on and known_as is not None and known_as not in module.words:
                continue
            for target in resolve(module, path):
                if not isinstance(target, Module):
                    add(module, target, path[-1])
                elif known_as is None and not handed_on:
                    add(module, target.file, "*")
                    for name in module.words:
                        for file in lookup(target, name, frozenset()):
                            if not isinstance(file, Module):
                                add(module, file, name)
                elif known_as is not None and known_as not in heads:
                    add(module, target.file, path[-1])
        for path in module.paths:
            for target in resolve(module, path):
                if not isinstance(target, Module):
                    add(module, target, next((name for name in path if name[0].isupper()), path[-1]))
    return edges


def ties(crate):
    """The imports without those of a child from the files that it stands in; who takes the child from outside, takes them too."""
    edges = imports(crate)
    holders = {}
    for module in crate.modules:
        holders.setdefault(module.file, set()).update(module.holders() - {module.file})

    def leans_on(child, holder):
        """Is a name of the holder taken by this child, or by what it takes in the same house?"""
        waiting, seen = [child], set()
        while waiting:
            file = waiting.pop()
            if file == holder:
                return True
            if file not in seen and holder in holders[file]:
                seen.add(file)
                waiting += edges.get(file, {})
        return False

    found = {}
    for file, targets in edges.items():
        for target, names in targets.items():
            if target in holders[file]:
                continue
            found.setdefault(file, {}).setdefault(target, set()).update(names)
            for holder in holders[target] - holders[file] - {file}:
                if leans_on(target, holder):
                    through = f"what {crate.shown(target)} needs of it"
                    found[file].setdefault(holder, set()).add(through)
    return found


def circles(edges):
    """Files that take names from each other in a loop, largest first (Tarjan)."""
    order, lowest, stack, found = {}, {}, [], []

    def visit(start):
        work = [(start, iter(sorted(edges.get(start, {}))))]
        order[start] = lowest[start] = len(order)
        stack.append(start)
        while work:
            node, targets = work[-1]
            target = next(targets, None)
            if target is None:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    circle = stack[stack.index(node) :]
                    del stack[stack.index(node) :]
                    found.append(sorted(circle))
            elif target not in order:
                order[target] = lowest[target] = len(order)
                stack.append(target)
                work.append((target, iter(sorted(edges.get(target, {})))))
            elif target in stack:
                lowest[node] = min(lowest[node], order[target])

    for node in sorted(edges):
        if node not in order:
            visit(node)
    return sorted((circle for circle in found if len(circle) > 1), key=lambda circle: (-len(circle), circle))


def look_at_circles(crate):
    """Prints how large the crate's largest circle is; yields each circle."""
    edges = ties(crate)
    found = circles(edges)
    largest = len(found[0]) if found else 0
    files = len({module.file for module in crate.modules})
    print(f"{crate.name}: {files} files, the largest circle has {largest}")
    for circle in found:
        lines = [f"{crate.name}: {len(circle)} files take names from each other in a circle, and no two may:"]
        for file in circle:
            for target in sorted(set(edges[file]) & set(circle)):
                names = sorted(edges[file][target])
                more = f" and {len(names) - 6} more" if len(names) > 6 else ""
                lines.append(f"    {crate.shown(file)} takes {', '.join(names[:6])}{more} from {crate.shown(target)}")
        yield "\n".join(lines)


def look_at_functions(crate, root):
    listed = {table for table in TABLES if table.startswith(f"{crate.name}/")}
    for file, name, line, lines, table in crate.functions:
        if lines <= FUNCTION_MAX or table:
            continue
        known_as = f"{crate.name}/{file.name}::{name}"
        if known_as not in TABLES:
            yield f"{file.relative_to(root)}:{line}: `{name}` has {lines} lines, and only tables may have more than {FUNCTION_MAX}"
        listed.discard(known_as)
    for table in sorted(listed):
        yield f"{table} is listed as a table (scripts/structure.py), and no long function is called so"


def look_at_dependencies(root):
    """No crate of this workspace in the dependencies of those that stand alone, whatever a dependency is called."""
    workspace = tomllib.loads((root / "Cargo.toml").read_text()) if (root / "Cargo.toml").exists() else {}
    shared = workspace.get("workspace", {}).get("dependencies", {})
    for name in ALONE:
        manifest = root / "crates" / name / "Cargo.toml"
        if not manifest.exists():
            yield f"{name} is to stand alone, and there is no crates/{name}"
            continue
        crate = tomllib.loads(manifest.read_text())
        for table in [crate, *crate.get("target", {}).values()]:
            for kind in ("dependencies", "build-dependencies", "dev-dependencies"):
                for known_as, wish in table.get(kind, {}).items():
                    wish = wish if isinstance(wish, dict) else {}
                    wish = shared.get(known_as, {}) if wish.get("workspace") else wish
                    wish = wish if isinstance(wish, dict) else {}
                    package = wish.get("package", known_as)
                    if "path" in wish or package.split("-")[0] == "lictor":
                        yield f"{name} is to stand alone, and has {package} in its {kind}"


def main(root):
    problems = []
    for folder in sorted((root / "crates").iterdir()):
        if not (folder / "Cargo.toml").exists():
            continue
        crate = Crate(folder)
        problems += crate.problems
        problems += look_at_circles(crate)
        problems += look_at_functions(crate, root)
    problems += look_at_dependencies(root)
    for problem in problems:
        print(f"\n{problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()))
