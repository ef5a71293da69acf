//! Secrets are in nothing that the sidecar writes: a canary is put where one may be, and what comes out is searched for it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use lictor_testkit::{
    Answer, Authority, Backend, Consul, MANAGEMENT, RawServer, Sidecar, assert_clean, eventually_is, exchange,
    free_ports, lictor, listen, pages, receiver, request,
};
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// What is looked for.
const CANARY: &str = "canary-7f3a";

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
        "service: orders\nconsul: {address: 'me:CANARY@consul'}\n",
        "service: orders\nadmin: {token: CANARY}\n",
        "service: orders\nadmin: {token: 'CANARY with spaces'}\n",
        "service: orders\nmetrics: {merge_app: 'http://me:CANARY@127.0.0.1:80'}\n",
        "service: orders\nmetrics: {merge_app: 'me:CANARY@127.0.0.1:80'}\n",
        "service: orders\ntrace: {otlp: 'me:CANARY@otel:4318'}\n",
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

/// Where the Consul token comes from.
#[derive(Clone, Copy, Debug)]
enum TokenFrom {
    Key,
    Variable,
    File,
}

/// Secrets that a configuration holds, but for the Consul token (`MANAGEMENT`) and the key of a certificate.
const HELD: [&str; 9] = [
    "canary-admin-0123456789",
    "canary-service-one",
    "canary-service-two",
    "canary-set-header",
    "canary-export-header",
    "canary-consul-password",
    "canary-variable",
    "canary-kv-header",
    "canary-refused",
];
/// Secrets that clients and instances send.
const SENT: [&str; 12] = [
    "canary-bearer",
    "canary-cookie",
    "canary-query",
    "canary-proxy-password",
    "canary-api-key",
    "canary-referer",
    "canary-target-user",
    "canary-host-user",
    "canary-connect-user",
    "canary-set-cookie",
    "canary-location",
    "canary-guess",
];

/// A sidecar that holds every secret there is, between an instance and a receiver of spans.
struct Holder {
    consul: Consul,
    /// They end when they are dropped.
    _kept: (Authority, RawServer, Backend, RawServer),
    exported: Arc<Mutex<Vec<u8>>>,
    key: String,
    env: Vec<(&'static str, String)>,
    snapshot: PathBuf,
    lictor: Sidecar,
}

impl Holder {
    fn new(from: TokenFrom) -> Self {
        let (consul, authority, app) = (Consul::with_acls(), Authority::new(), Backend::start("app"));
        let answer = "HTTP/1.1 503 Service Unavailable\r\nSet-Cookie: id=canary-set-cookie\r\n\
                      Location: https://me:canary-location@users/?code=canary-location\r\nContent-Length: 0\r\n\r\n";
        let instance = RawServer::answering(answer);
        consul.register("users", "users-1", instance.port());
        let kv = b"upstreams: {users: {timeout: 5s, headers: {set: {X-Kv: canary-kv-header}}}}\n";
        assert_eq!(ask_consul(&consul, "PUT", "/v1/kv/lictor/orders/config", kv).status, 200);
        let pair = authority.issue("server", &["127.0.0.1"]);
        let pem = std::fs::read_to_string(&pair.key).unwrap();
        let key = pem.lines().nth(1).unwrap().to_owned();
        let (exported, receiver) = receiver();
        let file = std::env::temp_dir().join(format!("lictor-token-{}-{from:?}", std::process::id()));
        std::fs::write(&file, MANAGEMENT).unwrap();
        let token = match from {
            TokenFrom::Key => format!("token: {MANAGEMENT}, "),
            TokenFrom::Variable => String::new(),
            TokenFrom::File => format!("token_file: {}, ", file.display()),
        };
        let yaml = format!(
            "service: orders
port: {}
check: /health
log: {{level: trace}}
admin: {{token: canary-admin-0123456789}}
service_token: [canary-service-one, canary-service-two]
inbound: {{listen: {{address: '127.0.0.1:{}', tls: {{cert: {}, key: {}}}}}}}
outbound: {{proxy: '127.0.0.1:0'}}
consul: {{{token}http_auth: 'me:canary-consul-password', address: '{}', kv: true}}
trace: {{otlp: 'http://127.0.0.1:{}', sample: 100%, headers: {{authorization: canary-export-header}}}}
lifecycle: {{drain_delay: 0s}}
upstreams:
  users:
    listen: 0
    retry: off
    headers: {{set: {{X-Key: canary-set-header, X-Other: '${{CANARY_VARIABLE}}'}}}}
",
            app.port(),
            free_ports::<1>()[0],
            pair.cert.display(),
            pair.key.display(),
            consul.url(),
            receiver.port()
        );
        let snapshot = file.with_extension("snapshot");
        let mut env = vec![
            ("CANARY_VARIABLE", "canary-variable".to_owned()),
            ("LICTOR_CONSUL_SNAPSHOT_PATH", snapshot.display().to_string()),
        ];
        if matches!(from, TokenFrom::Variable) {
            env.push(("CONSUL_HTTP_TOKEN", MANAGEMENT.to_owned()));
        }
        let plain: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let lictor = Sidecar::start(lictor(), &yaml, &plain, &["serve"], &[]).up();
        lictor.await_endpoints("users", 1);
        eventually_is("it is registered", || consul.passing("orders").len(), |count| *count == 1);
        let kept = (authority, instance, app, receiver);
        Self { consul, _kept: kept, exported, key, env, snapshot, lictor }
    }

    fn secrets(&self) -> Vec<&str> {
        HELD.into_iter().chain(SENT).chain([MANAGEMENT, self.key.as_str()]).collect()
    }

    /// Requests with secrets everywhere, to each listener, good and bad.
    fn call(&self) {
        let fields = "Authorization: Bearer canary-bearer\r\nCookie: id=canary-cookie\r\nX-API-Key: canary-api-key\r\n\
                      Proxy-Authorization: Basic canary-proxy-password\r\nX-Service-Auth: canary-guess\r\n\
                      Referer: http://me:canary-referer@a/?x=canary-referer\r\nX-Request-ID: canary-story\r\n\
                      traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nConnection: close\r\n\r\n";
        let ask = |listener: &str, line: &str, host: &str| {
            let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}");
            exchange(&self.lictor.address(listener), request.as_bytes()).map_or(0, |answer| answer.status)
        };
        assert_eq!(ask("users", "GET /orders?token=canary-query", "users"), 503);
        assert_eq!(ask("forward", "GET http://users/orders?token=canary-query", "users"), 503);
        assert_eq!(ask("forward", "GET http://me:canary-target-user@users/", "users"), 400);
        assert_eq!(ask("forward", "CONNECT me:canary-connect-user@users:80", "users"), 400);
        assert_eq!(ask("users", "GET /", "me:canary-host-user@users"), 400);
        assert_eq!(ask("forward", "GET /", "me:canary-host-user@users"), 400);
        assert_eq!(ask("forward", "GET http://nobody/?token=canary-query", "nobody"), 502);
        let _ = ask("inbound", "GET /?token=canary-query", "orders"); // not TLS: it is closed
    }

    /// A command's output, with the sidecar's own variables.
    fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(lictor());
        command.args(arguments).arg("-c").arg(self.lictor.file()).env_clear().envs(self.env.iter().cloned());
        let output = command.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

fn ask_consul(consul: &Consul, method: &str, path: &str, body: &[u8]) -> Answer {
    request(&consul.address(), method, path, &[("X-Consul-Token", MANAGEMENT)], body).unwrap()
}

#[test]
fn no_secret_is_in_anything_that_it_writes() {
    for from in [TokenFrom::Key, TokenFrom::Variable, TokenFrom::File] {
        let mut holder = Holder::new(from);
        let streams = ["/tap", "/events", "/ui/live"].map(|page| (page, listen(&holder.lictor, page)));
        holder.call();
        let tap = &streams[0].1;
        // The last of its requests: what came before has been told.
        eventually_is("the tap has told", || tap.lock().contains("unknown_upstream"), |has_told| *has_told);
        assert!(tap.lock().contains("\"***\""), "secrets were there: {}", tap.lock());
        eventually_is("spans are exported", || holder.exported.lock().len(), |count| *count > 1000);

        // A reload that works, and one that does not.
        let yaml = std::fs::read_to_string(holder.lictor.file()).unwrap();
        holder.lictor.rewrite(&yaml.replace("canary-set-header", "canary-set-header-2"));
        assert_eq!(holder.lictor.post("/reload").status, 200);
        holder.lictor.rewrite(&yaml.replace("canary-admin-0123456789", "canary-refused with a space"));
        let refused = holder.lictor.post("/reload");
        assert_eq!(refused.status, 422, "{}", refused.text());
        let mut outputs = vec![("the refusal of a reload".to_owned(), refused.text())];
        holder.lictor.rewrite(&yaml);

        outputs.extend(pages(&holder.lictor, &PAGES.map(str::to_owned)));
        outputs.extend(streams.iter().map(|(page, said)| ((*page).to_owned(), said.lock().clone())));
        outputs.extend(commands(&holder));
        let spans = String::from_utf8_lossy(&holder.exported.lock()).into_owned();
        outputs.push(("spans".to_owned(), spans));
        let status = ask_consul(&holder.consul, "GET", "/v1/kv/lictor/orders/status?keys", b"").text();
        let status = format!("/v1/kv/{}?raw", status.trim_matches(['[', ']', '"']));
        for path in ["/v1/agent/services", "/v1/agent/checks", &status] {
            outputs.push((format!("Consul's {path}"), ask_consul(&holder.consul, "GET", path, b"").text()));
        }
        assert!(holder.lictor.terminate().success());
        outputs.push(("the log".to_owned(), holder.lictor.log()));
        let kept = std::fs::read(&holder.snapshot).unwrap();
        outputs.push(("the snapshot".to_owned(), String::from_utf8_lossy(&kept).into_owned()));

        let secrets = holder.secrets();
        for (what, text) in &outputs {
            assert!(!text.is_empty(), "{what} says nothing");
            assert_clean(&format!("{from:?}: {what}"), text, &secrets);
        }
        let bytes: usize = outputs.iter().map(|(_, text)| text.len()).sum();
        eprintln!("{from:?}: {} secrets, {} outputs, {bytes} bytes: none", secrets.len(), outputs.len());
        let _ = std::fs::remove_file(&holder.snapshot);
        let _ = std::fs::remove_file(holder.snapshot.with_extension("")); // the token's
    }
}

/// Pages with what may be asked of them.
const PAGES: [&str; 6] = [
    "/config?origin=1",
    "/requests/canary-story",
    "/requests/canary-story?as=text",
    "/ui/data",
    "/endpoints/users",
    "/explain?method=GET&upstream=users&path=/?canary-query&header=Authorization:canary-bearer",
];

/// What commands print, those that read the configuration and those that ask the sidecar.
fn commands(holder: &Holder) -> Vec<(String, String)> {
    let admin = holder.lictor.admin();
    let asking: [&[&str]; 6] = [
        &["explain", "GET", "users", "/?token=canary-query", "-H", "Authorization: canary-bearer"],
        &["explain", "canary-story"],
        &["endpoints"],
        &["top", "--once"],
        &["diff", "/dev/null"],
        &["breaker", "auto", "users", "--token", "canary-admin-0123456789"],
    ];
    let reading: [&[&str]; 6] =
        [&["check"], &["config"], &["config", "--origin"], &["doctor"], &["doctor", "--json"], &["graph"]];
    let asking = asking.map(|words| [words, &["--admin", &admin]].concat());
    let all = asking.into_iter().chain(reading.map(<[&str]>::to_vec));
    all.map(|words| (format!("lictor {}", words[0]), holder.command(&words))).collect()
}

#[test]
fn a_crash_leaves_no_core() {
    // Where this machine would write one: children have our limits.
    let given = getrlimit(Resource::Core);
    setrlimit(Resource::Core, Rlimit { current: given.maximum, maximum: given.maximum }).unwrap();
    let mut lictor = crate::caller(&[1], "");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", lictor.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    // Too short for a file, and no handler gets it (fs/coredump.c).
    let expected = if given.maximum == Some(0) { "0" } else { "1" };
    assert_eq!(core.split_whitespace().nth(4), Some(expected), "{core}");
    lictor.signal(Signal::ABORT);
    let status = lictor.wait();
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
}
