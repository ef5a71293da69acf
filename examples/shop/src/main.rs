//! The shop: user-service, product-service and order-service, and a demonstration of them on a real Consul.
//!
//! `shop user|product|order --port N` is one instance of a service; it knows nothing of Consul, retries or breakers.
//! `shop demo` starts all of them, each beside its own lictor, and lets things go wrong.

mod demo;
mod figures;
mod service;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let port = option("--port").and_then(|port| port.parse().ok()).unwrap_or(0);
    let lictor = option("--lictor").unwrap_or_else(|| "target/release/lictor".to_owned());
    match arguments.first().map(String::as_str) {
        Some(kind @ ("user" | "product" | "order")) => service::run(kind, port),
        Some("demo") => demo::run(&lictor),
        Some("figures") => figures::run(&lictor),
        _ => {
            eprintln!("usage: shop user|product|order --port N | shop demo|figures [--lictor PATH]");
            ExitCode::from(2)
        }
    }
}
