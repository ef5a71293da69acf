//! What a YAML text means, by an independent witness: serde_yaml, whose parser is libyaml. Documents of every style are
//! read to the same value by both, and so is every YAML file of this repository. The table at the end has what the two read
//! differently, and why.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use lictor_config::Text;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use serde_yaml::Value as Yaml;

fn ours(yaml: &str) -> Result<Json, String> {
    let text = Text { name: "test.yaml".to_owned(), text: yaml.to_owned() };
    lictor_config::yaml(&text).map_err(|report| report.sentences().join("\n"))
}

fn theirs(yaml: &str) -> Result<Yaml, String> {
    let mut value: Yaml = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    loop {
        // Once merges what maps say; what is merged in a map that is merged itself needs another round.
        let before = value.clone();
        value.apply_merge().map_err(|error| error.to_string())?;
        if value == before {
            return Ok(value);
        }
    }
}

/// Both are the same value. What a scalar is, lictor decides where it is read, so a number is still the text that it was
/// written as.
fn is_same(ours: &Json, theirs: &Yaml) -> bool {
    match (ours, theirs) {
        (Json::Null, Yaml::Null) => true,
        (Json::String(text), Yaml::String(_) | Yaml::Bool(_) | Yaml::Number(_)) => is_same_scalar(text, theirs),
        (Json::Array(ours), Yaml::Sequence(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Json::Object(ours), Yaml::Mapping(theirs)) => {
            let has = |(key, value): (&String, &Json)| {
                theirs.iter().any(|(other, theirs)| is_same_scalar(key, other) && is_same(value, theirs))
            };
            ours.len() == theirs.len() && ours.iter().all(has)
        }
        (ours, Yaml::Tagged(tagged)) => is_same(ours, &tagged.value),
        _ => false,
    }
}

fn is_same_scalar(text: &str, theirs: &Yaml) -> bool {
    match theirs {
        Yaml::String(theirs) => text == theirs,
        Yaml::Bool(theirs) => text == theirs.to_string(),
        Yaml::Number(number) => {
            let written = text.replace(".inf", "inf").replace(".nan", "nan");
            let (here, there) = (written.parse::<f64>().ok(), number.as_f64());
            here.zip(there).is_some_and(|(here, there)| here.total_cmp(&there).is_eq())
        }
        Yaml::Null | Yaml::Sequence(_) | Yaml::Mapping(_) | Yaml::Tagged(_) => false,
    }
}

/// A value, and how it is written.
#[derive(Clone, Debug)]
enum Node {
    Plain(&'static str),
    Single(String),
    Double(String),
    /// Lines behind `|` or `>`, and the sign for what becomes of the last line's end.
    Block(char, &'static str, Vec<String>),
    List {
        flow: bool,
        of: Vec<Self>,
    },
    /// `merge` chooses among the anchored maps that stand before this one.
    Map {
        flow: bool,
        merge: Option<Vec<usize>>,
        of: Vec<(String, Self)>,
    },
    /// Chooses among the anchored values that stand before it.
    Alias(usize),
    Anchored(Box<Self>),
}

/// What a plain scalar may be: each kind, and what is nearly one.
const PLAIN: [&str; 40] = [
    "word",
    "two words",
    "~",
    "null",
    "Null",
    "NULL",
    "nUll",
    "true",
    "True",
    "TRUE",
    "false",
    "tRue",
    "yes",
    "No",
    "on",
    "OFF",
    "y",
    "0",
    "7",
    "-3",
    "+5",
    "1.10",
    "-1.5e3",
    ".5",
    "5.",
    "007",
    "0x1F",
    "0o17",
    "0b11",
    "1_000",
    "12:30:45",
    "2001-12-14",
    ".inf",
    "-.inf",
    ".nan",
    "a:b",
    "a#b",
    "http://h:80/p?q=1",
    "127.0.0.1:3001",
    "<",
];

fn text() -> impl Strategy<Value = String> {
    let letter = prop::sample::select(vec![
        'a',
        'Z',
        '0',
        ' ',
        ' ',
        ':',
        '#',
        '-',
        '?',
        ',',
        '[',
        ']',
        '{',
        '}',
        '&',
        '*',
        '!',
        '|',
        '>',
        '%',
        '@',
        '`',
        '\'',
        '"',
        '\\',
        'é',
        '世',
        '\u{1f600}',
    ]);
    vec(letter, 0..12).prop_map(|letters| letters.into_iter().collect())
}

/// A line of a block: one that begins with a space would be more indented, which is its own case.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![4 => text().prop_map(|text| text.trim().to_owned()), 1 => text().prop_map(|text| format!("  {text}x"))]
}

fn node() -> impl Strategy<Value = Node> {
    let block = (prop::sample::select(vec!['|', '>']), prop::sample::select(vec!["", "-", "+"]), vec(line(), 1..4))
        .prop_map(|(style, chomp, mut lines)| {
            // The first line says how far the block is indented, so it says something.
            lines[0] = format!("x{}", lines[0].trim_end());
            Node::Block(style, chomp, lines)
        });
    let leaf = prop_oneof![
        4 => prop::sample::select(PLAIN.to_vec()).prop_map(Node::Plain),
        2 => text().prop_map(Node::Single),
        2 => (text(), prop::sample::select(vec!["", "\n", "\t", "\u{7}", "\u{a0}"]))
            .prop_map(|(text, more)| Node::Double(format!("{text}{more}"))),
        2 => block,
        2 => any::<usize>().prop_map(Node::Alias),
    ];
    let of = leaf.prop_recursive(4, 40, 5, |below| {
        let maps = (any::<bool>(), prop::option::weighted(0.3, vec(any::<usize>(), 1..3)), entries(below.clone()));
        prop_oneof![
            2 => (any::<bool>(), vec(below.clone(), 0..5)).prop_map(|(flow, of)| Node::List { flow, of }),
            3 => maps.prop_map(|(flow, merge, of)| Node::Map { flow, merge, of }),
            2 => below.prop_map(anchored),
        ]
    });
    // Much is anchored, so that aliases and merges have something to mean.
    entries(of).prop_map(|of| {
        let of = of.into_iter().map(|(key, node)| (key, anchored(node))).collect();
        Node::Map { flow: false, merge: None, of }
    })
}

fn anchored(node: Node) -> Node {
    match node {
        Node::Alias(_) | Node::Anchored(_) => node,
        node => Node::Anchored(Box::new(node)),
    }
}

/// Keys of one map differ, and so do the values that they are read as.
fn entries(of: impl Strategy<Value = Node>) -> impl Strategy<Value = Vec<(String, Node)>> {
    let key = prop_oneof![
        prop::sample::select(vec!["a", "b", "c", "d", "key", "two words", "7", "true", "'quoted: #'", "\"tab\\t\""])
            .prop_map(str::to_owned),
        "[a-z]{1,3}",
    ];
    vec((key, of), 0..6).prop_map(|mut entries| {
        let mut known = HashSet::new();
        entries.retain(|(key, _)| known.insert(key.clone()));
        entries
    })
}

#[derive(Default)]
struct Writer {
    yaml: String,
    /// Anchors whose value has ended, and whether it is a map to merge. One with merges of its own is none: of two that
    /// are merged, serde_yaml lets what the second says itself win over what the first has from a third.
    anchors: Vec<(usize, bool)>,
    named: usize,
}

impl Writer {
    /// Writes behind what is there: on its line, or on lines of its own, so far indented.
    fn write(&mut self, node: &Node, indent: usize, in_flow: bool) {
        match node {
            Node::Plain(text) => self.push(&format!(" {text}")),
            Node::Single(text) => self.push(&format!(" '{}'", text.replace('\'', "''"))),
            Node::Double(text) => self.push(&format!(" {}", json!(text))),
            Node::Block(_, _, lines) if in_flow => self.push(&format!(" {}", json!(lines.join("\n")))),
            Node::Block(style, chomp, lines) => {
                self.push(&format!(" {style}{chomp}"));
                for line in lines {
                    let line = if line.is_empty() { String::new() } else { format!("{:indent$}{line}", "") };
                    self.push(&format!("\n{line}"));
                }
                self.push("\n");
            }
            Node::Alias(choice) => match self.anchors.get(choice % self.anchors.len().max(1)) {
                Some((name, _)) => self.push(&format!(" *n{name}")),
                None => self.push(" none"),
            },
            Node::Anchored(node) => {
                let name = self.named;
                self.named += 1;
                self.push(&format!(" &n{name}"));
                self.write(node, indent, in_flow);
                self.anchors.push((name, matches!(**node, Node::Map { merge: None, .. })));
            }
            Node::List { of, flow } if *flow || in_flow || of.is_empty() => {
                self.push(" [");
                for node in of {
                    self.write(node, indent, true);
                    self.push(" ,");
                }
                self.push("]");
            }
            Node::List { of, .. } => {
                for node in of {
                    self.line(indent, "-");
                    self.write(node, indent + 2, false);
                }
            }
            Node::Map { of, merge, flow } => {
                self.map(of, merge.as_deref(), indent, *flow || in_flow || of.is_empty());
            }
        }
    }

    fn map(&mut self, of: &[(String, Node)], merge: Option<&[usize]>, indent: usize, is_flow: bool) {
        let maps: Vec<usize> = self.anchors.iter().filter(|(_, is_map)| *is_map).map(|(name, _)| *name).collect();
        let merged = merge.filter(|_| !maps.is_empty()).map(|choices| {
            let names: Vec<String> = choices.iter().map(|choice| format!("*n{}", maps[choice % maps.len()])).collect();
            if let [name] = &names[..] { format!("<<: {name} ") } else { format!("<<: [{} ]", names.join(" , ")) }
        });
        if is_flow {
            self.push(" {");
            if let Some(said) = &merged {
                self.push(&format!(" {said},"));
            }
            for (key, node) in of {
                self.push(&format!(" {key}:"));
                self.write(node, indent, true);
                self.push(" ,");
            }
            return self.push("}");
        }
        if let Some(said) = &merged {
            self.line(indent, said);
        }
        for (key, node) in of {
            self.line(indent, &format!("{key}:"));
            self.write(node, indent + 2, false);
        }
    }

    fn line(&mut self, indent: usize, text: &str) {
        if !self.yaml.is_empty() && !self.yaml.ends_with('\n') {
            self.yaml.push('\n');
        }
        write!(self.yaml, "{:indent$}{text}", "").expect("writing to a string cannot fail");
    }

    fn push(&mut self, text: &str) {
        self.yaml.push_str(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_style_means_what_the_witness_reads(node in node()) {
        let mut writer = Writer::default();
        writer.write(&node, 0, false);
        let yaml = writer.yaml;
        let (ours, theirs) = (ours(&yaml), theirs(&yaml));
        let (Ok(ours), Ok(theirs)) = (&ours, &theirs) else { panic!("{yaml}\n{ours:?}\n{theirs:?}") };
        prop_assert!(is_same(ours, theirs), "{}\n{}\n{:?}", yaml, ours, theirs);
    }
}

#[test]
fn every_file_here_means_what_the_witness_reads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["examples", "deploy", "tests"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.len() > 12, "{files:?}");
    let mut documents = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // Kubernetes writes several documents in one file; lictor reads one.
        for document in text.split("\n---\n").map(|document| format!("{document}\n")) {
            documents += 1;
            let (ours, theirs) = (ours(&document), theirs(&document));
            let (Ok(ours), Ok(theirs)) = (&ours, &theirs) else { panic!("{}\n{ours:?}\n{theirs:?}", file.display()) };
            assert!(is_same(ours, theirs), "{}\n{ours}\n{theirs:?}", file.display());
        }
    }
    assert!(documents > 12);
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of this repository") {
        let path = entry.expect("a folder of this repository").path();
        let is_yaml = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        if path.is_dir() && !path.ends_with("helm/lictor/templates") {
            collect(&path, files); // what a template becomes is YAML
        } else if is_yaml {
            files.push(path);
        }
    }
}

#[test]
fn both_refuse_what_is_no_yaml() {
    for yaml in [
        "a: [1",
        "a: {b: 1",
        "a: 'b",
        "a: \"b",
        "a: *b",
        "a: 1\na: 2",
        "a: b: c",
        "a:\n\t- b",
        "a: 1\n b: 2",
        "a: @b",
        "a: `b",
        "a: \"\\q\"",
        "{<<: 5}",
        "- a\nb: 1",
        "a: 1\n---\nb: 2",
    ] {
        assert!(ours(yaml).is_err() && theirs(yaml).is_err(), "{yaml}: {:?} {:?}", ours(yaml), theirs(yaml));
    }
}

/// Where the two differ, and what lictor reads; `None` is a refusal.
#[test]
fn where_they_differ_is_known() {
    for (yaml, reads, why) in [
        (
            "a: 12345678901234567890123",
            Some(json!({"a": "12345678901234567890123"})),
            "a number is its text, however long",
        ),
        ("a: !!bool yes", Some(json!({"a": "yes"})), "no tag but !!str says anything"),
        ("1: a\n'1': b", None, "keys are their text, so these are one"),
        ("~: a", Some(json!({"nothing": "a"})), "likewise"),
        ("[a]: b", Some(json!({"a list": "b"})), "a key that cannot be one is told as unknown, not here"),
        ("a: x\u{2028}y", Some(json!({"a": "x\u{2028}y"})), "YAML 1.2.2, section 5.4: no line ends here any more"),
        ("a: [-]", None, "YAML 1.2.2, section 7.3.3"),
        ("-\ta", Some(json!(["a"])), "YAML 1.2.2, section 6.2: a tab separates"),
        ("a:\tb", None, "and yet the parser wants a space here"),
        ("a: [\nb]", None, "YAML 1.2.2, section 7.4: what is in brackets is indented deeper than the key before them"),
        ("a: {\n}", None, "likewise"),
        ("a: |\n  b", Some(json!({"a": "b\n"})), "the text's end is a line's end"),
    ] {
        let (ours, theirs) = (ours(yaml).ok(), theirs(yaml).ok());
        assert_eq!(ours, reads, "{yaml:?}: {why}");
        let is_same = ours.zip(theirs).is_some_and(|(ours, theirs)| is_same(&ours, &theirs));
        assert!(!is_same, "{yaml:?}: they do not differ any more");
    }
}
