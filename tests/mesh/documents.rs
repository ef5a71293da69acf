//! Pages that repeat what the code says, held to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use lictor_core::Reason;
use lictor_core::outcome::Retryable;
use lictor_testkit::root;

use crate::LICTOR;

#[test]
fn every_reason_is_explained_as_it_is() {
    let page = std::fs::read_to_string(root().join("docs/failure-reasons.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let expected = Reason::ALL.map(|reason| {
        let retried = match reason.retryable() {
            Retryable::Never => "never",
            Retryable::IfIdempotent => "idempotent",
            Retryable::Always => "always",
        };
        let (status, grpc) = (reason.status().as_u16().to_string(), reason.grpc_status().to_string());
        let word = format!("`{reason}`");
        [word, status, grpc, reason.proxy_status().to_owned(), reason.envoy_flag().to_owned(), retried.to_owned()]
    });
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row.len(), 8, "{row:?}");
        assert_eq!(row[..6], expected[..]);
    }
    assert_eq!(rows.len(), Reason::ALL.len());
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for (page, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.starts_with("http") {
                continue;
            }
            let path = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(path.exists(), "{} links to {target}", page.display());
            if !anchor.is_empty() {
                assert!(anchors(&path).iter().any(|known| known == anchor), "{} links to {target}", page.display());
            }
        }
    }
}

#[test]
fn commands_and_flags_on_the_pages_exist() {
    let help = |words: &[&str]| {
        let output = Command::new(LICTOR).args(words).arg("--help").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = help(&[]);
    let mut seen = BTreeSet::new();
    for (page, line) in code() {
        let line = line.strip_prefix("$ ").unwrap_or(&line);
        let Some((before, line)) = line.split_once("lictor ") else { continue };
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        let is_call = before.is_empty() || before == "/" || before.ends_with(" /");
        if !is_call || !command.starts_with(|first: char| first.is_ascii_lowercase()) {
            continue;
        }
        assert!(commands.contains(&format!("\n  {command} ")), "{page}: there is no `lictor {command}`");
        let options = help(&[command]);
        let flags = words.take_while(|word| *word != "--").map(|word| word.trim_matches(['[', ']']));
        for flag in flags.filter(|word| word.starts_with("--")) {
            let named = options.split(|c: char| !(c.is_alphanumeric() || c == '-')).any(|word| word == flag);
            assert!(named, "{page}: `lictor {command}` has no {flag}");
        }
        seen.insert(command.to_owned());
    }
    assert!(seen.len() > 15, "{seen:?}");
}

#[test]
fn metrics_on_the_pages_exist() {
    let known = first_column("docs/metrics.md");
    let mut count = 0;
    for (page, text) in pages() {
        // Packages are files of another name: `lictor_0.1.0-1_amd64.deb`.
        let is_name =
            |word: &str| word.strip_prefix("lictor_").is_some_and(|rest| rest.starts_with(char::is_lowercase));
        for name in words(&text).filter(|word| is_name(word)) {
            // The crates' names in Rust are no metrics.
            if root().join("crates").join(name.replace('_', "-")).exists() {
                continue;
            }
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            assert!(known.contains(family.unwrap_or(name)), "{} names {name}", page.display());
            count += 1;
        }
    }
    assert!(count > 80, "{count}");
}

#[test]
fn keys_on_the_pages_exist() {
    let full = first_column("docs/configuration.md");
    // `retry.attempts` is what everybody says for `defaults.retry.attempts` and `upstreams.NAME.retry.attempts`.
    let places = ["upstreams.NAME.routes[].", "upstreams.NAME.", "gateway.routes[].", "gateway.", "defaults."];
    let rest_of = |key: &String| places.iter().find_map(|place| key.strip_prefix(place)).map(str::to_owned);
    let short = full.iter().filter_map(rest_of);
    let mut known: BTreeSet<String> = full.iter().cloned().chain(short).collect();
    known.insert("limits.http_max_conns_per_client".to_owned()); // Consul's
    let sections: BTreeSet<String> = known.iter().map(|key| section(key)).collect();
    let mut count = 0;
    // The reference names attributes of OpenTelemetry too, and is held to the schema by another check.
    for (page, span) in code().into_iter().filter(|(page, _)| !page.ends_with("docs/configuration.md")) {
        let key = span.split(':').next().unwrap_or_default();
        let is_key = key.contains('.') && key.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c));
        let is_file =
            [".rs", ".py", ".php", ".go", ".md", ".yaml", ".yml", ".json"].iter().any(|end| key.ends_with(end));
        if is_key && !is_file && sections.contains(&section(key)) {
            assert!(known.contains(key), "{page}: there is no key {key}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn runbooks_are_where_alerts_say() {
    let known = anchors(&root().join("docs/troubleshooting.md"));
    let rules = std::fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap();
    let named: Vec<&str> =
        rules.split("docs/troubleshooting.md#").skip(1).filter_map(|rest| rest.split(':').next()).collect();
    assert_eq!(named.len(), rules.matches("alert: Lictor").count());
    for anchor in named {
        assert!(known.iter().any(|known| known == anchor), "{anchor} is not one of {known:?}");
    }
}

/// Every page of the repository, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let (mut pages, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            let name = path.file_name().unwrap().to_string_lossy();
            if kind.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".md") {
                let text = std::fs::read_to_string(&path).unwrap();
                pages.push((path, text));
            }
        }
    }
    assert!(pages.len() > 20, "{pages:?}");
    pages
}

/// Lines of blocks, and spans between backquotes, with their page.
fn code() -> Vec<(String, String)> {
    let mut code = Vec::new();
    for (page, text) in pages() {
        let (page, mut is_block) = (page.display().to_string(), false);
        for line in text.lines() {
            if line.starts_with("```") {
                is_block = !is_block;
            } else if is_block {
                code.push((page.clone(), line.to_owned()));
            } else {
                code.extend(line.split('`').skip(1).step_by(2).map(|span| (page.clone(), span.to_owned())));
            }
        }
        assert!(!is_block, "{page} has a block without an end");
    }
    code
}

/// Runs of letters, digits and `_`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

/// The names in the first column of a page's tables.
fn first_column(page: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).map(str::to_owned).collect()
}

/// What a key begins with.
fn section(key: &str) -> String {
    key.split('.').next().unwrap_or_default().to_owned()
}

/// The headings of a page as links name them.
fn anchors(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.to_lowercase().replace(|c: char| !(c.is_alphanumeric() || " -_".contains(c)), "");
            kept.replace(' ', "-")
        })
        .collect()
}
