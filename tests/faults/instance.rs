//! A backend that is a process of its own, so that it can be killed and stopped like one: `instance NAME PORT`.

use lictor_testkit::Backend;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a name");
    let port = arguments.next().and_then(|port| port.parse().ok()).expect("a port");
    let _backend = Backend::on(&name, port);
    loop {
        std::thread::park();
    }
}
