//! What a configuration is made of, and in which order it lies over one another.

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
    /// The value of the KV key, named `kv:KEY`: over the file, under the environment.
    pub kv: Option<Text>,
    /// Variables.
    pub env: Environment,
    /// `--set`: keys and values.
    pub flags: Vec<(String, String)>,
}

/// The file with everything else over and under it, and the older services' variables that had an effect.
pub(crate) fn overlay(sources: &Sources, without: &Unheeded) -> Result<(Tree, Vec<String>), Report> {
    let Sources { file, kv, env, flags } = sources;
    let parse = |text: &Text| source::parse(text).map_err(|diagnostic: Diagnostic| Report(vec![diagnostic]));
    let mut tree = Tree::default();
    if let Some(file) = file {
        let (mut value, places) = parse(file)?;
        interpolate(&mut value, &mut Vec::new(), &places, env, &tree);
        tree.lay(value, places, false);
    }
    if let Some(text) = kv {
        let (mut value, places) = parse(text)?;
        kv::vet(&mut value, &places, &tree);
        tree.lay(value, places, true);
    }
    let used = env::lay(&mut tree, env, without);
    for (path, value) in flags {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        tree.set(&path, Value::text(value), Origin::Flag);
    }
    Ok((tree, used))
}

/// Fills variables in.
fn interpolate(value: &mut Value, path: &mut Vec<Step>, places: &Places, env: &Environment, tree: &Tree) {
    match value {
        Value::Null => (),
        Value::Scalar(text) => match env.fill(text) {
            Ok(filled) => *text = filled,
            Err(message) => {
                let help = Some("set it, or give a default: `${NAME:-value}`".to_owned());
                tree.say(Severity::Error, path, message, help, || places.find(path, false));
            }
        },
        Value::List(values) => {
            for (index, value) in values.iter_mut().enumerate() {
                path.push(Step::Index(index));
                interpolate(value, path, places, env, tree);
                path.pop();
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                path.push(Step::Key(key.clone().into()));
                interpolate(value, path, places, env, tree);
                path.pop();
            }
        }
    }
}
