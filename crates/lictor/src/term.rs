//! Text for people: colours where there is a terminal that has them, and tables.

use std::io::IsTerminal;

use lictor_core::plain;
use serde_json::Value as Json;

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    is_on: bool,
}

impl Paint {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    /// None in a pipe, nor with `NO_COLOR` (no-color.org), nor on a terminal that has none.
    fn of(stream: &impl IsTerminal) -> Self {
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let has_some = std::env::var_os("TERM").is_none_or(|name| name != "dumb");
        Self { is_on: is_wanted && has_some && stream.is_terminal() }
    }

    pub(crate) fn is_on(self) -> bool {
        self.is_on
    }

    /// For what is no terminal.
    pub(crate) const fn none() -> Self {
        Self { is_on: false }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// What to look at, and what has not failed.
    pub(crate) fn caution(self, text: &str) -> String {
        self.with("33", text)
    }

    /// By whether it went well.
    pub(crate) fn verdict(self, text: &str, is_good: bool) -> String {
        self.with(if is_good { "32" } else { "31" }, text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A page as it may be shown: what others have named or said is one line, and nothing but seen.
pub(crate) fn shown(page: &Json) -> Json {
    match page {
        Json::String(text) => Json::String(plain::line(text).into_owned()),
        Json::Array(values) => values.iter().map(shown).collect(),
        Json::Object(entries) => {
            Json::Object(entries.iter().map(|(key, value)| (plain::line(key).into_owned(), shown(value))).collect())
        }
        other => other.clone(),
    }
}

/// Columns as wide as they need to be; the first row is the heads. The last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| visible(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            line += " ";
            line += cell;
            line += &" ".repeat(width - visible(cell) + 1);
        }
        text += line.trim_end();
        text += "\n";
    }
    text
}

/// `1.2 ms`, `120 ms`, `12.3 s`, `5m`
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms if ms < 100_000.0 => format!("{:.1} s", ms / 1e3),
        ms => humantime::format_duration(std::time::Duration::from_secs((ms / 1e3).round() as u64)).to_string(),
    }
}

/// How bad an endpoint's state is: the worst has the least, so that it comes first.
pub(crate) fn rank(state: &str) -> u8 {
    match state {
        "failing" | "ejected" => 0,
        "healthy" => 2,
        _ => 1,
    }
}

/// `503, 1.2 s ago`
pub(crate) fn failure(cause: &str, ago_ms: f64) -> String {
    format!("{cause}, {} ago", millis(if ago_ms < 1e5 { ago_ms } else { (ago_ms / 6e4).round() * 6e4 }))
}

/// Characters that are seen.
fn visible(text: &str) -> usize {
    let mut is_hidden = false;
    let seen = text.chars().filter(|character| {
        let was_hidden = is_hidden || *character == '\x1b';
        is_hidden = was_hidden && *character != 'm';
        !was_hidden
    });
    seen.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_long_as_they_need_to_be() {
        let times = [0.15, 12.4, 999.6, 12_345.0, 299_999.0].map(millis);
        assert_eq!(times, ["0.1 ms", "12 ms", "1000 ms", "12.3 s", "5m"]);
    }

    #[test]
    fn columns_line_up_with_colours_and_without() {
        let rows = |paint: Paint| {
            let row = |cells: [&str; 2]| vec![paint.verdict(cells[0], true), cells[1].to_owned()];
            table(&[row(["a", "b"]), row(["long", "c"]), row(["é", "d"])])
        };
        assert_eq!(rows(Paint { is_on: false }), "  a     b\n  long  c\n  é     d\n");
        let painted = rows(Paint { is_on: true });
        assert!(painted.starts_with("  \x1b[32ma\x1b[0m     b\n"), "{painted:?}");
    }
}
