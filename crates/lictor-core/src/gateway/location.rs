//! Where an answer's `Location` leads, as its client knows it: a service behind a route with `strip` says paths as it sees them.

use super::path::{read_again, remove_segments, segments};

/// The value with what the route took off its paths (`/api`); `None`: it leads elsewhere, or says that already.
///
/// What leads to the service itself begins with a slash, or names the client's host or the service's (RFC 9110, section 10.2.2;
/// RFC 3986, section 4.2); the latter is nothing that a client could ask, and goes. Both are asked about a host in small letters,
/// with its port unless that is the scheme's own ([`is_host`]).
pub fn restored(
    value: &str,
    prefix: &str,
    is_client: impl Fn(&str) -> bool,
    is_service: impl Fn(&str) -> bool,
) -> Option<String> {
    let (origin, rest) = split(value)?;
    let kept = match origin {
        None => "",
        Some((text, host)) if is_client(&host) => text,
        Some((_, host)) if is_service(&host) => "",
        Some(_) => return None,
    };
    let at = rest.find(['?', '#']).unwrap_or(rest.len());
    let (path, rest) = rest.split_at(at);
    // Two slashes would begin a host, for browsers also where one is turned.
    let path = format!("/{}", path.trim_start_matches(['/', '\\']));
    let path = read_again(&path).map_or_else(|_| without_dots(&path), |read| read.as_str().to_owned());
    let has_prefix = segments(prefix).zip(segments(&path)).filter(|(wanted, own)| wanted == own).count();
    let prefix = if has_prefix == segments(prefix).count() { "" } else { prefix };
    let restored = format!("{kept}{prefix}{path}{rest}");
    (restored != value).then_some(restored)
}

/// A path that a request could not have, in which clients find the dots of segments all the same: escaped, and behind a
/// slash that is turned (WHATWG URL, "path state").
fn without_dots(path: &str) -> String {
    remove_segments(&path.replace('\\', "/").replace("%2e", ".").replace("%2E", "."))
}

/// Whether a `Host` is this one, whatever scheme it was sent by.
pub fn is_host(field: &str, host: &str) -> bool {
    plain(field, ":443") == host || plain(field, ":80") == host
}

/// The origin as it stands there with its host, and what follows; `None` for what is relative to where the client is.
fn split(value: &str) -> Option<(Option<(&str, String)>, &str)> {
    let lower = |many: usize| value.get(..many).map(str::to_ascii_lowercase).unwrap_or_default();
    let (begin, port) = if lower(8) == "https://" {
        (8, ":443")
    } else if lower(7) == "http://" {
        (7, ":80")
    } else if value.starts_with("//") {
        (2, "")
    } else {
        return value.starts_with('/').then_some((None, value));
    };
    let end = value[begin..].find(['/', '\\', '?', '#']).map_or(value.len(), |at| begin + at);
    let (origin, rest) = value.split_at(end);
    Some((Some((origin, plain(&origin[begin..], port))), rest))
}

/// A host in small letters, without the port that is its scheme's own (`:443`).
pub fn plain(host: &str, port: &str) -> String {
    host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_the_service_leads_there_by_the_gateway() {
        for (value, becomes) in [
            ("/users/1", "/api/users/1"),
            ("/", "/api/"),
            ("/?page=2", "/api/?page=2"),
            ("/a?to=/b#c", "/api/a?to=/b#c"),
            ("/apis", "/api/apis"),
            ("/a/../b/./c", "/api/b/c"),
            ("/../../etc", "/api/etc"),
            ("/a//b/", "/api/a/b/"),
            ("/%zz", "/api/%zz"),
            ("/../x y", "/api/x y"),
            ("/a/../é", "/api/é"),
            ("/a;b/../../c?../d", "/api/c?../d"),
            ("/%2e%2E/.%2e/x y/%2e/", "/api/x y/"),
            ("/..\\..\\a", "/api/a"),
            ("http://orders/../é", "/api/é"),
            ("/api/../x y", "/api/x y"),
            ("/\\evil.example/a", "/api/evil.example/a"),
            ("http://shop.example/a", "http://shop.example/api/a"),
            ("HTTPS://Shop.Example:443/a?b", "HTTPS://Shop.Example:443/api/a?b"),
            ("https://shop.example", "https://shop.example/api/"),
            ("https://shop.example?a", "https://shop.example/api/?a"),
            ("https://shop.example//evil.example", "https://shop.example/api/evil.example"),
            ("//shop.example/a", "//shop.example/api/a"),
            ("http://orders/a", "/api/a"),
            ("http://ORDERS:80/a#b", "/api/a#b"),
            ("http://orders", "/api/"),
            ("http://orders//evil.example/a", "/api/evil.example/a"),
            ("http://orders/\\evil.example", "/api/evil.example"),
            ("http://127.0.0.1:8080/a", "/api/a"),
            ("//orders/a", "/api/a"),
            // It says it already.
            ("/api", "/api"),
            ("/api/users", "/api/users"),
            ("https://shop.example/api/users", "https://shop.example/api/users"),
            ("http://orders/api/users", "/api/users"),
            // It leads elsewhere.
            ("https://shop.example:8443/a", "https://shop.example:8443/a"),
            ("https://shop.example:80/a", "https://shop.example:80/a"),
            ("http://127.0.0.1:8081/a", "http://127.0.0.1:8081/a"),
            ("https://idp.example/login?back=/a", "https://idp.example/login?back=/a"),
            ("https://shop.example.evil.example/a", "https://shop.example.evil.example/a"),
            ("https://shop.example@evil.example/a", "https://shop.example@evil.example/a"),
            ("https://evil.example\\@shop.example/a", "https://evil.example\\@shop.example/a"),
            ("//evil.example/a", "//evil.example/a"),
            ("ftp://shop.example/a", "ftp://shop.example/a"),
            ("mailto:a@shop.example", "mailto:a@shop.example"),
            // It is relative to where the client is.
            ("next", "next"),
            ("../a", "../a"),
            ("?page=2", "?page=2"),
            ("#a", "#a"),
            ("", ""),
        ] {
            let is_service = |host: &str| host == "orders" || host == "127.0.0.1:8080";
            let is_client = |host: &str| is_host("shop.example", host);
            let made = restored(value, "/api", is_client, is_service);
            assert_eq!(made.as_deref().unwrap_or(value), becomes, "{value}");
            let again = restored(becomes, "/api", is_client, is_service);
            assert_eq!(again, None, "{becomes} says it already");
            assert!(!made.is_some_and(|made| made.contains("//evil")), "{value}");
        }
        for client in ["shop.example:443", "SHOP.example", "shop.example:80"] {
            let made = restored("https://shop.example/a", "/api/v1", |host| is_host(client, host), |_| false);
            assert_eq!(made.as_deref(), Some("https://shop.example/api/v1/a"), "{client}");
        }
        assert_eq!(restored("/a/api/v1", "/api/v1", |_| false, |_| false).as_deref(), Some("/api/v1/a/api/v1"));
        assert_eq!(restored("/api/v2", "/api/v1", |_| false, |_| false).as_deref(), Some("/api/v1/api/v2"));
    }
}
