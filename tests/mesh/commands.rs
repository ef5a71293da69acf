//! Commands that print something for another program, given to that program.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::LICTOR;

fn lictor(words: &[&str]) -> String {
    let output = Command::new(LICTOR).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a program says of a text on its standard input; panics unless it likes it.
fn piped(program: &str, words: &[&str], text: &str) -> String {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    process.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_commands_and_options() {
    let script = lictor(&["completions", "bash"]);
    piped("bash", &["-n"], &script);
    let completed = |line: &[&str]| {
        let words = line.join(" ");
        let ask = format!(
            "{script}\nCOMP_WORDS=({words} '')\nCOMP_CWORD={}\n_lictor lictor '' ''\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            line.len()
        );
        piped("bash", &["--norc"], &ask)
    };
    let commands = completed(&["lictor"]);
    assert!(
        ["run", "serve", "check", "config"].iter().all(|name| commands.lines().any(|line| line == *name)),
        "{commands}"
    );
    let options = completed(&["lictor", "push"]);
    assert!(options.lines().any(|line| line == "--force"), "{options}");
}

#[test]
fn every_shell_gets_a_script_that_names_every_command() {
    let help = lictor(&["help"]);
    let is_title = |line: &&str| line.ends_with(':') && !line.starts_with([' ', 'O']);
    let titles: Vec<&str> = help.lines().filter(is_title).collect();
    assert_eq!(titles, ["Run:", "Look:", "Steer:", "Configure:", "Tools:"]);
    let names: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Run:")
        .take_while(|line| *line != "Options:")
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .collect();
    assert!(names.len() > 10, "{help}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = lictor(&["completions", shell]);
        for name in &names {
            assert!(script.contains(name), "{shell} does not know `{name}`");
        }
    }
}

#[test]
fn the_manual_has_every_command_key_and_variable() {
    let page = lictor(&["man"]);
    for title in ["NAME", "SYNOPSIS", "COMMANDS", "CONFIGURATION", "ENVIRONMENT", "FILES", "EXIT STATUS"] {
        assert!(page.contains(&format!(".SH {title}")) || page.contains(&format!(".SH \"{title}\"")), "no {title}");
    }
    let plain = page.replace('\\', "");
    for word in ["lifecycle.drain_delay", "upstreams.NAME.query", "CONSUL_HTTP_ADDR", "LICTOR_UPSTREAMS", "--force"] {
        assert!(plain.contains(word), "no {word}");
    }
}

#[test]
fn the_version_names_the_commit() {
    let version = lictor(&["--version"]);
    let commit = version.trim().strip_prefix(concat!("lictor ", env!("CARGO_PKG_VERSION"), " (")).unwrap();
    let commit = commit.strip_suffix(')').unwrap();
    assert!(commit.len() >= 7 || commit == "unknown", "{version}");
    assert_eq!(lictor(&["version"]), version);
}
