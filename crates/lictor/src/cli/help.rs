//! What `--help` says besides what clap knows: the commands in groups, examples of each, and its exit codes.

use clap::Command;
use lictor_core::plain;

/// Commands by what they are for. A command that is in none of them fails a test.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Run", &["serve", "run", "wait", "health"]),
    ("Look", &["ps", "top", "endpoints", "events", "explain", "tap", "routes", "graph"]),
    ("Steer", &["drain", "undrain", "eject", "pin", "undo", "breaker", "maintenance", "reload", "log-level", "quit"]),
    ("Configure", &["init", "check", "doctor", "config", "diff", "push", "hash-key", "schema"]),
    ("Tools", &["completions", "man", "version"]),
];

/// Exit codes that most have.
const DONE: &str = "0 done; 1 not done: standard error says why; 2 the command line makes no sense";

/// Of a command: examples, and its exit codes.
const ABOUT: &[(&str, &[&str], &str)] = &[
    (
        "serve",
        &["lictor serve -c lictor.yaml", "LICTOR_UPSTREAMS=users:3001 lictor serve"],
        "0 stopped in order; 1 it could not start: standard error and the log say why",
    ),
    (
        "run",
        &["lictor run -- ./app --port 8080", "lictor run -c job.yaml --job -- ./report.sh"],
        "the application's, 128 + n where signal n ended it; 126 and 127 as a shell has them where it cannot start; 1 lictor could not start",
    ),
    (
        "wait",
        &["lictor wait && exec ./app", "lictor wait --for startup --timeout 10s"],
        "0 it is up; 1 it is not, in that time; 2 the command line makes no sense",
    ),
    ("health", &["lictor health"], "0 egress works; 1 it does not, or nobody answers"),
    (
        "check",
        &["lictor check", "lictor check -c order.yaml", "lictor check /etc/lictor", "cat order.yaml | lictor check -"],
        "0 all are good; 1 at least one is refused, or cannot be read; with --live as `lictor doctor`",
    ),
    ("doctor", &["lictor doctor", "lictor doctor -o json"], "0 nothing but notes; 1 warnings; 2 errors"),
    ("config", &["lictor config --origin", "lictor config --diff kv"], DONE),
    ("diff", &["lictor diff new.yaml"], DONE),
    (
        "explain",
        &[
            "lictor explain 5f2c71a09d4e",
            "lictor explain GET user-service /users/1",
            "lictor explain GET https://shop.example/api",
        ],
        DONE,
    ),
    ("endpoints", &["lictor endpoints", "lictor endpoints user-service -o json"], DONE),
    (
        "tap",
        &["lictor tap --status 5xx", "lictor tap --upstream user-service -o json --count 10", "lictor tap | head -1"],
        "0 so many were printed, or nobody reads any more; 1 the sidecar does not answer, or has ended",
    ),
    ("events", &["lictor events --since 10m", "lictor events -o json"], DONE),
    ("top", &["lictor top", "lictor top --once"], DONE),
    ("ps", &["lictor ps", "lictor ps -o json"], "0 also where none runs; 1 the machine does not say"),
    ("eject", &["lictor eject user-service-10-0-3-9-8001 --for 10m"], DONE),
    ("pin", &["lictor pin 10.0.3.9:8001 --upstream user-service"], DONE),
    ("undo", &["lictor undo user-service-10-0-3-9-8001"], DONE),
    ("breaker", &["lictor breaker open user-service --for 5m", "lictor breaker auto user-service"], DONE),
    (
        "push",
        &["lictor push new.yaml"],
        "0 written, or there already; 1 it is refused, or was changed by somebody else meanwhile",
    ),
    (
        "init",
        &["lictor init", "lictor init --from compose.yaml -o order.yaml", "lictor init --stdout"],
        "0 written; 1 it could not be, or a file is there already",
    ),
    ("graph", &["lictor graph", "lictor graph --dot"], DONE),
    ("routes", &["lictor routes"], DONE),
    ("maintenance", &["lictor maintenance on --for 30m", "lictor maintenance off"], DONE),
    ("drain", &["lictor drain"], "0 done; 1 the sidecar does not answer, or Consul could not be told yet"),
    ("undrain", &["lictor undrain"], "0 done; 1 the sidecar does not answer, or Consul could not be told yet"),
    ("reload", &["lictor reload"], "0 the new configuration is in force; 1 it is refused, and the old one stays"),
    ("log-level", &["lictor log-level debug", "lictor log-level info,lictor_consul=debug"], DONE),
    ("quit", &["lictor quit"], "0 it stops; 1 nobody answers, or it stops already"),
    ("hash-key", &["lictor hash-key --new", "lictor hash-key --password"], DONE),
    ("schema", &["lictor schema > lictor.schema.json"], DONE),
    ("completions", &["lictor completions bash > /etc/bash_completion.d/lictor"], DONE),
    ("man", &["lictor man > lictor.1"], DONE),
    ("version", &["lictor version"], DONE),
];

/// The same command with all of it.
pub(super) fn with_help(mut command: Command) -> Command {
    for (name, examples, codes) in ABOUT {
        let text = format!("Examples:\n{}\n\nExit codes: {codes}", lines(examples));
        if command.find_subcommand(name).is_some() {
            command = command.mut_subcommand(name, |command| command.after_help(text));
        }
    }
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{}\nOptions:\n{{options}}\n\n\
        `lictor COMMAND --help` has examples and exit codes, `lictor man` all of it.",
        groups(&command)
    );
    command.help_template(template)
}

fn lines(examples: &[&str]) -> String {
    examples.iter().map(|example| format!("  {example}")).collect::<Vec<_>>().join("\n")
}

fn groups(command: &Command) -> String {
    let known = |name: &str| command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
    let mut text = String::new();
    for &(title, names) in &GROUPS {
        text += &format!("\n{title}:\n");
        for &name in names {
            if let Some(about) = known(name) {
                text += &format!("  {name:<12} {}\n", plain::line(&about).trim_end_matches('.'));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Arguments;

    #[test]
    fn every_command_has_its_group_examples_and_exit_codes() {
        let command = Arguments::command();
        for name in command.get_subcommands().map(Command::get_name) {
            let groups = GROUPS.iter().filter(|(_, names)| names.contains(&name)).count();
            assert_eq!(groups, 1, "`{name}` is in one group");
            assert_eq!(ABOUT.iter().filter(|(known, ..)| *known == name).count(), 1, "`{name}` has examples");
        }
    }

    #[test]
    fn every_example_is_a_command_line() {
        for example in ABOUT.iter().flat_map(|(_, examples, _)| *examples) {
            let line = example.split(" | head").next().unwrap_or_default();
            let line = line.split(['>', '&']).next().unwrap_or_default();
            let words: Vec<&str> =
                line.split(' ').skip_while(|word| *word != "lictor").filter(|word| !word.is_empty()).collect();
            Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }
}
