//! Certificates from a CA (ACME): Debian's pebble, which speaks RFC 8555, with its own DNS. What it cannot be made to say is in
//! `acme_scripted.rs`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lictor_testkit::{
    Authority, Pair, RawServer, Sidecar, connect, eventually, eventually_is, free_ports, get, get_over, request,
    scratch, tls_client,
};
use parking_lot::Mutex;
use rustix::process::Signal;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value as Json, json};

use crate::tls::tls_over;
use crate::{Ask, BOTH, LICTOR, Version, ask_over, echo};

/// A CA, and the DNS that it asks: every host is 127.0.0.1.
struct Pebble {
    authority: Authority,
    folder: PathBuf,
    /// Its directory, its management, its DNS, the DNS' management.
    ports: [u16; 4],
    /// Where it looks: http-01, tls-alpn-01.
    looks: [u16; 2],
    dns: Child,
    process: Option<Child>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Pebble {
    /// Not started yet.
    fn new(life_s: u64) -> Self {
        let (ports, looks) = (free_ports(), free_ports());
        let (authority, folder) = (Authority::new(), scratch("pebble"));
        let pair = authority.issue("pebble", &["127.0.0.1"]);
        let [directory, management, dns, dns_management] = ports;
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{directory}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": pair.cert, "privateKey": pair.key, "httpPort": looks[0], "tlsPort": looks[1],
            "domainBlocklist": ["blocked.example"], "certificateValidityPeriod": life_s,
        }});
        fs::write(folder.join("pebble.json"), config.to_string()).unwrap();
        let dns = Command::new("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
            .args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{dns_management}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble is installed (scripts/deps.sh)");
        Self { authority, folder, ports, looks, dns, process: None, lines: Arc::default() }
    }

    fn start(&mut self) {
        let mut process = Command::new("pebble")
            .arg("-config")
            .arg(self.folder.join("pebble.json"))
            .args(["-dnsserver", &format!("127.0.0.1:{}", self.ports[2])])
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble is installed (scripts/deps.sh)");
        let (out, lines) = (process.stdout.take().unwrap(), Arc::clone(&self.lines));
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| lines.lock().push(line));
        });
        self.process = Some(process);
        for port in [self.ports[0], self.ports[1], self.ports[3]] {
            eventually("pebble listens", || std::net::TcpStream::connect(("127.0.0.1", port)));
        }
    }

    fn started(life_s: u64) -> Self {
        let mut pebble = Self::new(life_s);
        pebble.start();
        pebble
    }

    /// How often something was asked of it: `sign-me-up` for an account, `order-plz` for an order.
    fn asked(&self, what: &str) -> usize {
        self.lines.lock().iter().filter(|line| line.contains(&format!("POST /{what} "))).count()
    }

    /// A host that is somewhere else.
    fn is_at(&self, host: &str, address: &str) {
        let body = json!({ "host": host, "addresses": [address] }).to_string();
        let management = format!("127.0.0.1:{}", self.ports[3]);
        let answer = eventually("its DNS answers", || request(&management, "POST", "/add-a", &[], body.as_bytes()));
        assert_eq!(answer.status, 200);
    }

    /// A client that believes what it issues, and shows this.
    fn client(&self, identity: Option<&Pair>) -> Arc<ClientConfig> {
        let config = self.authority.client_config(&[], &[&TLS13], None);
        let mut stream = tls_client(&config, &format!("127.0.0.1:{}", self.ports[1]), "127.0.0.1");
        let told = get_over(&mut stream, "/roots/0").unwrap();
        let pem = &told[told.find("-----BEGIN").unwrap_or_else(|| panic!("{told}"))..];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = match identity {
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_file(&pair.cert).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&pair.key).unwrap()).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn acme(&self, storage: &Path, more: &str) -> String {
        format!(
            "acme: {{directory: 'https://127.0.0.1:{}/dir', ca: '{}', contact: ops@shop.example, storage: '{}', terms_agreed: true{more}}}",
            self.ports[0],
            self.authority.ca().display(),
            storage.display()
        )
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in self.process.iter_mut().chain([&mut self.dns]) {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- pebble's log\n{}\n---", self.lines.lock().join("\n"));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A folder that is gone with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(scratch("acme"))
    }

    /// A file of a CA's, as there is one CA.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let of_ca = fs::read_dir(&self.0).into_iter().flatten().flatten().find(|entry| entry.path().is_dir());
        of_ca.map_or_else(|| self.0.join("none"), |entry| entry.path()).join(name)
    }

    /// How far a host's order is.
    pub(crate) fn progress(&self, host: &str) -> Json {
        let text = fs::read(self.file(&format!("{host}.json"))).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn await_issued(&self, host: &str) {
        eventually("an order is placed", || {
            let progress = self.progress(host);
            let is_placed = progress["order"].is_string() || self.file(&format!("{host}.pem")).exists();
            if is_placed { Ok(()) } else { Err(progress) }
        });
        eventually("a certificate has come", || {
            fs::metadata(self.file(&format!("{host}.pem"))).map_err(|_| self.progress(host))
        });
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn serving(policies: &str, keys: &str, one: &RawServer) -> Sidecar {
    let yaml = format!(
        "registration: off\ngateway:\n{keys}  tls:\n{policies}  routes: {{/*: one}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\n",
        one.port()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

/// Other hosts in the place of one, and more of a configuration.
pub(crate) fn rename(lictor: &Sidecar, hosts: &str, more: &str) {
    let text = fs::read_to_string(lictor.file()).unwrap();
    lictor.rewrite(&(text.replace("hosts: shop.example", &format!("hosts: {hosts}")) + more));
}

/// The certificate that is shown for a host, which its client believes; or why there is none.
pub(crate) fn shown(lictor: &Sidecar, config: &Arc<ClientConfig>, host: &str) -> Result<Vec<u8>, String> {
    let stream = tls_over(connect(&lictor.address("gateway")), config, host).map_err(|why| why.to_string())?;
    Ok(stream.conn.peer_certificates().unwrap()[0].to_vec())
}

pub(crate) fn events(lictor: &Sidecar, kind: &str) -> Vec<Json> {
    let lines = lictor.log();
    let parsed = lines.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    parsed.filter(|line| line["kind"] == kind).collect()
}

fn modes(folder: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        found.push((entry.file_name().into_string().unwrap(), mode));
        if entry.path().is_dir() {
            found.extend(modes(&entry.path()));
        }
    }
    found
}

#[test]
fn a_certificate_is_ordered_once_the_ca_is_there_and_kept() {
    let (mut pebble, storage, one) = (Pebble::new(7_776_000), Folder::new(), echo("one"));
    let other = pebble.authority.issue("other", &["files.example"]);
    let policies = format!(
        "    - {{hosts: [shop.example], {}}}\n    - {{hosts: files.example, cert: '{}', key: '{}'}}\n",
        pebble.acme(&storage.0, ""),
        other.cert.display(),
        other.key.display()
    );
    // Everything else of the gateway asks for a password, and all without TLS are sent away.
    let keys = format!(
        "  listen: 127.0.0.1:0\n  redirect_http: 127.0.0.1:{}\n  auth: {{jwt: {{secret: 01234567890123456789012345678901}}}}\n",
        pebble.looks[0]
    );
    let mut lictor = serving(&policies, &keys, &one);
    let ours = pebble.authority.client_config(&[b"http/1.1"], &[&TLS13], None);
    let told = eventually_is("it is told", || events(&lictor, "certificate_not_issued"), |told| !told.is_empty());
    assert!(told[0]["why"].as_str().unwrap().contains("cannot connect to 127.0.0.1"), "{told:?}");
    assert_eq!(get(&lictor.admin(), "/ready").unwrap().status, 200, "nothing waits for a certificate");
    for (host, expected) in [
        ("files.example", None),
        ("shop.example", Some("UnrecognisedName")),
        ("none.example", Some("UnrecognisedName")),
    ] {
        let seen = shown(&lictor, &ours, host);
        match expected {
            None => assert!(seen.is_ok(), "no host waits for another: {seen:?}"),
            Some(alert) => assert!(seen.unwrap_err().contains(alert), "{host}"),
        }
    }
    assert!(lictor.metric("lictor_certificate_rejected", &[]) < 0.5, "what is awaited is not rejected");
    pebble.start();
    let believes = pebble.client(None);
    storage.await_issued("shop.example");
    let first = eventually("it is shown", || shown(&lictor, &believes, "shop.example"));
    assert_eq!(pebble.asked("order-plz"), 1);
    assert_eq!(eventually_is("it is told", || events(&lictor, "certificate_issued").len(), |told| *told == 1), 1);
    assert!(lictor.metric("lictor_certificate_orders_total", &[("host", "shop.example"), ("result", "issued")]) > 0.5);
    assert!(lictor.metric("lictor_certificate_not_after_timestamp_seconds", &[]) > 0.0);
    for version in BOTH {
        // Nobody else's question is answered for nothing, and nobody is asked by a token that is over.
        for (target, status) in
            [("/.well-known/acme-challenge/x", 401), ("/.well-known/acme-challenge/", 401), ("/", 301)]
        {
            let told = ask_over(connect(&lictor.address("redirect_http")), version, Ask::get(target));
            assert_eq!(told.status, status, "{version:?} {target}: {told:?}");
        }
    }
    for (name, mode) in modes(&storage.0) {
        let expected = if storage.0.join(&name).is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{name}");
    }
    let pages = ["/config", "/status"].map(|page| get(&lictor.admin(), page).unwrap().text()).concat() + &lictor.log();
    assert!(!pages.contains("PRIVATE KEY"));
    assert!(lictor.terminate().success());
    drop(lictor);
    let again = serving(&policies, &keys, &one);
    assert_eq!(shown(&again, &believes, "shop.example").unwrap(), first, "it is there from the first handshake on");
    eventually_is("it has looked", || again.lines("certificates are ordered by this gateway").len(), |told| *told == 1);
    assert_eq!((pebble.asked("order-plz"), pebble.asked("sign-me-up")), (1, 1), "nothing is ordered again");
    // A new host has the account that there is.
    again.rewrite(&fs::read_to_string(again.file()).unwrap().replace("[shop.example]", "[shop.example, new.example]"));
    storage.await_issued("new.example");
    eventually("it is shown", || shown(&again, &believes, "new.example"));
    assert_eq!((pebble.asked("order-plz"), pebble.asked("sign-me-up")), (2, 1));
}

#[test]
fn a_certificate_is_renewed_before_it_ends() {
    let (pebble, storage, one) = (Pebble::started(20), Folder::new(), echo("one"));
    let policies = format!("    - {{hosts: shop.example, {}}}\n", pebble.acme(&storage.0, ""));
    let keys = format!("  listen: 127.0.0.1:0\n  redirect_http: 127.0.0.1:{}\n", pebble.looks[0]);
    let lictor = serving(&policies, &keys, &one);
    let believes = pebble.client(None);
    storage.await_issued("shop.example");
    let first = eventually("it is shown", || shown(&lictor, &believes, "shop.example"));
    eventually_is("another is ordered", || pebble.asked("order-plz"), |orders| *orders == 2);
    assert_eq!(shown(&lictor, &believes, "shop.example").unwrap(), first, "until then it is shown");
    eventually("another is shown", || match shown(&lictor, &believes, "shop.example") {
        Ok(now) if now != first => Ok(()),
        other => Err(other.map(|_| "the first")),
    });
    assert_eq!(pebble.asked("sign-me-up"), 1);
}

#[test]
fn a_ca_that_refuses_is_told_of_and_not_asked_again_soon() {
    let (pebble, storage, one) = (Pebble::started(7_776_000), Folder::new(), echo("one"));
    pebble.is_at("dark.example.", "127.0.0.9");
    let policies =
        format!("    - {{hosts: [blocked.example, dark.example, shop.example], {}}}\n", pebble.acme(&storage.0, ""));
    let keys = format!("  listen: 127.0.0.1:0\n  redirect_http: 127.0.0.1:{}\n", pebble.looks[0]);
    let mut lictor = serving(&policies, &keys, &one);
    let believes = pebble.client(None);
    storage.await_issued("shop.example");
    eventually("the good one is shown", || shown(&lictor, &believes, "shop.example"));
    let told = eventually_is("both are told", || events(&lictor, "certificate_not_issued"), |told| told.len() == 2);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (host, said) in
        [("blocked.example", "the CA says rejectedIdentifier"), ("dark.example", "the CA says connection")]
    {
        let line = told.iter().find(|line| line["host"] == host).unwrap_or_else(|| panic!("{told:?}"));
        assert!(line["why"].as_str().unwrap().contains(said), "{line}");
        assert!(line["again"].as_str().unwrap().starts_with("1m"), "{line}");
        let progress = storage.progress(host);
        let wait = progress["not_before"].as_u64().unwrap() - now;
        assert!((30..=76).contains(&wait) && progress["failures"] == 1 && progress["order"].is_null(), "{progress}");
        assert!(lictor.metric("lictor_certificate_orders_total", &[("host", host), ("result", "failed")]) > 0.5);
        assert!(shown(&lictor, &believes, host).unwrap_err().contains("UnrecognisedName"));
    }
    // Nor by a process that starts again.
    let asked = pebble.asked("order-plz");
    assert!(lictor.terminate().success());
    drop(lictor);
    let again = serving(&policies, &keys, &one);
    eventually_is("it has looked", || again.lines("certificates are ordered by this gateway").len(), |told| *told == 1);
    // Somebody takes the record of one failure away: that one is asked again, so the others could have been.
    drop(again);
    fs::remove_file(storage.file("dark.example.json")).unwrap();
    let again = serving(&policies, &keys, &one);
    eventually_is("one is told", || events(&again, "certificate_not_issued").len(), |told| *told == 1);
    assert_eq!(pebble.asked("order-plz"), asked + 1);
}

#[test]
fn a_host_is_ours_by_a_handshake_too() {
    let (pebble, storage, one) = (Pebble::started(7_776_000), Folder::new(), echo("one"));
    let ca = pebble.authority.ca();
    let policies = format!(
        "    - {{hosts: shop.example, client_ca: '{}', {}}}\n",
        ca.display(),
        pebble.acme(&storage.0, ", challenge: tls-alpn-01")
    );
    let lictor = serving(&policies, &format!("  listen: 127.0.0.1:{}\n", pebble.looks[1]), &one);
    storage.await_issued("shop.example");
    // The CA needed no certificate; everybody else does.
    let known = pebble.authority.issue("client", &["orders"]);
    let status = |identity: Option<&Pair>| {
        let Ok(stream) = tls_over(connect(&lictor.address("gateway")), &pebble.client(identity), "shop.example") else {
            return 0;
        };
        ask_over(stream, Version::Http1, Ask::get("/")).status
    };
    eventually_is("it is shown", || status(Some(&known)), |status| *status == 200);
    assert_eq!(status(None), 0);
    // Nobody looks any more: who asks as a CA does is shown nothing.
    let mut looks = (*pebble.client(None)).clone();
    looks.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let told = tls_over(connect(&lictor.address("gateway")), &Arc::new(looks), "shop.example").unwrap_err().to_string();
    assert!(told.contains("NoApplicationProtocol"), "{told}");
}

#[test]
fn of_gateways_with_one_folder_one_orders_and_all_answer_and_show() {
    let (pebble, storage, one) = (Pebble::started(7_776_000), Folder::new(), echo("one"));
    let policies = format!("    - {{hosts: shop.example, {}}}\n", pebble.acme(&storage.0, ""));
    let keys = |port: u16| format!("  listen: 127.0.0.1:0\n  redirect_http: 127.0.0.1:{port}\n");
    let leads = |lictor: &Sidecar| lictor.lines("certificates are ordered by this gateway").len() == 1;
    // The CA comes to the other one.
    let [elsewhere] = free_ports();
    let first = serving(&policies, &keys(elsewhere), &one);
    eventually_is("it orders", || leads(&first), |leads| *leads);
    let other = serving(&policies, &keys(pebble.looks[0]), &one);
    let believes = pebble.client(None);
    storage.await_issued("shop.example");
    let certificate = eventually("it is shown", || shown(&first, &believes, "shop.example"));
    let there = eventually("and there", || shown(&other, &believes, "shop.example"));
    assert_eq!(there, certificate);
    assert!((pebble.asked("order-plz"), leads(&other)) == (1, false));
    drop(first); // killed
    eventually_is("the other one orders", || leads(&other), |leads| *leads);
    // All have the same hosts; one of them waits.
    let waiting = storage.file("third.example.json");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    fs::write(&waiting, json!({ "failures": 1, "not_before": now + 86_400 }).to_string()).unwrap();
    let hosts = "[shop.example, new.example, third.example]";
    rename(&other, hosts, "lifecycle: {drain_delay: 1h}\n");
    storage.await_issued("new.example");
    assert_eq!(pebble.asked("order-plz"), 2, "what there is is not ordered again");
    // One that is about to end orders no more, and answers still: the CA comes to it.
    other.signal(Signal::TERM);
    fs::remove_file(&waiting).unwrap();
    let third = serving(&policies.replace("hosts: shop.example", &format!("hosts: {hosts}")), &keys(elsewhere), &one);
    eventually_is("the third one orders", || leads(&third), |leads| *leads);
    storage.await_issued("third.example");
    assert_eq!((pebble.asked("order-plz"), pebble.asked("sign-me-up")), (3, 1));
    assert_eq!(other.lines("stopped").len(), 0, "it is still there");
}
