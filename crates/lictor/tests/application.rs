//! What the application of `lictor run` gets of lictor's environment, and who ends with it, as real processes.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

use std::path::{Path, PathBuf};

use lictor_testkit::{Sidecar, eventually_is};
use rustix::process::{Pid, Signal, kill_process};

const LICTOR: &str = env!("CARGO_BIN_EXE_lictor");
const ALONE: &str = "registration: off\nservice: orders\nupstreams:\n  users: {listen: 0, static: ['127.0.0.1:1']}\n";
const LOOP: &str = "while :; do sleep 0.02; done";

fn logged(lictor: &Sidecar, text: &str) {
    eventually_is(&format!("the log has `{text}`"), || lictor.log(), |log| log.contains(text));
}

/// The process that has said `NAME=PID.`
fn process(lictor: &Sidecar, name: &str) -> PathBuf {
    let said = format!("{name}=");
    let log =
        eventually_is(name, || lictor.log(), |log| log.split_once(&said).is_some_and(|(_, rest)| rest.contains('.')));
    let pid = log.split_once(&said).unwrap().1.split_once('.').unwrap().0;
    Path::new("/proc").join(pid)
}

fn end(process: &Path) {
    let pid = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// How it ends, who is left then, and the exit code.
struct Row {
    what: &'static str,
    more: &'static str,
    /// Run by a shell; `HELPER` is one more that says who it is.
    script: &'static str,
    is_asked: bool,
    /// Whether the helper hears SIGTERM, and whether it lives on.
    hears: bool,
    lives: bool,
    code: i32,
}

const ROWS: &[Row] = &[
    Row {
        what: "a helper in the background",
        more: "",
        script: "HELPER & exec sh -c \"trap 'exit 7' TERM; MAIN\"",
        is_asked: true,
        hears: true,
        lives: false,
        code: 7,
    },
    Row {
        what: "a shell that passes nothing on",
        more: "",
        script: "HELPER & MAIN",
        is_asked: true,
        hears: true,
        lives: false,
        code: 143,
    },
    Row {
        what: "a daemon: a session of its own, its parent gone",
        more: "",
        script: "(setsid HELPER &); MAIN",
        is_asked: true,
        hears: true,
        lives: false,
        code: 143,
    },
    Row {
        what: "a daemon's child",
        more: "",
        script: "(setsid sh -c 'HELPER & wait' &); MAIN",
        is_asked: true,
        hears: true,
        lives: false,
        code: 143,
    },
    Row {
        what: "an application that ends by itself",
        more: "",
        script: "HELPER & while ! [ -e GO ]; do sleep 0.02; done; exit 3",
        is_asked: false,
        hears: true,
        lives: false,
        code: 3,
    },
    Row {
        what: "an application that is started again",
        more: "app: {restart: {on_failure: {delay: 300ms, max: 1}}}\n",
        script: "HELPER & while ! [ -e GO ]; do sleep 0.02; done; exit 3",
        is_asked: false,
        hears: true,
        lives: false,
        code: 3,
    },
    Row {
        what: "a helper that does not want to end",
        more: "lifecycle: {kill_after: 300ms}\n",
        script: "trap '' TERM; (setsid DEAF &); trap 'exit 7' TERM; MAIN",
        is_asked: true,
        hears: false,
        lives: false,
        code: 7,
    },
    Row {
        what: "the application alone",
        more: "lifecycle: {signal: child}\n",
        script: "HELPER & exec sh -c \"trap 'exit 7' TERM; MAIN\"",
        is_asked: true,
        hears: false,
        lives: true,
        code: 7,
    },
];

#[test]
fn what_the_application_has_started_ends_with_it() {
    let folder = std::env::temp_dir().join(format!("lictor-application-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let script = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        format!("sh {}", path.display())
    };
    let helper = script("helper", format!("trap 'echo helper heard; exit 0' TERM\necho helper=$$.\n{LOOP}\n"));
    let deaf = script("deaf", format!("echo helper=$$.\n{LOOP}\n"));
    let go = folder.join("go");
    for row in ROWS {
        let _ = std::fs::remove_file(&go);
        let main = format!("echo main=$$.; {LOOP}");
        let text = row.script.replace("HELPER", &helper).replace("DEAF", &deaf).replace("MAIN", &main);
        let text = text.replace("GO", go.to_str().unwrap());
        let mut lictor =
            Sidecar::start(LICTOR, &format!("{ALONE}{}", row.more), &[], &["run"], &["--", "sh", "-c", &text]);
        let helper = process(&lictor, "helper");
        if row.is_asked {
            process(&lictor, "main");
            lictor.signal(Signal::TERM);
        } else {
            std::fs::write(&go, "").unwrap();
        }
        let code = lictor.wait().code();
        assert_eq!((code, helper.exists()), (Some(row.code), row.lives), "{}\n{}", row.what, lictor.log());
        let heard = || lictor.log().contains("helper heard");
        if row.hears {
            eventually_is(row.what, heard, |heard| *heard);
        }
        assert_eq!(heard(), row.hears, "{}", row.what);
        if row.lives {
            end(&helper);
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// It belongs to the script that became lictor.
#[test]
fn whoever_was_there_before_the_application_is_left_alone() {
    let script = format!("sh -c 'echo helper=$$.; {LOOP}' & exec {LICTOR} \"$@\"");
    let rest = ["--", "sh", "-c", &format!("echo main=$$.; {LOOP}")];
    let mut lictor = Sidecar::start("sh", ALONE, &[], &["-c", &script, "sh", "run"], &rest);
    let helper = process(&lictor, "helper");
    process(&lictor, "main");
    assert_eq!(lictor.terminate().code(), Some(143));
    assert!(helper.exists());
    end(&helper);
}

#[test]
fn the_application_has_no_secret_of_lictors_but_what_it_is_left() {
    const SECRETS: [&str; 8] = [
        "LICTOR_ADMIN_TOKEN",
        "LICTOR_SERVICE_TOKEN",
        "LICTOR_CONSUL_TOKEN",
        "LICTOR_CONSUL_HTTP_AUTH",
        "LICTOR_SOMETHING_TOKEN",
        "CONSUL_HTTP_TOKEN",
        "CONSUL_HTTP_TOKEN_FILE",
        "CONSUL_HTTP_AUTH",
    ];
    /// The application's own.
    const OTHERS: [&str; 5] =
        ["INTERNAL_SERVICE_TOKEN", "SERVICE_TOKEN", "CONSUL_HTTP_ADDR", "LICTOR_UPSTREAMS", "GITHUB_TOKEN"];
    let value = |name: &str| match name {
        "CONSUL_HTTP_AUTH" | "LICTOR_CONSUL_HTTP_AUTH" => "user:canary-7f3a-and-more".to_owned(),
        "CONSUL_HTTP_ADDR" => "127.0.0.1:1".to_owned(),
        "CONSUL_HTTP_TOKEN_FILE" => "/no/such/canary-7f3a".to_owned(),
        "LICTOR_UPSTREAMS" => "carts:0=127.0.0.1:1".to_owned(),
        _ => "canary-7f3a-and-more".to_owned(),
    };
    for (more, left) in [
        ("", &[][..]),
        ("app: {inherit: [CONSUL_HTTP_TOKEN]}\n", &["CONSUL_HTTP_TOKEN"]),
        (
            "app: {inherit: [CONSUL_HTTP_TOKEN_FILE, LICTOR_SERVICE_TOKEN]}\n",
            &["CONSUL_HTTP_TOKEN_FILE", "LICTOR_SERVICE_TOKEN"],
        ),
    ] {
        // One after the other: some of them exclude one another.
        for name in SECRETS.into_iter().chain(OTHERS) {
            let env = [(name, value(name))];
            let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let show = format!("echo \"has=${{{name}-none}}.\"");
            let mut lictor =
                Sidecar::start(LICTOR, &format!("{ALONE}{more}"), &env, &["run"], &["--", "sh", "-c", &show]);
            assert_eq!(lictor.wait().code(), Some(0), "{name}: {}", lictor.log());
            logged(&lictor, "has=");
            let has = !lictor.log().contains("has=none.");
            let expected = OTHERS.contains(&name) || left.contains(&name);
            assert_eq!(has, expected, "{name} with `{more}`");
            let is_told = lictor.log().contains("the application does not get these");
            assert_eq!(is_told, !expected, "{name} with `{more}`");
            assert!(!expected || !is_told || !lictor.log().contains("canary"), "no value is told");
        }
    }
    for (more, why) in [
        ("app: {inherit: [LICTOR_ADMIN_TOKEN]}\n", "the application never gets LICTOR_ADMIN_TOKEN"),
        ("app: {inherit: [HOME]}\n", "`HOME` is no secret of lictor's"),
        ("lifecycle: {signal: all}\n", "`all` is neither group nor child"),
        ("service_token: ''\n", "this token is empty"),
        ("service_token: [a-good-one, '${NONE:-}']\n", "this token is empty"),
    ] {
        let mut lictor = Sidecar::start(LICTOR, &format!("{ALONE}{more}"), &[], &["run"], &["--", "true"]);
        assert_eq!(lictor.wait().code(), Some(1));
        logged(&lictor, why);
    }
}
