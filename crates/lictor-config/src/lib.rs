//! YAML and environment in, a validated [`Config`] out, or every mistake at once with its place.
//!
//! [`Sources::load`] builds one tree: the file (with `${VAR}` filled in), the value of the KV key, variables, flags, each
//! knowing where it came from. [`read`] walks that tree once: the same calls that read a key also know its type, its default and its page in
//! the schema, so the configuration, the diagnostics, the effective values and the JSON Schema cannot disagree.
//!
//! Precedence, lowest first: built-in defaults; the variables of older services (`SERVICE_NAME`, `RETRY_MAX_ATTEMPTS`,
//! ..); the file; the one beside it of the environment that this process runs in (`lictor.production.yaml`); the KV key, within the bounds of [`kv`]; the standard variables (`CONSUL_*`, `OTEL_*`) and lictor's own (`LICTOR_*`); `--set` flags.

mod bounds;
mod config;
mod diagnose;
mod diff;
mod env;
mod environment;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod kv;
mod names;
mod ours;
mod places;
mod read;
mod refused;
mod source;
mod sources;
mod tree;
mod value;
mod values;

use std::fmt::Write;

use lictor_core::plain;
use serde_json::Value as Json;

use self::value::{Step, show};

pub use bounds::TEXT_MAX;
pub use config::*;
pub use diagnose::{Diagnostic, Place, Report, Severity, suggest};
pub use diff::{Change, changes};
pub use env::variables;
pub use environment::{Environment, is_withheld};
pub use names::Names;
pub use places::Text;
pub use refused::{META_PAIRS, META_VALUE, check_meta, kv_key};
pub use sources::Sources;
pub use tree::{Effective, Origin};
pub use values::authority;

/// A configuration that is valid, and how it came to be.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every value in force, with its origin; secrets masked.
    pub values: Vec<Effective>,
    /// Things that work but are probably not meant.
    pub warnings: Report,
    /// Variables of older services that had an effect.
    pub compat_env_used: Vec<String>,
}

/// Reads a configuration. Without a file the environment has to say it all.
pub fn load(file: Option<&Text>, env: &Environment, flags: &[(String, String)]) -> Result<Loaded, Report> {
    Sources { file: file.cloned(), env: env.clone(), flags: flags.to_vec(), ..Sources::default() }.load()
}

impl Sources {
    /// Why a file looks as if it were still being written, or were lost: it is gone, says nothing, or has a key with
    /// nothing after it, where the one before had something; below the first keys only the last of all, because that is
    /// where a text that was cut off ends. The words are for whoever asked for it to be read.
    pub fn emptied(&self, before: &Self) -> Option<String> {
        let pairs = [(&before.file, &self.file), (&before.staged, &self.staged)];
        pairs.into_iter().find_map(|(before, now)| emptied(before.as_ref()?, now.as_ref()))
    }

    /// Reads it all; again without them, where others' variables turn out not to be meant for lictor.
    pub fn load(&self) -> Result<Loaded, Report> {
        let mut unheeded = env::Unheeded::default();
        loop {
            let (tree, compat_env_used) = sources::overlay(self, &unheeded)?;
            let config = read::config(&tree, &self.env, &self.claims);
            kv::check(&tree, &config);
            let (values, report) = tree.into_results();
            let (errors, warnings) = report.split();
            if errors.is_empty() {
                return Ok(Loaded { config, values, warnings, compat_env_used });
            }
            if !unheeded.learn(&errors) {
                return Err(errors.with(warnings));
            }
        }
    }
}

fn emptied(before: &Text, now: Option<&Text>) -> Option<String> {
    let (said, _) = source::parse(before).ok().filter(|(said, _)| !said.is_nothing())?;
    let Some(file) = now else {
        return Some(format!("{} is not there any more; what it said stays in force", before.name));
    };
    let (says, _) = source::parse(file).ok()?; // what is wrong with it is told with its place
    if says.is_nothing() {
        return Some(format!(
            "{} says nothing: is it still being written? What it said before stays in force",
            file.name
        ));
    }
    let was_something = |path: &Vec<Step>| said.at(path).is_some_and(|value| !value.is_nothing());
    let key = says.empty_keys().chain(says.end()).find(was_something)?;
    let (key, help) = (show(&key), "to take it back leave the key out, or write `{}`");
    Some(format!("{}: `{key}` has nothing after it: is the file still being written? Else, {help}", file.name))
}

/// Somebody else's YAML, such as a compose file, with its anchors and merges resolved.
pub fn yaml(text: &Text) -> Result<Json, Report> {
    source::parse(text).map(|(value, _)| value.into_json()).map_err(|diagnostic| Report(vec![diagnostic]))
}

/// The JSON Schema (draft 2020-12) of the file, for editors.
pub fn json_schema() -> Json {
    read::described().into_schema()
}

/// The effective configuration as people read it, one value a line.
pub fn render(values: &[Effective], with_origins: bool) -> String {
    let mut text = String::new();
    let width = values.iter().map(|value| value.path.len() + value.value.len() + 2).max().unwrap_or(0).min(72);
    for value in values {
        let line = format!("{}: {}", plain::line(&value.path), plain::line(&value.value));
        let written =
            if with_origins { writeln!(text, "{line:width$}  # {}", value.origin) } else { writeln!(text, "{line}") };
        written.expect("writing to a string cannot fail");
    }
    text
}
