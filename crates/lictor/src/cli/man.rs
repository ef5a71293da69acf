//! `lictor man`: one page with every command, every key of the configuration and every variable.
//!
//! Nothing is said here that another place says too: commands come from clap, keys from the schema, variables from the
//! configuration's tables.

use clap::{Arg, Command};
use clap_mangen::roff::{Roff, bold, italic, roman};
use lictor_config::{json_schema, variables};
use serde_json::Value as Json;

/// Variables that stand for no key.
const OTHER_VARIABLES: [(&str, &str); 11] = [
    ("LICTOR_CONFIG", "The configuration file."),
    ("LICTOR_UPSTREAMS", "Upstreams and their ports: user-service:3001,product-service:3002."),
    ("LICTOR_<SECTION>_<KEY>", "Any key: LICTOR_DEFAULTS_TIMEOUT=5s."),
    ("LICTOR_ADDR", "Where the sidecar's admin listener is; set by `lictor run` for its application."),
    ("LICTOR_TOKEN", "building_blocks.token; set by `lictor run` for its application."),
    ("LICTOR_ADMIN_TOKEN", "admin.token, of the sidecar and for commands that ask one on another machine."),
    (
        "LICTOR_DEV",
        "1, yes or true, as --dev: this is a developer's machine, and a service_token out of a tutorial is accepted.",
    ),
    ("CONSUL_HOST, CONSUL_PORT", "The agent, as older services name it."),
    ("INTERNAL_SERVICE_TOKEN", "service_token, as older services name it."),
    ("TERMINATION_GRACE", "How long the orchestrator waits before SIGKILL; a warning if draining may take longer."),
    ("NO_COLOR", "Set, messages have no colours."),
];

const FILES: [(&str, &str); 2] = [
    ("./lictor.yaml, ./lictor.yml", "The configuration, when neither -c nor LICTOR_CONFIG says another."),
    ("/etc/lictor/lictor.yaml, /etc/lictor/lictor.yml", "The same, after those."),
];

const EXIT: [(&str, &str); 4] = [
    ("0", "It was done. For doctor: nothing to tell but notes."),
    ("1", "It could not be done. For doctor: warnings."),
    ("2", "The command line makes no sense. For doctor: errors."),
    (
        "the application's",
        "`lictor run` ends as its application does; 126 and 127 as a shell would when it cannot start.",
    ),
];

/// The page, in roff.
pub(super) fn man(command: &Command) -> String {
    let mut page = Roff::new();
    page.control("TH", ["LICTOR", "1", "", &format!("lictor {}", crate::version::NUMBER), "User Commands"]);
    section(&mut page, "NAME", "lictor - a sidecar proxy for services on Consul");
    section(&mut page, "SYNOPSIS", "lictor COMMAND [OPTIONS]");
    section(
        &mut page,
        "DESCRIPTION",
        "Stands beside a service, registers it in Consul, watches the health of what the service calls, and carries its \
         calls with load balancing, retries under a budget, circuit breakers, deadlines and trace propagation.",
    );
    page.control("SH", ["COMMANDS"]);
    for command in command.get_subcommands() {
        subcommand(&mut page, command);
    }
    section(
        &mut page,
        "CONFIGURATION",
        "YAML. Later ones win: the default, the file, the KV value, the environment, --set. NAME stands for a name of \
         yours, [] for each entry of a list.",
    );
    let mut rows = Vec::new();
    keys(&json_schema(), "", &mut rows);
    list(&mut page, rows.iter().map(|(key, about)| (key.as_str(), about.as_str())));
    page.control("SH", ["ENVIRONMENT"]);
    let variables: Vec<(&str, String)> =
        variables().into_iter().map(|(name, key)| (name, format!("The key {key}."))).collect();
    list(&mut page, variables.iter().map(|(name, about)| (*name, about.as_str())));
    list(&mut page, OTHER_VARIABLES);
    page.control("SH", ["FILES"]);
    list(&mut page, FILES);
    page.control("SH", ["EXIT STATUS"]);
    list(&mut page, EXIT);
    page.to_roff()
}

fn section(page: &mut Roff, title: &str, text: &str) {
    page.control("SH", [title]);
    page.text([roman(text)]);
}

fn list<'a>(page: &mut Roff, rows: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (word, about) in rows {
        page.control("TP", []);
        page.text([bold(word)]);
        page.text([roman(about)]);
    }
}

fn subcommand(page: &mut Roff, command: &Command) {
    let arguments: Vec<&Arg> = command.get_arguments().filter(|argument| !argument.is_hide_set()).collect();
    let places = arguments.iter().filter(|argument| argument.is_positional()).map(|argument| shown(argument));
    let places: Vec<String> = places.collect();
    page.control("SS", [command.get_name(), "[OPTIONS]"].into_iter().chain(places.iter().map(String::as_str)));
    page.text([roman(command.get_about().map(ToString::to_string).unwrap_or_default())]);
    for argument in arguments {
        page.control("TP", []);
        page.text([bold(shown(argument))]);
        let default: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let about = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let is_switch = default.is_empty() || !argument.get_action().takes_values();
        page.text([roman(about), italic(if is_switch { String::new() } else { format!(" [{}]", default.join(" ")) })]);
    }
    if let Some(more) = command.get_after_help() {
        page.control("PP", []);
        page.control("nf", []); // examples stand as they are
        page.text(more.to_string().lines().map(|line| roman(format!("{line}\n"))).collect::<Vec<_>>());
        page.control("fi", []);
    }
}

/// `-c, --config CONFIG`
fn shown(argument: &Arg) -> String {
    let value = || argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    if argument.is_positional() {
        return value().unwrap_or_else(|| argument.get_id().to_string().to_uppercase());
    }
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let value = value().filter(|_| argument.get_action().takes_values()).map(|value| format!(" {value}"));
    names.join(", ") + &value.unwrap_or_default()
}

/// Keys with what they mean and their default. An upstream's and a route's policy have the keys of `defaults`.
fn keys(node: &Json, path: &str, rows: &mut Vec<(String, String)>) {
    let named = node["properties"].as_object().into_iter().flatten().map(|(name, child)| (name.as_str(), child));
    let free = node["additionalProperties"].is_object().then_some(("NAME", &node["additionalProperties"]));
    let each = node["items"].is_object().then_some(("[]", &node["items"]));
    for (name, child) in named.chain(free).chain(each) {
        let here = match (path, name) {
            ("", name) => name.to_owned(),
            (path, "[]") => format!("{path}[]"),
            (path, name) => format!("{path}.{name}"),
        };
        let is_policy =
            path.starts_with("upstreams.") && rows.iter().any(|(key, _)| *key == format!("defaults.{name}"));
        let mut about = child["description"].as_str().unwrap_or_default().to_owned();
        match &child["default"] {
            Json::Null => (),
            Json::String(default) => about += &format!(" [{default}]"),
            default => about += &format!(" [{default}]"),
        }
        if is_policy {
            about += &format!(" See defaults.{name}.");
        }
        if !about.is_empty() {
            rows.push((here.clone(), about));
        }
        if !is_policy {
            keys(child, &here, rows);
        }
    }
}
