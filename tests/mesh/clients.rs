//! Clients that we did not write, by base URL and by `http_proxy`. One that is missing is a failure: see
//! `scripts/deps.sh`.

use std::process::Command;

use lictor_testkit::{Backend, Sidecar};

use crate::LICTOR;

fn sidecar(backend: &Backend) -> Sidecar {
    let yaml = format!(
        "registration: off\noutbound: {{proxy: 0}}\nupstreams:\n  user-service: {{listen: 0, static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

fn says(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/deps.sh"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out
}

#[test]
fn curl() {
    let backend = Backend::start("a");
    let lictor = sidecar(&backend);
    let base = format!("http://{}/users/1", lictor.address("user-service"));
    assert!(says(Command::new("curl").args(["-s", &base])).starts_with("a GET /users/1"));
    let proxy = format!("http://{}", lictor.address("forward"));
    let by_proxy = says(Command::new("curl").args(["-s", "http://user-service/users/2"]).env("http_proxy", &proxy));
    assert!(by_proxy.starts_with("a GET /users/2"), "{by_proxy}");
    let http2 = says(Command::new("curl").args(["-s", "--http2-prior-knowledge", "-w", "%{http_version}", &base]));
    assert!(http2.starts_with("a GET /users/1") && http2.ends_with('2'), "{http2}");
    let posted = says(Command::new("curl").args(["-s", "-H", "Expect: 100-continue", "-d", "hello", &base]));
    assert!(posted.starts_with("a POST /users/1 HTTP/1.1 5"), "{posted}");
}

#[test]
fn python() {
    let backend = Backend::start("a");
    let lictor = sidecar(&backend);
    let script = "import os, sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1] + '/users/1').read().decode())\n\
        print(urllib.request.urlopen('http://user-service/users/2', data=b'hello').read().decode())";
    let base = format!("http://{}", lictor.address("user-service"));
    let proxy = format!("http://{}", lictor.address("forward"));
    let said =
        says(Command::new("python3").args(["-c", script, &base]).env("http_proxy", proxy).env("no_proxy", "127.0.0.1"));
    assert!(said.contains("a GET /users/1") && said.contains("a POST /users/2 HTTP/1.1 5"), "{said}");
}

#[test]
fn node() {
    let backend = Backend::start("a");
    let lictor = sidecar(&backend);
    let script = "const http = require('http'); const [base, proxy] = process.argv.slice(1);\n\
        const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });\n\
        const ask = (options) => new Promise((resolve, reject) => { const r = http.request({ agent, ...options }, (res) => {\n\
          let text = ''; res.on('data', (d) => text += d); res.on('end', () => resolve(text)); }); r.on('error', reject); r.end(); });\n\
        const at = (address) => { const u = new URL(address); return { host: u.hostname, port: u.port }; };\n\
        (async () => { console.log(await ask({ ...at(base), path: '/users/1' }));\n\
          console.log(await ask({ ...at(proxy), path: 'http://user-service/users/2', headers: { host: 'user-service' } }));\n\
          agent.destroy(); })();";
    let base = format!("http://{}", lictor.address("user-service"));
    let proxy = format!("http://{}", lictor.address("forward"));
    let said = says(Command::new("node").args(["-e", script, &base, &proxy]));
    assert!(said.contains("a GET /users/1") && said.contains("a GET /users/2"), "{said}");
}
