//! What a configuration is made of, and in which order it lies over one another.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::Claims;
use crate::diagnose::{Diagnostic, Report, Severity};
use crate::env::Unheeded;
use crate::environment::Environment;
use crate::places::{Places, Text};
use crate::tree::{Origin, Tree};
use crate::value::{Step, Value};
use crate::{env, kv, source};

/// All that a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; without one the environment has to say it all.
    pub file: Option<Text>,
    /// The file beside it of the environment that this process runs in ([`Environment::stage`]), over it.
    pub staged: Option<Text>,
    /// The value of the KV key, named `kv:KEY`: over the file, under the environment.
    pub kv: Option<Text>,
    /// What services in Consul claim of the gateway.
    pub claims: Claims,
    /// Variables.
    pub env: Environment,
    /// `--set`: keys and values.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// Whether the files' texts are those.
    pub fn says_as(&self, other: &Self) -> bool {
        self.file == other.file && self.staged == other.staged
    }

    /// The files that values are in (`file:/path`, a descriptor set), whatever else is wrong; none where a text cannot be read.
    pub fn files(&self) -> Vec<PathBuf> {
        let Ok((tree, _)) = overlay(self, &Unheeded::default()) else { return Vec::new() };
        let paths: BTreeSet<PathBuf> = tree.files().into_iter().map(PathBuf::from).collect();
        paths.into_iter().collect()
    }
}

/// The file with everything else over and under it, and the older services' variables that had an effect.
pub(crate) fn overlay(sources: &Sources, without: &Unheeded) -> Result<(Tree, Vec<String>), Report> {
    let Sources { file, staged, kv, env, flags, claims: _ } = sources;
    let parsed = parse(file.iter().chain(staged))?;
    let (mut tree, mut named) = (Tree::default(), BTreeSet::new());
    for (mut value, places) in parsed {
        interpolate(&mut value, &mut Vec::new(), &places, env, &mut named, &tree);
        tree.lay(value, places, false);
    }
    for (mut value, places) in parse(kv.iter())? {
        kv::vet(&mut value, &places, &tree);
        tree.lay(value, places, true);
    }
    let mut used = env::lay(&mut tree, env, &named, without);
    if file.is_some() {
        for (name, value) in env.not_stages() {
            let why = format!("`{value}` is no part of a file's name: letters, digits, `-` and `_` are");
            tree.note(env::unheeded(name, "", &why, None));
        }
    }
    if staged.is_some() {
        used.extend(env.stage().map(|(name, _)| name.to_owned()));
    }
    for (path, value) in flags {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        tree.set(&path, Value::text(value), Origin::Flag);
    }
    Ok((tree, used))
}

/// All of them, or what is wrong with each.
fn parse<'t>(texts: impl Iterator<Item = &'t Text>) -> Result<Vec<(Value, Places)>, Report> {
    let (parsed, wrong): (Vec<_>, Vec<_>) = texts.map(source::parse).partition(Result::is_ok);
    let wrong: Vec<Diagnostic> = wrong.into_iter().filter_map(Result::err).collect();
    if wrong.is_empty() { Ok(parsed.into_iter().flatten().collect()) } else { Err(Report(wrong)) }
}

/// Fills variables in, and notes which.
fn interpolate(
    value: &mut Value,
    path: &mut Vec<Step>,
    places: &Places,
    env: &Environment,
    named: &mut BTreeSet<String>,
    tree: &Tree,
) {
    match value {
        Value::Null => (),
        Value::Scalar(text) => match env.fill(text, named) {
            Ok(filled) => *text = filled,
            Err(message) => {
                let help = Some("set it, or give a default: `${NAME:-value}`".to_owned());
                tree.say(Severity::Error, path, message, help, || places.find(path, false));
            }
        },
        Value::List(values) => {
            for (index, value) in values.iter_mut().enumerate() {
                path.push(Step::Index(index));
                interpolate(value, path, places, env, named, tree);
                path.pop();
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                path.push(Step::Key(key.clone().into()));
                interpolate(value, path, places, env, named, tree);
                path.pop();
            }
        }
    }
}
