//! Secrets are in nothing that the sidecar writes: a canary is put where one may be, and what comes out is searched for it.

use std::process::Command;

use lictor_testkit::lictor;

/// What is looked for.
const CANARY: &str = "canary-7f3a";

/// Panics with what surrounds a secret, if there is one.
fn assert_clean(what: &str, text: &str, secrets: &[&str]) {
    for secret in secrets {
        if let Some(at) = text.find(secret) {
            let around: String = text[at.saturating_sub(200)..].chars().take(300).collect();
            panic!("{what} has {secret}: ...{around}");
        }
    }
}

#[test]
fn a_mistake_beside_a_secret_does_not_show_it() {
    let file = std::env::temp_dir().join(format!("lictor-secrets-{}.yaml", std::process::id()));
    let mistakes = [
        "service: orders\nconsul: {token: CANARY, adress: x}\n",
        "service: orders\nconsul: {adress: x, token: CANARY}\n",
        "service: orders\nconsul:\n  token: [CANARY]\n",
        "service: orders\nconsul:\n  token: {a: CANARY}\n",
        "service: orders\nconsul: {http_auth: CANARY}\n",
        "service: orders\nconsul: {http_auth: 'me:CANARY', x: 1}\n",
        "service: orders\nconsul: {address: 'http://me:CANARY@consul:8500'}\n",
        "service: orders\nservice_token: {a: CANARY}\n",
        "service: orders\nservice_token: [CANARY, CANARY2, CANARY3]\n",
        "service: orders\nservice_token: \"CANARY\n",
        "service: orders\nupstreams: {users: {listen: 1x, headers: {set: {X-Key: CANARY}}}}\n",
        "service: orders\nupstreams:\n  users:\n    headers: {set: {'X Key': CANARY}}\n",
        "service: orders\nupstreams:\n  users:\n    headers: {set: {X-Key: [CANARY]}}\n",
        "service: orders\ntrace: {otlp: 'http://me:CANARY@otel:4318', headers: {a: CANARY}, x: 1}\n",
        "service: orders\nconsul: {token: 'CANARY\n",
        "service: orders\nconsul: {token: CANARY}}\n",
    ];
    for mistake in mistakes {
        std::fs::write(&file, mistake.replace("CANARY", CANARY)).unwrap();
        let output = Command::new(lictor()).args(["check", "-c"]).arg(&file).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() || !said.contains("error"), "{mistake}: {said}");
        assert_clean(mistake, &said, &[CANARY]);
    }
    for (name, value) in
        [("CONSUL_HTTP_TOKEN", CANARY), ("CONSUL_HTTP_AUTH", CANARY), ("CONSUL_HTTP_ADDR", "http://me:canary-7f3a@c:x")]
    {
        std::fs::write(&file, "service: orders\nnonsense: 1\n").unwrap();
        let output =
            Command::new(lictor()).args(["check", "-c"]).arg(&file).env_clear().env(name, value).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("nonsense"), "{said}");
        assert_clean(name, &said, &[CANARY]);
    }
    std::fs::remove_file(file).unwrap();
}
