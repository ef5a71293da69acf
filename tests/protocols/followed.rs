//! The configuration's files are followed: whatever way they change in, the sidecar is soon what they say.

use std::fs::{create_dir, remove_file, rename, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lictor_testkit::{Backend, Sidecar, eventually_is};
use serde_json::Value as Json;

use crate::LICTOR;

/// A caller of `backend` with a timeout that shows which configuration is in force.
fn yaml(backend: &Backend, timeout: &str) -> String {
    let port = backend.port();
    format!(
        "registration: off\nservice: orders\nupstreams:\n  users: {{listen: 0, timeout: {timeout}, static: ['127.0.0.1:{port}']}}\n"
    )
}

fn timeout(lictor: &Sidecar) -> Json {
    lictor.page("/upstreams")["users"]["policy"]["timeout_ms"].clone()
}

fn await_timeout(lictor: &Sidecar, what: &str, ms: u64) {
    eventually_is(what, || timeout(lictor), |now| *now == ms);
}

/// Waits until the log has so many events of this kind.
fn await_told(lictor: &Sidecar, what: &str, kind: &str, count: usize) {
    eventually_is(what, || told(lictor, kind).len(), |now| *now == count);
}

/// The log's events of this kind.
fn told(lictor: &Sidecar, kind: &str) -> Vec<Json> {
    let log = lictor.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    lines.filter(|line| line["kind"] == kind).collect()
}

/// `path` is this text from one moment to the next.
fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    write(&draft, text).unwrap();
    rename(&draft, path).unwrap();
}

/// A folder as Kubernetes mounts it: files are links into `..data`, which is a link to a folder, and is swapped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(folder: PathBuf, name: &str, text: &str) -> Self {
        create_dir(&folder).unwrap();
        let mounted = Self(folder);
        mounted.holds(0, name, text);
        symlink(Path::new("..data").join(name), mounted.0.join(name)).unwrap();
        mounted
    }

    fn holds(&self, version: u32, name: &str, text: &str) {
        let data = self.0.join(format!("..version_{version}"));
        create_dir(&data).unwrap();
        write(data.join(name), text).unwrap();
        symlink(data.file_name().unwrap(), self.0.join("..data_tmp")).unwrap();
        rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
    }
}

#[test]
fn a_changed_file_is_in_force_by_itself() {
    let backend = Backend::start("a");
    let lictor = Sidecar::start(LICTOR, &yaml(&backend, "1s"), &[("ENVIRONMENT", "production")], &["serve"], &[]).up();
    let file = lictor.file();
    let staged = lictor.path("lictor.production.yaml");
    let mounted = Mounted::new(lictor.path("mounted"), "lictor.yaml", &yaml(&backend, "4s"));
    let of_users = |timeout: &str| format!("upstreams: {{users: {{timeout: {timeout}}}}}\n");
    let ways: [(&str, u64, &dyn Fn()); 9] = [
        ("written in place", 2, &|| write(&file, yaml(&backend, "2s")).unwrap()),
        ("renamed over it", 3, &|| replace(&file, &yaml(&backend, "3s"))),
        ("a link in its place", 4, &|| {
            symlink(mounted.0.join("lictor.yaml"), lictor.path("link")).unwrap();
            rename(lictor.path("link"), &file).unwrap();
        }),
        ("the links that Kubernetes swaps", 5, &|| mounted.holds(1, "lictor.yaml", &yaml(&backend, "5s"))),
        ("swapped again", 6, &|| mounted.holds(2, "lictor.yaml", &yaml(&backend, "6s"))),
        ("a file again", 7, &|| replace(&file, &yaml(&backend, "7s"))),
        ("moved away, and another one in its place", 8, &|| {
            rename(&file, lictor.path("old")).unwrap();
            write(&file, yaml(&backend, "8s")).unwrap();
        }),
        ("one of the environment comes beside it", 9, &|| write(&staged, of_users("9s")).unwrap()),
        ("that one changes", 10, &|| replace(&staged, &of_users("10s"))),
    ];
    for (number, (what, seconds, change)) in ways.iter().enumerate() {
        change();
        await_timeout(&lictor, what, seconds * 1000);
        let is_told = |page: &Json| page.as_array().unwrap().len() == number + 1;
        let page = eventually_is(what, || lictor.page("/config/changes"), is_told);
        let newest = &page[0];
        assert_eq!((&newest["origin"], &newest["refused"]), (&"file".into(), &Json::Null), "{what}");
        assert_eq!(newest["changes"][0]["key"], "upstreams.users.timeout", "{what}: {page}");
        assert_eq!(lictor.get("users", "/").status, 200, "{what}");
    }
    await_told(&lictor, "each is told once", "config_reloaded", ways.len());
    assert!(told(&lictor, "config_rejected").is_empty());
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_is_told_once() {
    let backend = Backend::start("a");
    let lictor = Sidecar::serve(LICTOR, &yaml(&backend, "1s")).up();
    let file = lictor.file();
    let ways: [(&str, &str, &dyn Fn()); 6] = [
        ("says nothing", "says nothing", &|| write(&file, "").unwrap()),
        ("half of it", "has nothing after it", &|| write(&file, "registration: off\nupstreams:\n").unwrap()),
        ("no YAML", "not valid YAML", &|| write(&file, "{registration: off\n").unwrap()),
        ("an unknown key", "did you mean `timeout`", &|| {
            replace(&file, &yaml(&backend, "3s").replace("timeout:", "timeuot:"));
        }),
        ("a value in a file that is not there", "cannot read /no/such", &|| {
            replace(&file, &format!("{}service_token: file:/no/such\n", yaml(&backend, "3s")));
        }),
        ("gone", "No such file", &|| remove_file(&file).unwrap()),
    ];
    for (number, (what, reason, change)) in ways.iter().enumerate() {
        change();
        let refused = || lictor.page("/config/changes")[0]["refused"].clone();
        eventually_is(what, refused, |refused| refused.as_str().is_some_and(|refused| refused.contains(reason)));
        await_told(&lictor, &format!("{what}: told once"), "config_rejected", number + 1);
        assert_eq!(timeout(&lictor), 1000, "{what}: what was in force stays so");
        assert!(lictor.metric("lictor_config_last_reload_success", &[]).abs() < 0.1, "{what}");
        assert_eq!(lictor.get("users", "/").status, 200, "{what}");
    }
    // The same mistake again is no news, and what was right before is right again.
    write(&file, "").unwrap();
    await_told(&lictor, "it says nothing again", "config_rejected", ways.len() + 1);
    write(&file, "# \n").unwrap();
    write(&file, "   \n").unwrap();
    replace(&file, &yaml(&backend, "1s"));
    let success = || lictor.metric("lictor_config_last_reload_success", &[]);
    eventually_is("it is as it was", success, |success| *success > 0.9);
    replace(&file, &yaml(&backend, "2s"));
    await_timeout(&lictor, "and is followed on", 2000);
    assert_eq!(told(&lictor, "config_rejected").len(), ways.len() + 1);
}

#[test]
fn a_file_that_says_the_same_again_is_no_change() {
    let backend = Backend::start("a");
    let lictor = Sidecar::serve(LICTOR, &yaml(&backend, "1s")).up();
    write(lictor.file(), yaml(&backend, "1s")).unwrap();
    replace(&lictor.file(), &yaml(&backend, "1s"));
    // Who asks is told, and the file is not read for it again.
    replace(&lictor.file(), &yaml(&backend, "2s"));
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!(timeout(&lictor), 2000);
    replace(&lictor.file(), &yaml(&backend, "3s"));
    await_timeout(&lictor, "a later change", 3000);
    await_told(&lictor, "both are told", "config_reloaded", 2);
    let origins: Vec<Json> = told(&lictor, "config_reloaded").iter().map(|line| line["origin"].clone()).collect();
    assert_eq!(origins, ["reload", "file"]);
}

#[test]
fn the_files_that_values_are_in_are_followed() {
    let backend = Backend::start("a");
    let of = |path: &Path| {
        let headers = format!("headers: {{set: {{X-Key: 'file:{}'}}}}", path.display());
        yaml(&backend, "1s").replace("timeout:", &format!("{headers}, timeout:"))
    };
    let lictor = Sidecar::serve(LICTOR, &yaml(&backend, "1s")).up();
    let mounted = Mounted::new(lictor.path("mounted"), "key", "canary-one");
    let (linked, plain, later) = (mounted.0.join("key"), lictor.path("plain"), lictor.path("later"));
    let ways: [(&str, &str, &dyn Fn()); 6] = [
        ("named by a file that changed", "canary-one", &|| replace(&lictor.file(), &of(&linked))),
        ("the links that Kubernetes swaps", "canary-two", &|| mounted.holds(1, "key", "canary-two")),
        ("another file", "canary-three", &|| {
            write(&plain, "canary-three\n").unwrap();
            replace(&lictor.file(), &of(&plain));
        }),
        ("written in place", "canary-four", &|| write(&plain, "canary-four\n").unwrap()),
        ("renamed over it", "canary-five", &|| replace(&plain, "canary-five")),
        ("one that comes after it was named", "canary-six", &|| {
            let refusals = told(&lictor, "config_rejected").len();
            replace(&lictor.file(), &of(&later));
            eventually_is("it is not there yet", || told(&lictor, "config_rejected").len(), |now| *now > refusals);
            write(&later, "canary-six").unwrap();
        }),
    ];
    for (what, value, change) in ways {
        change();
        let seen = || lictor.get("users", "/").text();
        eventually_is(what, seen, |seen| seen.to_lowercase().contains(&format!("x-key: {value}")));
    }
    let everything = format!("{}{}", lictor.log(), lictor.page("/config/changes"));
    assert!(everything.contains("headers.set.X-Key") && !everything.contains("canary"), "{everything}");
}
