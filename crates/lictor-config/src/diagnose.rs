//! Mistakes, as people read them: what, where, the line itself, and what was probably meant.

use std::fmt::{self, Write};

use lictor_core::plain;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is taken, but.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a clause.
    pub message: String,
    /// The key, as `upstreams.user-service.listen`.
    pub path: String,
    /// Where it was written.
    pub place: Place,
    /// What to do.
    pub help: Option<String>,
}

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file; lines and columns count from 1.
    File {
        /// Its name.
        name: String,
        /// The line's number.
        line: usize,
        /// The column of the first character.
        column: usize,
        /// The line itself.
        source: String,
        /// How many characters are meant.
        width: usize,
    },
    /// In an environment variable.
    Env(String),
    /// On the command line.
    Flag,
    /// Nowhere: something is missing.
    Missing,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column, .. } => write!(f, "{name}:{line}:{column}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("command line"),
            Self::Missing => f.write_str("configuration"),
        }
    }
}

/// Mistakes, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(pub Vec<Diagnostic>);

impl Report {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each error in one line, without what was written: fit for a log, and for others to read.
    pub fn sentences(&self) -> Vec<String> {
        self.errors().map(Diagnostic::sentence).collect()
    }

    /// Without the warnings.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// As text, with colour if wanted.
    pub fn render(&self, colour: bool) -> String {
        let mut text = String::new();
        for diagnostic in &self.0 {
            diagnostic.render(&mut text, colour).expect("writing to a string cannot fail");
        }
        if let Some(summary) = self.summary() {
            text.push_str(&summary);
        }
        text
    }

    pub(crate) fn split(self) -> (Self, Self) {
        let (errors, warnings) = self.0.into_iter().partition(|it| it.severity == Severity::Error);
        (Self(errors), Self(warnings))
    }

    pub(crate) fn with(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    fn summary(&self) -> Option<String> {
        let errors = self.errors().count();
        let file = self.0.iter().find_map(|it| match &it.place {
            Place::File { name, .. } => Some(name.as_str()),
            _ => None,
        });
        let plural = if errors == 1 { "" } else { "s" };
        let place = file.unwrap_or("the configuration");
        (errors > 0).then(|| format!("lictor: {errors} error{plural} in {place}\n"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// Mistakes as they are found. Of each kind so many are kept, and the others counted: each holds a line, and a text may
/// have as many mistakes as it has letters.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

/// Of errors, and of warnings.
const KEPT_MAX: usize = 100;

impl Notes {
    /// Counts one, and says whether it is kept.
    pub(crate) fn takes(&mut self, severity: Severity) -> bool {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        *count <= KEPT_MAX
    }

    /// One that is kept.
    pub(crate) fn keep(&mut self, diagnostic: Diagnostic) {
        self.kept.push(diagnostic);
    }

    pub(crate) fn has_error_at(&self, path: &str) -> bool {
        self.kept.iter().any(|known| known.severity == Severity::Error && known.path == path)
    }

    /// In the order of their lines.
    pub(crate) fn into_report(self) -> Report {
        let Self { mut kept, errors, warnings } = self;
        kept.sort_by_key(|diagnostic| match diagnostic.place {
            Place::File { line, column, .. } => (line, column),
            _ => (0, 0),
        });
        for (severity, count, what) in
            [(Severity::Error, errors, "mistakes"), (Severity::Warning, warnings, "warnings")]
        {
            if let more @ 1.. = count.saturating_sub(KEPT_MAX) {
                let message = format!("{more} more {what} like these are not shown");
                kept.push(Diagnostic { severity, message, path: String::new(), place: Place::Missing, help: None });
            }
        }
        Report(kept)
    }
}

impl Diagnostic {
    /// In one line, without what was written.
    pub fn sentence(&self) -> String {
        let help = self.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        let path = if self.path.is_empty() { String::new() } else { format!(" {}:", self.path) };
        plain::line(&format!("{}:{path} {}{help}", self.place, self.message)).into_owned()
    }

    fn render(&self, out: &mut String, colour: bool) -> fmt::Result {
        let (word, shade) = match self.severity {
            Severity::Error => ("error", "31;1"),
            Severity::Warning => ("warning", "33;1"),
        };
        let paint = |text: &str, code: &str| {
            if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let place = plain::line(&self.place.to_string()).into_owned();
        let (path, help) = (plain::line(&self.path), plain::line(self.help.as_deref().unwrap_or("")));
        writeln!(out, "{}: {}", paint(word, shade), plain::line(&self.message))?;
        match &self.place {
            Place::File { line, column, source, width, .. } => {
                let gutter = line.to_string().len().max(3);
                let carets = paint(&"^".repeat((*width).max(1)), shade);
                writeln!(out, "{:gutter$}--> {place}   {path}", "")?;
                if source.is_empty() {
                    return if help.is_empty() { Ok(()) } else { writeln!(out, "{:gutter$} = {help}", "") };
                }
                writeln!(out, "{line:>gutter$} | {}", plain::line(&source.replace('\t', " ")))?;
                let line = format!("{:gutter$} | {:indent$}{carets} {help}", "", "", indent = column - 1);
                writeln!(out, "{}", line.trim_end())?;
            }
            _ => {
                writeln!(out, "   --> {place}   {path}")?;
                if !help.is_empty() {
                    writeln!(out, "    = {help}")?;
                }
            }
        }
        Ok(())
    }
}

/// What was probably meant.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // The distance is at least the difference in length, and costs the product of both.
    let may_be =
        |candidate: &&str| candidate.len().abs_diff(word.len()) <= (candidate.len().max(word.len()) / 3).max(1);
    candidates
        .into_iter()
        .filter(may_be)
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
