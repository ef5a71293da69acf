//! What lictor shows Consul is in files, which come late, are replaced, half written, or hang: a real Consul with ACLs.

use std::fs::{File, create_dir, remove_file, rename, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is};
use serde_json::json;

use crate::{caller, events, lictor};

/// A folder that goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lictor-outages-{}-{name}", std::process::id()));
        create_dir(&folder).unwrap();
        Self(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A token that may see everything that `orders` calls.
fn token(consul: &Consul) -> String {
    let answer = consul.answer("PUT", "/v1/acl/token", &json!({ "ServiceIdentities": [{ "ServiceName": "orders" }] }));
    answer["SecretID"].as_str().unwrap().to_owned()
}

fn hang(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// How a token comes to its file.
type Come = fn(&Folder, &Path, &str);

/// A token that is not there at the start, however it then comes: Consul 1.8 answers callers without one with empty lists,
/// and blocks on them, so nothing but the file tells.
#[test]
fn a_token_that_comes_later_is_used_within_seconds() {
    let consul = Consul::with_acls();
    let backend = Backend::start("a");
    consul.register("users", "a", backend.port());
    let ways: [(&str, Option<&str>, Come); 6] = [
        ("where no file was", None, |_, path, token| write(path, token).unwrap()),
        ("into an empty file", Some(""), |_, path, token| write(path, format!("{token}\n")).unwrap()),
        ("renamed over it", Some("\n"), |folder, path, token| {
            write(folder.at("draft"), token).unwrap();
            rename(folder.at("draft"), path).unwrap();
        }),
        ("in place of one of no use", Some("anonymous"), |_, path, token| write(path, token).unwrap()),
        ("in two halves", Some(""), |_, path, token| {
            write(path, &token[..9]).unwrap();
            crate::quiet(std::time::Duration::from_millis(1500));
            write(path, token).unwrap();
        }),
        ("by a link that is swapped", None, |folder, path, token| {
            let _ = remove_file(path);
            create_dir(folder.at("2")).unwrap();
            write(folder.at("2/token"), token).unwrap();
            symlink(folder.at("2"), folder.at("data")).unwrap();
            symlink(folder.at("data/token"), path).unwrap();
        }),
    ];
    for (number, (name, before, come)) in ways.into_iter().enumerate() {
        let folder = Folder::new(&format!("token-{number}"));
        let path = folder.at("token");
        if let Some(text) = before {
            write(&path, if text == "anonymous" { "anonymous" } else { text }).unwrap();
        }
        let lictor = caller(&consul.url(), &format!(", token_file: '{}'", path.display()));
        assert_eq!(lictor.endpoints("users"), 0, "{name}");
        let came = Instant::now();
        come(&folder, &path, &token(&consul));
        lictor.await_endpoints("users", 1);
        println!("{name}: {:?}", came.elapsed());
        assert!(events(&lictor, "token_reloaded") >= 1, "{name}");
    }
}

#[test]
fn a_token_file_that_hangs_holds_up_neither_the_start_nor_the_pages() {
    let consul = Consul::with_acls();
    let backend = Backend::start("a");
    consul.register("users", "a", backend.port());
    let folder = Folder::new("hangs");
    let path = folder.at("token");
    hang(&path);
    let yaml = format!(
        "registration: off\nservice: orders\nconsul: {{address: '{}', token_file: '{}'}}\nlifecycle: {{start_timeout: 5s}}\nupstreams: {{users: {{listen: 0}}, fixed: {{listen: 0, static: ['127.0.0.1:{}']}}}}\n",
        consul.url(),
        path.display(),
        backend.port(),
    );
    let lictor = Sidecar::serve(lictor(), &yaml).up();
    assert_eq!(lictor.get("fixed", "/").status, 200);
    assert_eq!(lictor.endpoints("users"), 0);
    // A file that can be read takes its place.
    let draft = folder.at("draft");
    write(&draft, token(&consul)).unwrap();
    let hanging = folder.at("was");
    std::fs::hard_link(&path, &hanging).unwrap();
    rename(&draft, &path).unwrap();
    lictor.await_endpoints("users", 1);
    // Whoever still waits for it is let go.
    let _ = File::options().read(true).write(true).open(&hanging);
    drop(lictor);
}

/// A value that is in a file, where the file hangs: the reload is given up, and signals and pages wait for nothing.
#[test]
fn a_value_in_a_file_that_hangs_refuses_the_reload_and_holds_up_nothing() {
    let folder = Folder::new("value");
    let path = folder.at("token");
    write(&path, "0123456789abcdef").unwrap();
    let yaml = format!(
        "registration: off\nservice_token: 'file:{}'\nupstreams: {{fixed: {{listen: 0, static: ['127.0.0.1:1']}}}}\n",
        path.display()
    );
    let mut lictor = Sidecar::serve(lictor(), &yaml).up();
    remove_file(&path).unwrap();
    hang(&path);
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| lictor.post("/reload"));
        let asked = Instant::now();
        assert!(lictor.page("/upstreams").is_array() || lictor.page("/upstreams").is_object());
        assert!(asked.elapsed().as_secs() < 8 || reload.is_finished(), "pages wait for it");
        let answer = reload.join().unwrap();
        assert!(answer.status >= 400 && answer.text().contains("hangs"), "{} {}", answer.status, answer.text());
    });
    assert!(lictor.terminate().success());
}

#[test]
fn a_token_that_is_refused_from_the_start_is_replaced_by_one_that_is_not() {
    let consul = Consul::with_acls();
    let backend = Backend::start("a");
    consul.register("users", "a", backend.port());
    let folder = Folder::new("refused");
    let path = folder.at("token");
    write(&path, "00000000-0000-0000-0000-000000000000").unwrap();
    let yaml = format!(
        "registration: off\nservice: orders\nconsul: {{address: '{}', token_file: '{}'}}\nlifecycle: {{start_timeout: 1s}}\nupstreams: {{users: 0}}\n",
        consul.url(),
        path.display(),
    );
    let lictor = Sidecar::serve(lictor(), &yaml).up();
    eventually_is("it is refused", || events(&lictor, "watch_refused"), |count| *count == 1);
    write(&path, token(&consul)).unwrap();
    lictor.await_endpoints("users", 1);
    eventually_is("its end is told", || events(&lictor, "watch_well"), |count| *count == 1);
}
