//! `lictor completions`: a script for a shell.

use clap_complete::{Shell, generate};

/// The script.
pub(super) fn completions(mut command: clap::Command, shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut command, "lictor", &mut script);
    String::from_utf8(script).expect("it is made of our own words")
}
