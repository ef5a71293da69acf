//! What another machine may do: a peer in a network namespace, so that its address is really not loopback. Needs root and `ip`.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use lictor_testkit::{Answer, Backend, Sidecar, eventually_is, lictor, request};

use crate::network::Far;

const TOKEN: &str = "admin-token-0123456789";
const ORDERS: [&str; 8] = [
    "/drain",
    "/undrain",
    "/reload",
    "/log-level?level=trace",
    "/quit",
    "/endpoints/users/eject",
    "/endpoints/users/pin",
    "/breakers/users?state=open",
];

/// A sidecar whose admin and inbound listeners are open to other machines, and a machine.
struct Scene {
    far: Far,
    _app: Backend,
    _users: Backend,
    lictor: Sidecar,
}

impl Scene {
    fn new(more: &str) -> Self {
        let (far, app, users) = (Far::new(), Backend::start("app"), Backend::start("users"));
        let yaml = format!(
            "registration: off
service: orders
port: {}
inbound: {{listen: '0.0.0.0:0'}}
outbound: {{proxy: '127.0.0.1:0'}}
upstreams:
  users: {{listen: 0, static: ['127.0.0.1:{}']}}
{more}",
            app.port(),
            users.port()
        );
        let lictor = Sidecar::start(lictor(), &yaml, &[], &["serve"], &["--set", "admin.listen=0.0.0.0:0"]).up();
        Self { far, _app: app, _users: users, lictor }
    }

    /// Where a listener is, as the other machine sees it.
    fn ask_there(&self, listener: &str) -> String {
        let port = self.lictor.address(listener).parse::<SocketAddr>().unwrap().port();
        format!("{}:{port}", self.far.here)
    }

    /// A request of the other machine.
    fn ask(&self, listener: &str, method: &'static str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let (address, path) = (self.ask_there(listener), path.to_owned());
        let headers: Vec<(String, String)> = headers.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        self.far.inside(move || {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            request(&address, method, &path, &headers, b"").unwrap()
        })
    }

    /// Every page that the index lists.
    fn pages(&self) -> Vec<String> {
        let index = self.lictor.get("admin", "/").text();
        let lines = index.lines().filter_map(|line| line.strip_prefix("GET  "));
        lines.filter_map(|line| line.split([' ', '[']).next()).map(str::to_owned).collect()
    }
}

#[test]
#[ignore = "needs root for a network namespace: `make chaos`"]
fn another_machine_gives_orders_and_looks_with_the_token_only() {
    let scene = Scene::new(&format!("admin: {{token: {TOKEN}}}\n"));
    let wrong = format!("Bearer {}", TOKEN.replace('9', "8"));
    let right = format!("Bearer {TOKEN}");
    for order in ORDERS {
        let bare = scene.ask("admin", "POST", order, &[]);
        assert_eq!((bare.status, bare.header("www-authenticate")), (401, "Bearer realm=\"lictor\""), "{order}");
        assert!(bare.text().contains("admin.token"), "{order}: {}", bare.text());
        assert_eq!(scene.ask("admin", "POST", order, &[("Authorization", &wrong)]).status, 401, "{order}");
        let browser = [("Authorization", right.as_str()), ("Origin", "http://orders:9901")];
        assert_eq!(scene.ask("admin", "POST", order, &browser).status, 403, "{order}");
        let browser = [("Authorization", right.as_str()), ("Sec-Fetch-Site", "cross-site")];
        assert_eq!(scene.ask("admin", "POST", order, &browser).status, 403, "{order}");
        // What other proxies would believe makes nobody local.
        let local = [("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=127.0.0.1"), ("Host", "localhost:9901")];
        assert_eq!(scene.ask("admin", "POST", order, &local).status, 401, "{order}");
    }
    let pages = scene.pages();
    assert!(pages.len() > 15, "{pages:?}");
    for page in &pages {
        let is_public = ["/live", "/startup", "/ready", "/health", "/metrics"].contains(&page.as_str());
        let expected = if is_public { 200 } else { 401 };
        assert_eq!(scene.ask("admin", "GET", page, &[]).status, expected, "{page}");
    }
    assert_eq!(scene.lictor.page("/ready")["status"], "ready", "nothing of it was carried out");

    assert_eq!(scene.ask("admin", "GET", "/config", &[("Authorization", &right)]).status, 200);
    assert_eq!(scene.ask("admin", "POST", "/log-level?level=debug", &[("Authorization", &right)]).status, 200);
    assert_eq!(scene.lictor.post("/log-level?level=info").status, 200, "on this machine none is needed");
    command(&scene, &right);
    eprintln!("{} orders, {} pages: none without the token", ORDERS.len(), pages.len());
}

/// `lictor tap` and the like, from there.
fn command(scene: &Scene, right: &str) {
    let address = scene.ask_there("admin");
    let run = move |token: Option<String>| {
        let mut command = Command::new(lictor());
        command.args(["endpoints", "--admin", &address]).env_clear().envs(token.map(|it| ("LICTOR_ADMIN_TOKEN", it)));
        let output = command.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let again = run.clone();
    let bare = scene.far.inside(move || run(None));
    assert!(bare.contains("have to send admin.token"), "{bare}");
    let told = scene.far.inside(move || again(Some(TOKEN.to_owned())));
    assert!(told.contains("users (1 of 1 instances"), "{told}");
    // Another token is in force as soon as it is configured.
    let yaml = std::fs::read_to_string(scene.lictor.file()).unwrap();
    scene.lictor.rewrite(&yaml.replace(TOKEN, "another-token-9876543210"));
    assert_eq!(scene.ask("admin", "POST", "/reload", &[("Authorization", right)]).status, 200);
    eventually_is(
        "the old token is none",
        || scene.ask("admin", "GET", "/config", &[("Authorization", right)]).status,
        |status| *status == 401,
    );
    let other = [("Authorization", "Bearer another-token-9876543210")];
    let changes = scene.ask("admin", "GET", "/config/changes", &other);
    assert_eq!(changes.status, 200);
    assert!(changes.text().contains("admin.token") && !changes.text().contains("-token-"), "{}", changes.text());
}

#[test]
#[ignore = "needs root for a network namespace: `make chaos`"]
fn without_a_token_another_machine_is_told_what_to_set() {
    let scene = Scene::new("");
    for (method, path) in [("POST", "/quit"), ("POST", "/drain"), ("GET", "/config"), ("GET", "/tap"), ("GET", "/")] {
        let answer = scene.ask("admin", method, path, &[("Authorization", "Bearer ")]);
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text().contains("set admin.token (LICTOR_ADMIN_TOKEN)"), "{}", answer.text());
    }
    assert_eq!(scene.ask("admin", "GET", "/ready", &[]).status, 200);
    assert!(scene.lictor.log().contains("get health and metrics only"), "the log warns at the start");
}

#[test]
#[ignore = "needs root for a network namespace: `make chaos`"]
fn what_another_machine_says_of_itself_is_not_believed() {
    let scene = Scene::new("");
    let forged = [
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Lictor-Attempt", "1/9"),
        ("X-Lictor-Retry", "off"),
        ("X-Lictor-Debug", "1"),
        ("X-Service-Auth", "guess"),
        ("Via", "1.1 edge"),
        ("Proxy-Authorization", "Basic Zm9v"),
    ];
    let answer = scene.ask("inbound", "GET", "/", &forged);
    assert_eq!(answer.status, 200);
    let seen = answer.text();
    let (far, here) = (&scene.far.address, scene.ask_there("inbound"));
    assert!(seen.contains(&format!("x-forwarded-for: 127.0.0.1, {far}\n")), "who it really is comes last: {seen}");
    for gone in ["x-lictor-attempt", "x-lictor-retry", "x-lictor-debug", "x-service-auth", "proxy-authorization"] {
        assert!(!seen.to_lowercase().contains(&format!("\n{gone}:")), "{gone} reached the application: {seen}");
    }
    // Without what would say that it was forwarded, too: the address decides.
    for headers in [&forged[..], &[("X-Lictor-Debug", "1")]] {
        let answer = scene.ask("inbound", "GET", "/", headers);
        for told in ["x-lictor-upstream", "x-lictor-attempts", "server-timing"] {
            assert_eq!(answer.header(told), "", "{told} was told to another machine");
        }
    }
    let answer = request(&scene.lictor.address("inbound"), "GET", "/", &[("X-Lictor-Debug", "1")], b"").unwrap();
    assert!(!answer.header("x-lictor-upstream").is_empty(), "this machine is told");
    let misdirected = scene.ask("inbound", "GET", "/", &[("X-Lictor-To", "users/1")]);
    assert_eq!((misdirected.status, misdirected.header("x-lictor-reason")), (421, "misdirected"));
    // Its URL and Host choose nothing here.
    let elsewhere = scene.ask("inbound", "GET", &format!("http://users.{here}/"), &[("Host", "users")]);
    assert!(elsewhere.status == 400 || elsewhere.text().starts_with("app GET /"), "{}", elsewhere.text());
    let line = scene.lictor.lines("request").into_iter().find(|line| line["direction"] == "inbound").unwrap();
    assert_eq!(line["ip"], far.as_str(), "{line}");
}

#[test]
#[ignore = "needs root for a network namespace: `make chaos`"]
fn with_a_service_token_another_machine_needs_it() {
    let scene = Scene::new("service_token: service-token-1\n");
    for headers in
        [&[][..], &[("X-Service-Auth", "guess")], &[("X-Lictor-From", "users/1"), ("X-Forwarded-For", "::1")]]
    {
        let answer = scene.ask("inbound", "GET", "/", headers);
        assert_eq!((answer.status, answer.header("x-lictor-reason")), (401, "unauthenticated"), "{headers:?}");
    }
    let answer = scene.ask("inbound", "GET", "/", &[("X-Service-Auth", "service-token-1")]);
    assert!(answer.status == 200 && !answer.text().contains("service-token-1"), "{}", answer.text());
}

#[test]
#[ignore = "needs root for a network namespace: `make chaos`"]
fn another_machine_cannot_reach_what_is_for_this_one() {
    let scene = Scene::new("");
    for listener in ["users", "forward"] {
        let address: SocketAddr = scene.ask_there(listener).parse().unwrap();
        let refused = scene.far.inside(move || TcpStream::connect_timeout(&address, Duration::from_secs(5)));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{listener}");
    }
    let inbound: SocketAddr = scene.ask_there("inbound").parse().unwrap();
    let open = scene.far.inside(move || TcpStream::connect_timeout(&inbound, Duration::from_secs(5)));
    assert!(open.is_ok(), "the same way leads to what is open");
}
