//! Unix sockets between an application and its sidecar, both ways.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use lictor_testkit::{Authority, Backend, RawServer, Sidecar, eventually_is, read_head, request};

use crate::LICTOR;

fn folder() -> Authority {
    Authority::new() // for its folder
}

/// What a caller's configuration is whose upstream `users` listens there.
fn at(socket: &Path, backend: &Backend) -> String {
    format!(
        "registration: off\nworkers: 2\nupstreams:\n  users: {{listen: 'unix:{}', static: ['127.0.0.1:{}']}}\n",
        socket.display(),
        backend.port()
    )
}

fn get(path: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn applications_may_call_through_a_unix_socket() {
    let backend = Backend::start("a");
    let folder = folder();
    let socket = folder.ca().with_file_name("users.sock");
    let yaml = at(&socket, &backend);
    let mut lictor = Sidecar::serve(LICTOR, &yaml).up();
    for _ in 0..4 {
        let answer = get(&socket, "/users/1");
        assert!(answer.contains("a GET /users/1 "), "{answer}");
        assert!(!answer.to_lowercase().contains("x-forwarded-for"), "{answer}");
    }
    let metadata = std::fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o666);
    let logged = eventually_is("it is logged", || lictor.lines("request"), |lines| lines.len() == 4);
    assert_eq!(logged[0]["ip"], "unix");
    assert!(lictor.terminate().success());
    assert!(!socket.exists(), "it is removed");
}

#[test]
fn a_socket_that_a_killed_process_left_is_replaced_and_a_live_one_is_not() {
    let backend = Backend::start("a");
    let folder = folder();
    let socket = folder.ca().with_file_name("users.sock");
    let yaml = at(&socket, &backend);
    drop(UnixListener::bind(&socket).unwrap()); // closed, but still there
    let first = Sidecar::serve(LICTOR, &yaml).up();
    assert!(get(&socket, "/1").contains("a GET /1 "));
    let mut second = Sidecar::serve(LICTOR, &yaml);
    assert!(!second.wait().success());
    assert!(second.log().contains("another process listens there"), "{}", second.log());
    assert!(get(&socket, "/2").contains("a GET /2 "), "the first goes on");
    drop(first);
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "precious").unwrap();
    let mut third = Sidecar::serve(LICTOR, &yaml);
    assert!(!third.wait().success());
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn a_socket_file_is_removed_by_whoever_made_it_alone() {
    let backend = Backend::start("a");
    let folder = folder();
    let socket = folder.ca().with_file_name("users.sock");
    let unix = at(&socket, &backend);
    for ends in ["a reload", "a stop"] {
        let mut lictor = Sidecar::serve(LICTOR, &unix).up();
        assert!(get(&socket, "/").contains("a GET / "));
        std::fs::remove_file(&socket).unwrap();
        let another = UnixListener::bind(&socket).unwrap();
        match ends {
            "a reload" => {
                lictor.rewrite(&unix);
                let refused = lictor.post("/reload");
                assert_eq!(refused.status, 422, "its place is taken: {}", refused.text());
                lictor.rewrite(&unix.replace(&format!("'unix:{}'", socket.display()), "0"));
                assert_eq!(lictor.post("/reload").status, 200);
            }
            _ => assert!(lictor.terminate().success()),
        }
        assert!(UnixStream::connect(&socket).is_ok(), "after {ends} it is the other's, as before");
        drop(another);
        std::fs::remove_file(&socket).unwrap();
    }
}

#[test]
fn a_socket_file_that_somebody_removed_is_there_again_after_a_reload() {
    let backend = Backend::start("a");
    let folder = folder();
    let socket = folder.ca().with_file_name("users.sock");
    let yaml = at(&socket, &backend);
    let mut lictor = Sidecar::serve(LICTOR, &yaml).up();
    for _ in 0..2 {
        std::fs::remove_file(&socket).unwrap();
        assert_eq!(lictor.post("/reload").status, 200);
        assert!(get(&socket, "/").contains("a GET / "));
    }
    assert!(lictor.terminate().success());
    assert!(!socket.exists());
}

#[test]
fn an_application_may_listen_on_a_unix_socket() {
    let folder = folder();
    let socket = folder.ca().with_file_name("app.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                while !read_head(&mut stream).is_empty() {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nthe app!").unwrap();
                }
            });
        }
    });
    let yaml = format!(
        "registration: off\nservice: users\napp: {{address: 'unix:{}'}}\ninbound: {{listen: '127.0.0.1:0'}}\n",
        socket.display()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let answer = request(&lictor.address("inbound"), "GET", "/", &[], b"").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "the app!"));
    let health = lictor.page("/health");
    assert_eq!(health["checks"]["app"]["status"], "healthy", "{health}");
    drop(folder);
    std::fs::remove_file(&socket).ok();
    let gone = request(&lictor.address("inbound"), "GET", "/", &[("Connection", "close")], b"").unwrap();
    assert!(gone.status == 200 || gone.text().contains("does not exist"), "{}", gone.text());
}

#[test]
fn bytes_pass_through_unix_sockets_too() {
    let echo = RawServer::echo();
    let folder = folder();
    let socket = folder.ca().with_file_name("redis.sock");
    let yaml = format!(
        "registration: off\nupstreams:\n  redis: {{listen: 'unix:{}', protocol: tcp, static: ['127.0.0.1:{}']}}\n",
        socket.display(),
        echo.port()
    );
    let _lictor = Sidecar::serve(LICTOR, &yaml).up();
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}
