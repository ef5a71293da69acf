//! What a gateway changes of the fields of its requests and answers, as the configuration says: `rename`, `remove`, `set`,
//! `add`, in this order. Values may have places ([`Template`]) that each request fills; where there is nothing to fill one with,
//! the whole field is left out. Nothing is read from the environment, a file or a secret, and a value that was filled in is never
//! read again.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::template::Template;

/// Fields that one head may be given.
pub const OPERATIONS_MAX: usize = 50;
/// Longest value that is made: what a client sends must not become larger by being named often.
const VALUE_MAX: usize = 8 << 10;

/// What becomes of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Under another name, each value.
    pub rename: Vec<(HeaderName, HeaderName)>,
    /// Taken off.
    pub remove: Vec<HeaderName>,
    /// In place of what is there.
    pub set: Vec<(HeaderName, Value)>,
    /// Beside what is there.
    pub add: Vec<(HeaderName, Value)>,
}

/// A field's value: with or without places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// As it is.
    Fixed(HeaderValue),
    /// Filled in by each request.
    Made(Template<Variable>),
}

/// What may fill a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `{client_ip}`: who asks.
    ClientIp,
    /// `{request_id}`.
    RequestId,
    /// `{host}`: as the client called it, in small letters and without a port.
    Host,
    /// `{method}`.
    Method,
    /// `{path}`: as it was read, before a route changes it.
    Path,
    /// `{scheme}`: `https` or `http`.
    Scheme,
    /// `{route}`: its label.
    Route,
    /// `{param:id}`: a segment of the path, by the name that the route gives it.
    Param(usize),
    /// `{claim:sub}`: of the token that was believed.
    Claim(Box<str>),
    /// `{header:X-Name}`: of the request, as it came in; of a field that stands twice, nothing.
    Header(HeaderName),
}

/// Whose head it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of requests, on their way to upstreams.
    Request,
    /// Of answers, on their way to clients.
    Answer,
}

/// How messages are framed and what their connections are: lictor's alone (RFC 9110, section 7.6.1; RFC 9112, section 6).
const FRAMING: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What lictor vouches for, or tells by other keys.
const MANAGED: [&str; 19] = [
    "forwarded",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "idempotency-key",
    "max-forwards",
    "proxy-status",
    "traceparent",
    "tracestate",
    "vary",
    "via",
    "x-client-cert",
    "x-client-ip",
    "x-gateway-request-id",
    "x-parent-id",
    "x-request-id",
    "x-service-auth",
    "x-span-id",
    "x-trace-id",
];

/// The same, by how they begin.
const MANAGED_BEGINS: [&str; 10] = [
    "access-control-",
    "proxy-auth",
    "x-b3-",
    "x-envoy-",
    "x-forwarded-",
    "x-lictor-",
    "x-original-",
    "x-rewrite-",
    "x-ssl-",
    "x-user-",
];

/// What is said of a name that may not be changed.
pub fn may_change(name: &HeaderName) -> Result<(), String> {
    // Programs that make every sign of a name one take these for the same.
    let plain = name.as_str().replace(|sign: char| !sign.is_ascii_alphanumeric(), "-");
    if FRAMING.contains(&&*plain) {
        return Err(format!("`{name}` says how a message is framed or carried: lictor alone writes it"));
    }
    if plain.starts_with("access-control-") {
        return Err(format!("`{name}` is what `cors` says"));
    }
    if MANAGED.contains(&&*plain) || MANAGED_BEGINS.iter().any(|begin| plain.starts_with(begin)) {
        return Err(format!("`{name}` is one that those behind the gateway rely on: lictor alone writes it"));
    }
    Ok(())
}

impl Value {
    /// Reads one; `param` knows where in the path a route's name stands. In words why not.
    pub fn parse(text: &str, side: Side, param: impl Fn(&str) -> Option<usize>) -> Result<Self, String> {
        let template = Template::parse(text, |name, what| variable(name, what, side, &param))?;
        let texts: String = template.texts().collect();
        let is_fixed = template.places().next().is_none();
        let value = HeaderValue::try_from(texts)
            .map_err(|_| "not a header value: no line breaks or control characters".to_owned())?;
        Ok(if is_fixed { Self::Fixed(value) } else { Self::Made(template) })
    }

    /// What the field says; `None`: it is left out. `fill` writes what fills a place, or says that there is nothing.
    pub fn made(&self, fill: impl FnMut(&Variable, &mut Vec<u8>) -> bool) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Made(template) => {
                let mut fill = fill;
                let whole = template.write(|variable, out| {
                    let before = out.len();
                    fill(variable, out) && out.len() > before && out.len() <= VALUE_MAX
                })?;
                // A value with CR, LF or NUL is refused: the field is left out.
                HeaderValue::from_bytes(&whole).ok()
            }
        }
    }
}

impl Operations {
    /// Whether there is anything to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Does it. `fill` writes what fills a place, or says that there is nothing.
    pub fn apply(&self, headers: &mut HeaderMap, mut fill: impl FnMut(&Variable, &mut Vec<u8>) -> bool) {
        // All are made of what is there before any is written.
        let made = |list: &[(HeaderName, Value)], fill: &mut dyn FnMut(&Variable, &mut Vec<u8>) -> bool| {
            list.iter().map(|(name, value)| (name.clone(), value.made(&mut *fill))).collect::<Vec<_>>()
        };
        let (set, add) = (made(&self.set, &mut fill), made(&self.add, &mut fill));
        for (from, to) in &self.rename {
            let values: Vec<HeaderValue> = headers.get_all(from).into_iter().cloned().collect();
            headers.remove(from);
            for value in values {
                headers.append(to, value);
            }
        }
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in set {
            // What was there is not what is meant, even where nothing can be said.
            headers.remove(&name);
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        for (name, value) in add {
            if let Some(value) = value {
                headers.append(name, value);
            }
        }
    }
}

fn variable(
    name: &str,
    what: Option<&str>,
    side: Side,
    param: &impl Fn(&str) -> Option<usize>,
) -> Result<Variable, String> {
    let known = match (name, what) {
        ("client_ip", None) => Variable::ClientIp,
        ("request_id", None) => Variable::RequestId,
        ("host", None) => Variable::Host,
        ("method", None) => Variable::Method,
        ("path", None) => Variable::Path,
        ("scheme", None) => Variable::Scheme,
        ("route", None) => Variable::Route,
        ("param", Some(segment)) => {
            let at = param(segment).ok_or_else(|| format!("the route's path has no `{{{segment}}}`"))?;
            Variable::Param(at)
        }
        ("claim", Some(claim)) if side == Side::Request => Variable::Claim(claim.into()),
        ("claim", Some(_)) => return Err("who somebody is, is nothing to tell in answers".to_owned()),
        ("header", Some(field)) => {
            let field = HeaderName::try_from(field).map_err(|_| format!("`{field}` is not a header name"))?;
            Variable::Header(field)
        }
        _ => {
            return Err(format!(
                "there is no `{{{name}{}}}`; known: client_ip, request_id, host, method, path, scheme, route, param:NAME, claim:NAME, header:NAME",
                what.map(|what| format!(":{what}")).unwrap_or_default()
            ));
        }
    };
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Value, String> {
        Value::parse(text, Side::Request, |name| (name == "id").then_some(1))
    }

    fn fill(variable: &Variable, out: &mut Vec<u8>) -> bool {
        let text: &[u8] = match variable {
            Variable::ClientIp => b"127.0.0.1",
            Variable::Param(1) => b"{client_ip}",
            Variable::Header(name) if name == "x-bad" => b"a\r\nX-Evil: b",
            Variable::Header(name) if name == "x-nul" => b"a\0b",
            Variable::Header(name) if name == "x-long" => &[b'a'; VALUE_MAX + 1],
            Variable::Header(name) if name == "x-empty" => b"",
            _ => return false,
        };
        out.extend_from_slice(text);
        true
    }

    #[test]
    fn values_are_made_once_or_not_at_all() {
        for (text, made) in [
            ("fixed", Some("fixed")),
            ("{client_ip}", Some("127.0.0.1")),
            ("for={client_ip};x", Some("for=127.0.0.1;x")),
            ("{param:id}", Some("{client_ip}")),
            ("{request_id}", None),
            ("a {request_id} b", None),
            ("{header:X-Bad}", None),
            ("{header:X-Nul}", None),
            ("{header:X-Long}", None),
            ("{header:X-Empty}", None),
            ("{claim:sub}", None),
            ("{\"a\": 1}", Some("{\"a\": 1}")),
        ] {
            let made_of = value(text).unwrap().made(fill);
            assert_eq!(made_of.as_ref().map(|value| value.to_str().unwrap()), made, "{text}");
        }
        for wrong in
            ["{nothing}", "{env:HOME}", "{param:other}", "{header:a b}x{y}", "{client_ip:1}", "a\nb", "a\0b", "{param}"]
        {
            assert!(value(wrong).is_err(), "{wrong:?}");
        }
        assert!(Value::parse("{claim:sub}", Side::Answer, |_| None).is_err());
    }

    #[test]
    fn operations_are_done_in_their_order() {
        let name = |name: &'static str| HeaderName::from_static(name);
        let operations = Operations {
            rename: vec![(name("x-old"), name("x-new"))],
            remove: vec![name("x-gone")],
            set: vec![
                (name("x-set"), value("{header:x-empty}").unwrap()),
                (name("x-ip"), value("{client_ip}").unwrap()),
            ],
            add: vec![(name("x-new"), value("3").unwrap()), (name("x-gone"), value("added").unwrap())],
        };
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-old", "1"), ("x-old", "2"), ("x-gone", "a"), ("x-gone", "b"), ("x-set", "was"), ("x-ip", "spoofed")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        operations.apply(&mut headers, fill);
        let all = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("x-old"), all("x-new")), (vec![], vec!["1", "2", "3"]));
        assert_eq!((all("x-gone"), all("x-set"), all("x-ip")), (vec!["added"], vec![], vec!["127.0.0.1"]));
    }

    #[test]
    fn names_that_others_rely_on_stay() {
        for refused in [
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "TE",
            "Upgrade",
            "Via",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "X-User-ID",
            "x.user.id",
            "X-Lictor-From",
            "X-Service-Auth",
            "traceparent",
            "X-Request-ID",
            "Access-Control-Allow-Origin",
            "Forwarded",
            "X-Original-URL",
            "Proxy-Authorization",
            "Date",
        ] {
            assert!(may_change(&HeaderName::try_from(refused).unwrap()).is_err(), "{refused}");
        }
        for free in [
            "X-Custom",
            "Server",
            "Cache-Control",
            "Set-Cookie",
            "X-Powered-By",
            "Authorization",
            "X-Userland",
            "Accept",
        ] {
            assert!(may_change(&HeaderName::try_from(free).unwrap()).is_ok(), "{free}");
        }
    }
}
