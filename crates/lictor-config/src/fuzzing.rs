//! The laws that fuzzing tries to break: each function takes any bytes, and panics when one does not hold. `fuzz/` runs
//! them on new inputs, and the tests here on those that are kept in `fuzz/corpus`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::{Config, Environment, Loaded, Place, Report, Sources, Text, bounds, changes, load, render, yaml};

/// A YAML key without a question mark is not longer (YAML 1.2.2, section 7.4.2), so JSON with longer ones is no YAML.
const KEY_MAX: usize = 160;

/// A file loads or is refused with places that are in it; what loads says the same when it is read again, also after
/// it was written as JSON.
pub fn config(bytes: &[u8]) {
    let Some(text) = text("lictor.yaml", bytes) else { return };
    let result = load(Some(&text), &environment(), &[]);
    places(&text, &result);
    let json = yaml(&text).ok();
    assert!(json.as_ref().is_none_or(|json| depth(json) <= bounds::DEPTH_MAX), "deeper than the bound");
    let as_json = json.and_then(|json| written(&json));
    match (&result, load(Some(&text), &environment(), &[])) {
        (Ok(first), Ok(again)) => assert_eq!(first.values, again.values),
        (Err(first), Err(again)) => assert_eq!(first, &again),
        _ => panic!("the same text loads and is refused"),
    }
    let Some(json) = as_json else { return };
    match (result, load(Some(&json), &environment(), &[])) {
        (Ok(from_yaml), Ok(from_json)) => {
            assert_eq!(values(&from_yaml), values(&from_json));
            assert!(changes(&from_yaml.values, &from_json.values).is_empty());
            assert!(render(&from_yaml.values, true).lines().count() >= from_yaml.values.len());
        }
        (Err(from_yaml), Err(from_json)) => {
            assert_eq!(from_yaml.errors().count(), from_json.errors().count(), "{from_yaml}\n{from_json}");
        }
        (Ok(_), Err(report)) => panic!("{}\nloads as YAML and not as JSON: {report}", json.text),
        (Err(report), Ok(_)) => panic!("{}\nloads as JSON and not as YAML: {report}", json.text),
    }
}

/// Whoever writes the KV key tunes how services are called, and nothing else.
pub fn kv_overlay(bytes: &[u8]) {
    const FILE: &str = "\
service: orders
port: 8082
check: /health
service_token: s3cret
inbound: {listen: 0.0.0.0:18082}
upstreams:
  users: {listen: 3001, headers: {set: {x-key: s3cret}}}
  legacy: {listen: 3002, static: [10.0.0.7:80]}
";
    let Some(kv) = text("kv:lictor/orders", bytes) else { return };
    let file = Text { name: "lictor.yaml".to_owned(), text: FILE.to_owned() };
    let sources = Sources { file: Some(file), env: environment(), ..Sources::default() };
    let before = sources.load().expect("the file is valid").config;
    let result = Sources { kv: Some(kv.clone()), ..sources }.load();
    places(&kv, &result);
    let Ok(Loaded { config: after, .. }) = result else { return };
    assert_eq!(identity(&before), identity(&after));
    assert_eq!((&before.consul, &before.admin, &before.app), (&after.consul, &after.admin, &after.app));
    assert_eq!(before.building_blocks, after.building_blocks);
    let tokens =
        |config: &Config| config.inbound.as_ref().map(|inbound| (inbound.listen.clone(), inbound.tokens.clone()));
    assert_eq!(tokens(&before), tokens(&after));
    assert_eq!(before.server_tls().chain(after.server_tls()).count() + after.client_tls().count(), 0, "TLS from KV");
    let known: Vec<_> = before.upstreams.iter().filter_map(|upstream| upstream.listen.as_ref()).collect();
    let listens = after.upstreams.iter().filter_map(|upstream| upstream.listen.as_ref()).chain(&after.outbound.proxy);
    for listen in listens.filter(|listen| !known.contains(listen)) {
        let address = listen.address.tcp().expect("KV listens on a Unix socket");
        assert!(address.ip().is_loopback() && !(1..1024).contains(&address.port()), "KV listens on {address}");
    }
    for upstream in &after.upstreams {
        let has_secret = upstream.set_headers.iter().any(|(_, value)| value == "s3cret");
        let old = before.upstreams.iter().find(|old| old.name == upstream.name);
        assert!(old.is_none_or(|old| old.source == upstream.source), "KV chooses whom the file's upstreams lead to");
        assert!(old.is_some() || !has_secret, "an upstream of KV's own has a secret of the file's");
    }
}

/// Who we are, as Consul hears it.
fn identity(config: &Config) -> impl PartialEq + std::fmt::Debug + use<> {
    (config.service.clone(), config.registration.clone(), config.workers, config.trace.otlp.clone())
}

/// Without what would read this machine's files.
fn text(name: &str, bytes: &[u8]) -> Option<Text> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains("file"))?;
    Some(Text { name: name.to_owned(), text: text.to_owned() })
}

fn environment() -> Environment {
    let vars = [("REGION", "eu"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    Environment { vars: vars.into(), hostname: "host-1".to_owned() }
}

fn values(loaded: &Loaded) -> BTreeMap<&str, &str> {
    loaded.values.iter().map(|value| (value.path.as_str(), value.value.as_str())).collect()
}

/// Every message shows a line that is in its text, values veiled, and can be printed.
fn places(text: &Text, result: &Result<Loaded, Report>) {
    let report = match result {
        Ok(loaded) => &loaded.warnings,
        Err(report) => report,
    };
    assert!(result.is_ok() || report.errors().next().is_some(), "refused without a reason");
    for diagnostic in &report.0 {
        assert!(!diagnostic.message.is_empty());
        if let Place::File { name, line, column, source, .. } = &diagnostic.place
            && *name == text.name
        {
            let shown = text.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            let is_shown = source.is_empty()
                || shown.chars().count() == source.chars().count()
                    && shown.chars().zip(source.chars()).all(|(there, here)| there == here || here == '*');
            assert!(*line >= 1 && *column >= 1 && is_shown, "{diagnostic:?}");
        }
    }
    let _ = (report.render(true), report.sentences());
}

/// As JSON whose strings are YAML's too: both can be escaped in a way that the other does not know.
fn written(json: &Json) -> Option<Text> {
    if !has_short_keys(json) {
        return None;
    }
    let mut text = String::new();
    for c in json.to_string().chars() {
        match u32::from(c) {
            0x20..0x7f => text.push(c),
            code @ 0..=0xffff => text.push_str(&format!("\\u{code:04x}")),
            code => text.push_str(&format!("\\U{code:08x}")),
        }
    }
    Some(Text { name: "lictor.json".to_owned(), text })
}

fn depth(json: &Json) -> usize {
    match json {
        Json::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or_default(),
        Json::Array(values) => 1 + values.iter().map(depth).max().unwrap_or_default(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 0,
    }
}

fn has_short_keys(json: &Json) -> bool {
    match json {
        Json::Object(entries) => entries.iter().all(|(key, value)| key.len() <= KEY_MAX && has_short_keys(value)),
        Json::Array(values) => values.iter().all(has_short_keys),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => true,
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;
    use super::*;

    #[test]
    fn every_kept_input_keeps_the_laws() {
        replay("config", config);
        replay("kv_overlay", kv_overlay);
    }
}
