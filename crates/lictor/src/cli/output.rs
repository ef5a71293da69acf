//! How commands print: text for people, or JSON for programs.

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use crate::cli::print;

/// How to print.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct Output {
    /// How to print: text for people, or json for programs.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// The same as `-o json`.
    #[arg(long, hide = true, conflicts_with = "output")]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    #[default]
    Text,
    Json,
}

impl Output {
    pub(super) fn is_json(self) -> bool {
        self.json || self.output == Form::Json
    }

    /// Prints the page, or what it says in words.
    pub(super) fn print(self, page: &Json, words: impl FnOnce(&Json) -> String) {
        if self.is_json() { print_json(page) } else { print(&words(page)) }
    }
}

/// A page, as it is.
pub(super) fn print_json(page: &Json) {
    print(&format!("{page:#}\n"));
}
