//! What of a request's head may be shown: in `/tap`, stories, lines of the log and spans. One rule for all of them.
//!
//! It is a deny-list, because whoever looks wants to see the fields of his own applications: by **names**, and for what has an
//! innocent name by the **shape** of the value. A name that is known to hold nothing secret is shown whatever its value looks like. When in doubt there are stars.

use std::borrow::Cow;

/// How what is not shown is shown.
pub const STARS: &str = "***";

/// In a field's name, or that of a parameter.
const SECRET: [&str; 24] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "passphrase",
    "passcode",
    "pwd",
    "key",
    "session",
    "sid",
    "credential",
    "signature",
    "jwt",
    "assertion",
    "bearer",
    "otp",
    "csrf",
    "xsrf",
    "nonce",
    "ticket",
    "saml",
    "private",
    "cert",
];
/// Names that have one of these, and no secret.
const HARMLESS: [&str; 14] = [
    ":authority",
    "idempotency-key",
    "sec-websocket-key",
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-trace-id",
    "x-span-id",
    "x-parent-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "etag",
    "if-none-match",
    "if-match",
];
/// How tokens of well-known makers begin.
const MAKERS: [&str; 16] = [
    "eyJ",
    "sk_",
    "pk_",
    "rk_",
    "sk-",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "hvs.",
    "-----BEGIN",
];
/// Of an `Authorization` under another name.
const SCHEMES: [&str; 9] = ["bearer", "basic", "digest", "negotiate", "token", "apikey", "ntlm", "hmac", "dpop"];
/// Protocols over WebSocket (IANA's registry, and what is usual); anything else there may be a token, as a browser can send none elsewhere.
const PROTOCOLS: [&str; 14] = [
    "graphql-ws",
    "graphql-transport-ws",
    "mqtt",
    "mqttv3.1",
    "mqttv5.0",
    "soap",
    "wamp",
    "wamp.2.json",
    "stomp",
    "v10.stomp",
    "v11.stomp",
    "v12.stomp",
    "json",
    "chat",
];
/// A word that is longer, and looks drawn by lot, is a secret.
const LONG: usize = 24;

/// A field's value.
pub fn field<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    match name {
        "sec-websocket-protocol" => Cow::Owned(protocols(value)),
        name if HARMLESS.contains(&name) => without_user(value),
        name if is_secret(name) => Cow::Borrowed(STARS),
        _ => shaped(value),
    }
}

/// A path, without its query. An id is shown, and a token is not.
pub fn path(path: &str) -> Cow<'_, str> {
    let is_shown = |segment: &str| !is_token(segment) && !segment.split(';').any(is_secret_pair);
    if !may_hide(path) || path.split('/').all(is_shown) {
        return Cow::Borrowed(path);
    }
    let shown = path.split('/').map(|segment| if is_shown(segment) { segment } else { STARS });
    Cow::Owned(shown.collect::<Vec<_>>().join("/"))
}

/// Whether a segment is as long as a token's least, or has a parameter: usually none is, and this is all that it costs.
fn may_hide(path: &str) -> bool {
    let mut run = 0;
    path.bytes().any(|byte| {
        run = if byte == b'/' { 0 } else { run + 1 };
        run > 8 || byte == b'='
    })
}

/// Whether a name is one of a secret.
fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|word| name.len() >= word.len() && contains(name, word))
}

fn contains(name: &str, word: &str) -> bool {
    name.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

/// `token=..`
fn is_secret_pair(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| is_secret(name))
}

/// A value with an innocent name: what in it looks like a secret is stars, and so are queries and users of URLs.
fn shaped(value: &str) -> Cow<'_, str> {
    let first = value.split(' ').next().unwrap_or_default();
    if value.len() > first.len() && SCHEMES.iter().any(|scheme| first.eq_ignore_ascii_case(scheme)) {
        return Cow::Borrowed(STARS);
    }
    let value = without_user(value);
    if !value.split(is_end).any(|word| starred(word).is_some()) {
        return value;
    }
    let mut shown = String::with_capacity(value.len());
    let mut rest = &*value;
    while !rest.is_empty() {
        let end = rest.find(is_end).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        shown.push_str(starred(word).as_deref().unwrap_or(word));
        let ends = after.find(|c| !is_end(c)).unwrap_or(after.len());
        shown.push_str(&after[..ends]);
        rest = &after[ends..];
    }
    Cow::Owned(shown)
}

/// Between the words of a value.
fn is_end(c: char) -> bool {
    matches!(c, ' ' | ',' | ';' | '"' | '<' | '>' | '(' | ')' | '\t')
}

/// A word with stars where it must have them; `None` where it need not.
fn starred(word: &str) -> Option<String> {
    if let Some(at) = word.find(['?', '#']).filter(|at| at + 1 < word.len()) {
        return Some(format!("{}{}{STARS}", path(&word[..at]), &word[at..=at])); // queries and fragments hold secrets too
    }
    match word.split_once('=') {
        Some((name, value)) if is_secret(name) || is_token(value) => Some(format!("{name}={STARS}")),
        _ if is_token(word) => Some(STARS.to_owned()),
        _ if word.contains('/') => Some(path(word)).filter(|shown| shown != word).map(Cow::into_owned),
        _ => None,
    }
}

/// Whether it looks like one: a maker's, or long and of letters in both cases and digits. Numbers, words, UUIDs and digests in
/// hexadecimal do not.
fn is_token(word: &str) -> bool {
    if word.len() > 8 && MAKERS.iter().any(|maker| word.starts_with(maker)) {
        return true;
    }
    if word.len() < LONG || !word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+=%:".contains(&byte)) {
        return false;
    }
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase)
}

fn protocols(value: &str) -> String {
    let known = |one: &str| PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(one));
    value.split(',').map(str::trim).map(|one| if known(one) { one } else { STARS }).collect::<Vec<_>>().join(", ")
}

/// A URL or host with stars for its `user:password@` (RFC 3986, section 3.2.1).
fn without_user(url: &str) -> Cow<'_, str> {
    let from = url.find("//").map_or(0, |at| at + 2);
    let to = url[from..].find(['/', '?', '#', ' ']).map_or(url.len(), |at| from + at);
    match url[from..to].rfind('@') {
        Some(at) => Cow::Owned(format!("{}{STARS}{}", &url[..from], &url[from + at..])),
        None => Cow::Borrowed(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_stars_whatever_their_field_is_called() {
        const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl";
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-service-auth",
            "x-consul-token",
            "x-api-key",
            "api-key",
            "x-amz-security-token",
            "www-authenticate",
            "x-csrf-token",
            "x-session-id",
            "x-client-secret",
            "cf-access-jwt-assertion",
            "ocp-apim-subscription-key",
            "x-goog-iap-jwt-assertion",
            "dd-api-key",
            "x-vault-token",
            "x-auth-email",
            "x-hub-signature-256",
            "x-forwarded-client-cert",
            "x-password",
            "x-ms-client-principal-private",
            "x-otp",
            "x-saml-response",
        ] {
            assert_eq!(field(name, "hunter2"), STARS, "{name}");
        }
        for (name, value, expected) in [
            ("x-custom", JWT, STARS),
            ("x-custom", "Bearer hunter2", STARS),
            ("x-custom", "basic aHVudGVyMg==", STARS),
            ("x-custom", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", STARS),
            ("x-custom", "AKIAIOSFODNN7EXAMPLE", STARS),
            ("x-custom", "a; token=hunter2, b", "a; token=***, b"),
            ("x-original-uri", "/a?token=hunter2", "/a?***"),
            ("x-original-url", "https://a/b?code=hunter2#x", "https://a/b?***"),
            ("x-forwarded-uri", "/reset/eyJhbGciOiJIUzI1NiJ9.x.y/now", "/reset/***/now"),
            ("referer", "https://me:hunter2@a/b@c?d=e", "https://***@a/b@c?***"),
            ("location", "/callback#access_token=hunter2", "/callback#***"),
            ("link", "</a?token=hunter2>; rel=next", "</a?***>; rel=next"),
            ("refresh", "0; url=/a?token=hunter2", "0; url=/a?***"),
            ("baggage", "user=7,api_key=hunter2", "user=7,api_key=***"),
            ("host", "me:hunter2@users:80", "***@users:80"),
            (":authority", "me:hunter2@users:80", "***@users:80"),
            ("sec-websocket-protocol", "graphql-ws, hunter2", "graphql-ws, ***"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.aHVudGVyMg", STARS),
        ] {
            assert_eq!(field(name, value), expected, "{name}: {value}");
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for (name, value) in [
            ("host", "users"),
            (":path", "/users/1"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
            ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            ("content-type", "multipart/form-data; boundary=----formdata-undici-012345678901"),
            ("x-request-id", "01a2298b-51a9-763b-b283-94282da3a093"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("etag", "\"33a64df551425fcc55e4d42a148795d9f25f89d4\""),
            ("date", "Sun, 29 Nov 2026 23:00:00 GMT"),
            ("x-tenant", "acme"),
            ("x-user-id", "7"),
            ("grpc-status", "0"),
            ("idempotency-key", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
            ("x-digest", "33a64df551425fcc55e4d42a148795d9f25f89d4"),
        ] {
            assert_eq!(field(name, value), value, "{name}");
        }
        for shown in [
            "/",
            "/users/1",
            "/orders/01a2298b-51a9-763b-b283-94282da3a093",
            "/pkg.v1.UserService/GetUserById",
            "/a/b/c.html",
            "/objects/33a64df551425fcc55e4d42a148795d9f25f89d4",
        ] {
            assert_eq!(path(shown), shown);
        }
        for (kept, expected) in [
            ("/reset/eyJhbGciOiJIUzI1NiJ9.e.s", "/reset/***"),
            ("/bot/AbCdEfGhIjKlMnOpQrStUvWx12/send", "/bot/***/send"),
            ("/a;jsessionid=1234/b", "/***/b"),
        ] {
            assert_eq!(path(kept), expected);
        }
    }
}
