//! `acme:` of a policy, from whom its certificates are ordered.

use std::net::IpAddr;
use std::sync::Arc;

use lictor_core::acme::{Acme, Challenge, DIRECTORY, Order};
use lictor_core::gateway::HostPattern;
use serde_json::json;

use super::auth::fetched;
use crate::tree::Node;

/// What is said of a host that a CA can be asked about (RFC 8555, section 7.1.3).
const HOST_MAX: usize = 64;

/// From whom; `None` where nobody is asked, or a mistake was told.
pub(super) fn acme(node: &Node<'_>, redirects: bool) -> Option<Arc<Acme>> {
    if node.is_off() {
        return None;
    }
    let section = node.section(&[]);
    let directory = section.field("directory", "The URL of the CA's directory. Default: Let's Encrypt's.");
    let url = directory
        .parsed(json!({ "type": "string" }), Some(DIRECTORY), |text| fetched(text, "a CA is asked"))
        .unwrap_or_else(|| DIRECTORY.to_owned());
    let contact = section.field("contact", "Whom the CA may write to: addresses of mail.");
    let contact =
        contact.elements().iter().filter_map(|entry| entry.parsed(json!({ "type": "string" }), None, mailto)).collect();
    let storage = section.field(
        "storage",
        "The folder where account, orders and certificates are kept; gateways that serve one host share it.",
    );
    let folder = storage.file();
    let ca = section.field("ca", "Who is believed to be the CA's server (PEM); default: the system's CAs say.").file();
    let challenge = section.field("challenge", "How the CA sees that a host is ours: http-01 by `redirect_http`, which it reaches on port 80, or tls-alpn-01 by `listen`, on port 443.");
    let how =
        challenge.choice(&[("http-01", Challenge::Http01), ("tls-alpn-01", Challenge::TlsAlpn01)], Some("http-01"));
    let terms = section.field("terms_agreed", "The CA's terms of service are agreed to: it takes no account without.");
    let is_agreed = terms.boolean(false);
    section.finish();
    if !node.is_set() {
        return None;
    }
    if node.is_map() && folder.is_none() {
        node.error("`acme` needs `storage`", Some("write `storage: /var/lib/lictor/acme`".to_owned()));
    }
    if node.is_map() && !is_agreed {
        let help = "write `terms_agreed: true` once you have read them; the CA's directory says where they are";
        node.error("no CA gives certificates to who does not agree to its terms", Some(help.to_owned()));
    }
    if node.is_map() && how == Some(Challenge::Http01) && !redirects {
        let help = "write `redirect_http: 80` in `gateway`, or `challenge: tls-alpn-01`".to_owned();
        node.error("http-01 is answered without TLS, and there is no such listener", Some(help));
    }
    Some(Arc::new(Acme { directory: url, contact, storage: folder?, ca, challenge: how? }))
}

/// What is ordered for a host of the policy.
pub(super) fn order(node: &Node<'_>, host: &HostPattern, acme: &Arc<Acme>) -> Option<Order> {
    match host {
        HostPattern::Exact(host) if is_name(host) && host.len() <= HOST_MAX => {
            Some(Order { host: host.clone(), acme: Arc::clone(acme) })
        }
        HostPattern::Exact(_) => {
            node.error(
                format!("a certificate is ordered for a name like `shop.example`, of at most {HOST_MAX} letters"),
                None,
            );
            None
        }
        HostPattern::Under(_) | HostPattern::Any => {
            let help = "name each host; for `*.` give `cert` and `key`".to_owned();
            node.error("CAs give certificates for `*.` only to who changes the DNS, which lictor does not", Some(help));
            None
        }
    }
}

fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
        && host.split('.').all(|label| {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty() && label.bytes().all(is_letter) && !label.starts_with('-') && !label.ends_with('-')
        })
}

fn mailto(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b",?%<>\"".contains(&byte);
    match address.split_once('@') {
        Some((who, host)) if !who.is_empty() && !host.is_empty() && address.bytes().all(is_plain) => {
            Ok(format!("mailto:{address}"))
        }
        _ => Err(format!("`{text}` is no address of mail: write `ops@shop.example`")),
    }
}
