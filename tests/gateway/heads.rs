//! The longest head that a route takes.

use crate::{Ask, BOTH, ask, echo, gateway_of};

#[test]
fn a_head_is_as_long_as_its_route_takes() {
    let one = echo("one");
    let routes = "    - {path: /*, to: one}\n    - {path: /long, to: one, head_max: 4KiB}\n    - {path: /told, respond: {body: told}}\n";
    let lictor = gateway_of(&[("one", &one)], "  head_max: 1KiB\n", routes);
    let (fits, long) = ("x".repeat(500), "x".repeat(1_100));
    for version in BOTH {
        for (target, value, status) in [
            ("/short", &fits, 200),
            ("/short", &long, 431),
            ("/told", &fits, 200),
            ("/told", &long, 431),
            ("/long", &long, 200),
        ] {
            let fields = [("x-filler", value.as_str())];
            let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get(target) });
            let is_told = told.status != 431 || told.body.contains("the head is longer than this route takes");
            assert!(told.status == status && is_told, "{version:?} {target} {}: {told:?}", value.len());
        }
    }
}
