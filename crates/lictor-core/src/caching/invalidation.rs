//! Which kept answers a request makes invalid (RFC 9111, section 4.4).

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, StatusCode};

/// Whether this method, answered so, may have changed what its target is. `None`: it was sent, and nobody knows what came
/// of it.
pub fn spoils(method: &Method, status: Option<StatusCode>) -> bool {
    let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    let is_done = status.is_none_or(|status| status.is_success() || status.is_redirection());
    !is_safe && *method != Method::CONNECT && is_done
}

/// Targets that such an answer names besides: of the same host only, or anybody could empty anybody's cache.
pub fn also_spoiled<'a>(headers: &'a HeaderMap, hosts: &'a [&str], target: &'a str) -> impl Iterator<Item = String> {
    [LOCATION, CONTENT_LOCATION].into_iter().filter_map(move |name| {
        let named = headers.get(name)?.to_str().ok()?;
        resolved(named.split('#').next().unwrap_or_default(), hosts, target)
    })
}

/// A reference as the target of a request (RFC 3986, section 5.2); `None` for another host.
fn resolved(named: &str, hosts: &[&str], target: &str) -> Option<String> {
    let rest = ["http://", "https://", "//"].iter().find_map(|start| {
        let is_it = named.get(..start.len()).is_some_and(|given| given.eq_ignore_ascii_case(start));
        is_it.then(|| &named[start.len()..])
    });
    if let Some(rest) = rest {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        return hosts.iter().any(|ours| host.eq_ignore_ascii_case(ours)).then(|| without_dots(&path));
    }
    let is_other_scheme = named.find(':').is_some_and(|at| !named[..at].contains(['/', '?']));
    if named.is_empty() || is_other_scheme {
        return None;
    }
    let base = target.split('?').next().unwrap_or_default();
    match named.as_bytes()[0] {
        b'/' => Some(without_dots(named)),
        b'?' => Some(format!("{base}{named}")),
        _ => {
            let folder = base.rfind('/').map_or("/", |at| &base[..=at]);
            Some(without_dots(&format!("{folder}{named}")))
        }
    }
}

/// Without `.` and `..` (RFC 3986, section 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    if !path.contains("/.") {
        return target.to_owned();
    }
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => (),
            ".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    let is_folder = path.ends_with("/.") || path.ends_with("/..");
    let end = if is_folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}{query}", kept.join("/"))
}
