//! What a descriptor set may be: a file that is followed, and told of where it does not do.

use lictor_testkit::{eventually_is, scratch};

use crate::library::{Service, descriptor};
use crate::transcode::{ask, gateway};
use crate::{LICTOR, Version};

/// A file of a descriptor set: `service x.X { rpc Get(M) returns (M); }`, and `M` with a field of this name.
fn file(field: &str) -> Vec<u8> {
    let part = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat();
    let field = [part(1, field.as_bytes()), vec![3 << 3, 1, 4 << 3, 1, 5 << 3, 9]].concat();
    let of = [part(1, b"M"), part(2, &field)].concat();
    let method = [part(1, b"Get"), part(2, b".x.M"), part(3, b".x.M")].concat();
    let service = [part(1, b"X"), part(2, &method)].concat();
    let file = [part(1, b"x.proto"), part(2, b"x"), part(4, &of), part(6, &service), part(12, b"proto3")].concat();
    part(1, &file)
}

#[test]
fn a_descriptor_is_followed_and_a_bad_one_changes_nothing() {
    let service = Service::start();
    let folder = scratch("descriptor");
    let path = folder.join("api.pb");
    std::fs::write(&path, file("before")).unwrap();
    let routes = format!(
        "    - {{path: /*, to: library, transcode: {{descriptor: {}, map: {{'POST /x': x.X/Get}}}}}}\n",
        path.display()
    );
    let lictor = gateway(&service, &routes);
    let knows =
        |field: &str| ask(&lictor, Version::Http1, "POST", "/x", &format!(r#"{{"{field}": "1"}}"#)).status == 200;
    assert!(knows("before") && !knows("after"));
    let rejected = || lictor.log().matches("config_rejected").count();
    for (number, bad) in [&b"nonsense"[..], &std::fs::read(descriptor()).unwrap()].into_iter().enumerate() {
        std::fs::write(&path, bad).unwrap();
        eventually_is("it is refused", rejected, |count| *count > number);
        assert!(lictor.log().contains("api.pb does not do"), "{}", lictor.log());
        assert!(knows("before") && !knows("after"), "the old one stays");
    }
    std::fs::write(&path, file("after")).unwrap();
    eventually_is("the new one is in force", || knows("after"), |is_there| *is_there);
    assert!(!knows("before"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_descriptor_that_does_not_do_is_told_with_its_file() {
    let folder = scratch("descriptor");
    let (yaml, bad) = (folder.join("lictor.yaml"), folder.join("bad.pb"));
    std::fs::write(&bad, "nonsense").unwrap();
    let (good, bad, missing) =
        (descriptor(), bad.display().to_string(), folder.join("missing.pb").display().to_string());
    let long = folder.join("long.pb");
    std::fs::write(&long, vec![0; (4 << 20) + 1]).unwrap();
    let checked = |transcode: &str| {
        let text = format!(
            "registration: off\nservice: edge\nupstreams: {{library: {{static: ['127.0.0.1:1'], protocol: grpc}}}}\ngateway:\n  listen: 8080\n  routes:\n    - {{path: /*, to: library, transcode: {transcode}}}\n"
        );
        std::fs::write(&yaml, text).unwrap();
        let output = std::process::Command::new(LICTOR).args(["check", "-c"]).arg(&yaml).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for (transcode, why) in [
        (format!("{{descriptor: {bad}, services: [a.B]}}"), format!("{bad} does not do: it is no descriptor set")),
        (format!("{{descriptor: {missing}, services: [a.B]}}"), format!("cannot read {missing}")),
        (format!("{{descriptor: {}, services: [a.B]}}", long.display()), format!("{} is too long", long.display())),
        (format!("{{descriptor: {good}, services: [a.B]}}"), format!("{good} does not do: it has no service `a.B`")),
    ] {
        let (is_good, said) = checked(&transcode);
        assert!(!is_good && said.contains(&why), "{transcode}: {said}");
    }
    let (is_good, said) = checked(&format!("{{descriptor: {good}, services: [library.v1.Library]}}"));
    assert!(is_good, "a control: {said}");
    std::fs::remove_dir_all(folder).unwrap();
}
