//! The real sidecar as a careful orchestrator runs it: no user's rights, no capabilities, no new privileges, nothing that can be
//! written but the snapshot's folder. Needs root, `unshare` and `setpriv`.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is, free_ports, lictor};

const USER: u32 = 65532;

/// A folder that user 65532 may look into: the binary, and a folder for the snapshot.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = Self(std::env::temp_dir().join(format!("lictor-hardened-{}-{name}", std::process::id())));
        fs::create_dir_all(place.state()).unwrap();
        chown(place.state(), Some(USER), Some(USER)).unwrap();
        // Where it was built, others may not look.
        fs::copy(lictor(), place.0.join("lictor")).unwrap();
        let wrapper = place.0.join("hardened");
        fs::write(&wrapper, WRAPPER).unwrap();
        run("chmod", &["755".as_ref(), wrapper.as_ref(), place.0.as_ref()]);
        place
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// The sidecar, with the folder that it may write, or none.
    fn start(&self, yaml: &str, writable: Option<&Path>) -> Sidecar {
        let (snapshot, program) = (self.state().join("snapshot"), self.0.join("lictor"));
        let env = [
            ("LICTOR_CONSUL_SNAPSHOT_PATH", snapshot.to_str().unwrap()),
            ("PROGRAM", program.to_str().unwrap()),
            ("WRITABLE", writable.map_or("", |folder| folder.to_str().unwrap())),
        ];
        Sidecar::start(self.0.join("hardened").to_str().unwrap(), yaml, &env, &["serve"], &[]).up()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Its own mounts, all read-only but one folder; then its rights go, and it becomes the sidecar: the process id stays.
const WRAPPER: &str = r#"#!/bin/sh
set -e
exec unshare --mount --propagation private sh -ec '
    if [ -n "$WRITABLE" ]; then mount --bind "$WRITABLE" "$WRITABLE"; fi
    while read -r _ folder _; do
        case "$folder" in "$WRITABLE" | /proc | /proc/* | /dev | /dev/* | /sys | /sys/*) continue ;; esac
        mount -o remount,bind,ro "$folder" 2> /dev/null || true
    done < /proc/mounts
    if [ -n "$WRITABLE" ]; then mount -o remount,bind,rw "$WRITABLE"; fi
    if touch "$(dirname "$PROGRAM")/written" 2> /dev/null; then echo "the root can be written" >&2; exit 99; fi
    program=$PROGRAM
    unset PROGRAM WRITABLE
    exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$program" "$@"
' sh "$@"
"#;

fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

/// A line of `/proc/PID/status`.
fn status(lictor: &Sidecar, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", lictor.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn yaml(consul: &Consul, app: &Backend, inbound: u16) -> String {
    format!(
        "service: orders
port: {}
check: /health
inbound: {{listen: '127.0.0.1:{inbound}'}}
consul: {{address: '{}'}}
lifecycle: {{drain_delay: 0s}}
upstreams: {{users: 0}}
",
        app.port(),
        consul.url()
    )
}

/// As whom it runs, and what it may do.
fn assert_without_rights(lictor: &Sidecar) {
    assert_eq!(status(lictor, "Name"), "lictor");
    assert_eq!(status(lictor, "Uid"), "65532 65532 65532 65532");
    assert_eq!(status(lictor, "Gid"), "65532 65532 65532 65532");
    assert_eq!(status(lictor, "Groups"), "");
    assert_eq!(status(lictor, "NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(lictor, set), "0000000000000000", "{set}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", lictor.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("1"), "{core}");
}

#[test]
#[ignore = "needs root for namespaces: `make chaos`"]
fn without_rights_and_with_a_read_only_root_it_does_its_work() {
    let (consul, place) = (Consul::dev(), Place::new("works"));
    let (app, users) = (Backend::start("app"), Backend::start("u1"));
    consul.register("users", users.name(), users.port());
    let [inbound] = free_ports();
    let mut lictor = place.start(&yaml(&consul, &app, inbound), Some(&place.state()));
    assert_without_rights(&lictor);

    eventually_is("it is registered and passes", || consul.passing("orders").len(), |count| *count == 1);
    lictor.await_endpoints("users", 1);
    assert_eq!((lictor.get("users", "/").status, lictor.get("inbound", "/").status), (200, 200));
    eventually_is("the snapshot is written", || place.state().join("snapshot").is_file(), |is_there| *is_there);

    lictor.rewrite(&yaml(&consul, &app, inbound).replace("{users: 0}", "{users: 0, carts: 0}"));
    assert_eq!(lictor.post("/reload").status, 200);
    assert!(lictor.page("/upstreams")["carts"].is_object(), "the reload is in force");

    assert_eq!(lictor.terminate().code(), Some(0), "{}", lictor.log());
    assert!(consul.passing("orders").is_empty(), "it left Consul");
    let file = fs::metadata(place.state().join("snapshot")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (USER, 0o600));
    assert_eq!(fs::read_dir(place.state()).unwrap().count(), 1, "nothing else was written");
}

#[test]
#[ignore = "needs root for namespaces: `make chaos`"]
fn where_nothing_can_be_written_it_serves_and_says_why_it_cannot_save() {
    let (consul, place) = (Consul::dev(), Place::new("nothing"));
    let (app, users) = (Backend::start("app"), Backend::start("u1"));
    consul.register("users", users.name(), users.port());
    let [inbound] = free_ports();
    let mut lictor = place.start(&yaml(&consul, &app, inbound), None);
    assert_without_rights(&lictor);
    lictor.await_endpoints("users", 1);
    assert_eq!(lictor.get("users", "/").status, 200);
    let told =
        || lictor.log().lines().filter(|line| line.contains("snapshot_unwritten")).collect::<Vec<_>>().join("\n");
    let line = eventually_is("it says that it cannot save", told, |line| !line.is_empty());
    assert!(line.contains("Read-only file system") && line.contains("/state/snapshot"), "{line}");
    let page = lictor.page("/consul")["snapshot"].clone();
    assert!(page.to_string().contains("Read-only file system"), "{page}");
    assert_eq!(lictor.terminate().code(), Some(0), "{}", lictor.log());
    assert_eq!(fs::read_dir(place.state()).unwrap().count(), 0);
}
