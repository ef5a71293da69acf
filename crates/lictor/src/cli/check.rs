//! `lictor check`: is this configuration good? Or these: files, all of a folder, standard input.

use std::path::{Path, PathBuf};

use anyhow::Context;
use lictor_config::{Diagnostic, Loaded, Place, Report, Severity};
use lictor_core::plain;
use serde_json::{Value as Json, json};

use crate::cli::output::{Output, print_json};
use crate::cli::{print, render_report, say};
use crate::configured::{Configured, STDIN};
use crate::otlp;

/// As many files of a folder are checked.
const FILES_MAX: usize = 1000;

/// What there is to say of one configuration.
struct Verdict {
    source: String,
    /// Mistakes and warnings.
    said: Report,
    /// What is no matter of a place in the file.
    notes: Vec<String>,
    /// Who it is for, and how many upstreams it has; or why it is refused.
    found: anyhow::Result<(String, usize)>,
}

/// Of the one that would be used, or of each of these.
pub(super) fn check(paths: &[PathBuf], output: Output, configured: &Configured) -> anyhow::Result<u8> {
    let verdicts = match paths {
        [] => vec![verdict(configured)],
        paths => {
            let mut verdicts = Vec::new();
            for path in paths {
                verdicts.extend(of(path, configured)?);
            }
            verdicts
        }
    };
    let is_good = verdicts.iter().all(|verdict| verdict.found.is_ok());
    if output.is_json() {
        print_json(&json!({ "good": is_good, "files": verdicts.iter().map(Verdict::page).collect::<Vec<_>>() }));
    } else {
        for verdict in &verdicts {
            verdict.tell(paths.len() <= 1 && verdicts.len() == 1);
        }
    }
    Ok(u8::from(!is_good))
}

/// Of a file, of standard input, or of all in a folder.
fn of(path: &Path, configured: &Configured) -> anyhow::Result<Vec<Verdict>> {
    if path == Path::new("-") {
        return Ok(vec![verdict(&configured.with(Path::new(STDIN)))]);
    }
    if !path.is_dir() {
        return Ok(vec![verdict(&configured.with(path))]);
    }
    let files = files(path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(!files.is_empty(), "there is no .yaml and no .yml file in {}", path.display());
    anyhow::ensure!(files.len() <= FILES_MAX, "there are more than {FILES_MAX} files in {}", path.display());
    // What is beside a file for one environment (`lictor.production.yaml`) means something only with it.
    let beside = |file: &Path| base(file).filter(|base| files.contains(base));
    let each = files.iter().map(|file| match beside(file) {
        Some(base) => verdict(&configured.with(&base).staged_with(file)),
        None => verdict(&configured.with(file)),
    });
    Ok(each.collect())
}

/// In the order of their names; not of folders below.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_yaml = path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml");
        if is_yaml && path.is_file() && files.len() <= FILES_MAX {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `lictor.yaml` of `lictor.production.yaml`
fn base(file: &Path) -> Option<PathBuf> {
    let (stem, _) = file.file_stem()?.to_str()?.rsplit_once('.')?;
    Some(file.with_file_name(format!("{stem}.{}", file.extension()?.to_str()?)))
}

fn verdict(configured: &Configured) -> Verdict {
    let source = configured.source().replace(STDIN, "standard input");
    let (mut notes, mut said) = (Vec::new(), Report::default());
    let loaded = configured.sources().and_then(|sources| {
        for text in sources.file.iter().chain(&sources.staged).filter(|text| is_empty(&text.text)) {
            notes.push(format!("{} is empty: what counts is the environment, and defaults", text.name));
        }
        Ok(sources.load()?)
    });
    let found = loaded.and_then(|loaded| judge(loaded, &mut notes, &mut said));
    let found = found.map_err(|error| match error.downcast::<Report>() {
        Ok(report) => {
            said.0.extend(report.0);
            anyhow::Error::msg("it is refused")
        }
        Err(error) => error,
    });
    Verdict { source, said, notes, found }
}

fn judge(loaded: Loaded, notes: &mut Vec<String>, said: &mut Report) -> anyhow::Result<(String, usize)> {
    *said = loaded.warnings;
    notes.extend(loaded.config.trace.otlp.as_ref().and_then(otlp::complaint));
    let config = loaded.config;
    lictor_tls::check(config.server_tls(), config.client_tls())?;
    let who = config.service.unwrap_or_else(|| "a caller without a service".to_owned());
    Ok((who, config.upstreams.len()))
}

/// Nothing but comments, as a file that was not written yet.
fn is_empty(text: &str) -> bool {
    let lines = text.lines().map(str::trim);
    lines.into_iter().all(|line| line.is_empty() || line.starts_with('#') || matches!(line, "---" | "..."))
}

impl Verdict {
    /// A program that waits for one word of one configuration has it in the exit code.
    fn tell(&self, is_alone: bool) {
        for note in &self.notes {
            tell(&format!("warning: {note}"));
        }
        if !self.said.is_empty() {
            tell(&render_report(&self.said));
        }
        match &self.found {
            Ok((who, count)) => {
                let plural = if *count == 1 { "" } else { "s" };
                print(&format!("ok: {who}, {count} upstream{plural}, from {}\n", self.source));
            }
            Err(error) => {
                let is_said = self.said.errors().next().is_some();
                if !is_said {
                    tell(&format!("lictor: {}", plain::line(&format!("{error:#}"))));
                }
                if !is_alone {
                    print(&format!("refused: {}\n", self.source));
                }
            }
        }
    }

    fn page(&self) -> Json {
        let (service, upstreams) = self.found.as_ref().map_or((None, None), |(who, count)| (Some(who), Some(count)));
        let other = self.found.as_ref().err().filter(|_| self.said.errors().next().is_none());
        json!({
            "source": self.source,
            "good": self.found.is_ok(),
            "service": service,
            "upstreams": upstreams,
            "error": other.map(|error| format!("{error:#}")),
            "warnings": self.notes,
            "findings": self.said.0.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

fn finding(found: &Diagnostic) -> Json {
    let (line, column) = match &found.place {
        Place::File { line, column, .. } => (Some(line), Some(column)),
        Place::Env(_) | Place::Flag | Place::Missing => (None, None),
    };
    json!({
        "severity": if found.severity == Severity::Error { "error" } else { "warning" },
        "key": found.path,
        "message": found.message,
        "help": found.help,
        "place": found.place.to_string(),
        "line": line,
        "column": column,
    })
}

fn tell(text: &str) {
    say(&plain::painted(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_one_without_a_key() {
        for (text, expected) in
            [("", true), ("# soon\n\n---\n", true), ("service: a", false), ("{}\n", false), ("---\na: b\n", false)]
        {
            assert_eq!(is_empty(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_beside_a_file_is_known_by_its_name() {
        let below = |file: &str| base(Path::new(file)).map(|path| path.display().to_string());
        assert_eq!(below("/etc/a.production.yaml").as_deref(), Some("/etc/a.yaml"));
        assert_eq!(below("/etc/a.yaml"), None);
    }
}
