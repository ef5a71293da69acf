//! What a gateway changes of the fields of its requests and answers, as the configuration says: `rename`, `remove`, `set`,
//! `add`, in this order. Values may have places ([`Template`]) that each request fills; where there is nothing to fill one with,
//! the whole field is left out. Nothing is read from the environment, a file or a secret, and a value that was filled in is never
//! read again.

use http::{HeaderMap, HeaderName, HeaderValue};
use lictor_jose::rules::Claim;

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
    Claim(Claim),
    /// `{header:X-Name}`: of the request, before any of this; of a field that stands twice, nothing.
    Header(HeaderName),
}

/// The values for one head; `None`: the field is left out.
#[derive(Clone, Debug, Default)]
pub struct Made {
    set: Vec<Option<HeaderValue>>,
    add: Vec<Option<HeaderValue>>,
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
pub const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a message says of itself: nobody else can.
const OF_MESSAGES: [&str; 4] = ["content-encoding", "content-range", "date", "host"];

/// What lictor vouches for, or tells by other keys.
const MANAGED: [&str; 22] = [
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
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
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

/// A name in which each sign is `-`: programs that make every sign of a name one take these for the same.
fn plain(name: &HeaderName) -> String {
    name.as_str().replace(|sign: char| !sign.is_ascii_alphanumeric(), "-")
}

/// Whether some programs take one for the other.
pub fn is_alike(one: &HeaderName, other: &HeaderName) -> bool {
    plain(one) == plain(other)
}

/// What nobody from outside may say: who somebody is and whom a request came by, what lictors tell each other, and fields
/// that name another target or method than the request's, which some servers obey.
pub const OUTSIDERS: &[&str] = &[
    "forwarded",
    "l5d-timeout",
    "x-client-cert",
    "x-client-ip",
    "x-gateway-request-id",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
    "x-service-auth",
];

/// The same, by how they begin.
pub const OUTSIDERS_BEGIN: &[&str] =
    &["x-envoy-", "x-forwarded-", "x-lictor-", "x-original-", "x-rewrite-", "x-ssl-", "x-user-"];

/// Whether a gateway takes this off each request, whoever sends it.
pub fn is_outsiders(name: &HeaderName) -> bool {
    let plain = plain(name);
    OUTSIDERS.contains(&&*plain) || OUTSIDERS_BEGIN.iter().any(|begin| plain.starts_with(begin))
}

/// What is said of a name that may not be changed.
pub fn may_change(name: &HeaderName) -> Result<(), String> {
    let plain = plain(name);
    if FRAMING.contains(&&*plain) || OF_MESSAGES.contains(&&*plain) {
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

/// The same of a name that others' values would get: a value of the configuration may say who asks, one of a client's may not.
pub fn may_become(name: &HeaderName) -> Result<(), String> {
    if plain(name) == "x-real-ip" {
        return Err(format!("`{name}` would say what the client says: write `set: {{{name}: '{{client_ip}}'}}`"));
    }
    may_change(name)
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

    /// Whether some value names the request.
    pub fn names_request(&self) -> bool {
        self.set.iter().chain(&self.add).any(|(_, value)| match value {
            Value::Fixed(_) => false,
            Value::Made(template) => template.places().any(|place| *place == Variable::RequestId),
        })
    }

    /// Every field that it is about.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let renamed = self.rename.iter().flat_map(|(from, to)| [from, to]);
        let written = self.set.iter().chain(&self.add).map(|(name, _)| name);
        renamed.chain(&self.remove).chain(written)
    }

    /// What it writes into one head: all is made of what is there before anything is written. `fill` writes what fills a place,
    /// or says that there is nothing.
    pub fn made(&self, mut fill: impl FnMut(&Variable, &mut Vec<u8>) -> bool) -> Made {
        let mut made =
            |list: &[(HeaderName, Value)]| list.iter().map(|(_, value)| value.made(&mut fill)).collect::<Vec<_>>();
        Made { set: made(&self.set), add: made(&self.add) }
    }

    /// Does it, with what it has [made](Self::made) for this head.
    pub fn apply(&self, made: Made, headers: &mut HeaderMap) {
        // All are taken off before any is back, so that two may change places.
        let take = |(from, to)| (to, take(headers, from));
        let renamed: Vec<(&HeaderName, Vec<HeaderValue>)> =
            self.rename.iter().map(|(from, to)| (from, to)).map(take).collect();
        for (name, values) in renamed {
            for value in values {
                headers.append(name, value);
            }
        }
        for name in &self.remove {
            headers.remove(name);
        }
        for ((name, _), value) in self.set.iter().zip(made.set) {
            // What was there is not what is meant, even where nothing can be said.
            headers.remove(name);
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        for ((name, _), value) in self.add.iter().zip(made.add) {
            if let Some(value) = value {
                headers.append(name, value);
            }
        }
    }
}

fn take(headers: &mut HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    let values = headers.get_all(name).into_iter().cloned().collect();
    headers.remove(name);
    values
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
        ("claim", Some(claim)) if side == Side::Request => {
            Variable::Claim(Claim::parse(claim).ok_or_else(|| format!("`{claim}` names no claim"))?)
        }
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
            rename: vec![(name("x-old"), name("x-new")), (name("x-a"), name("x-b")), (name("x-b"), name("x-a"))],
            remove: vec![name("x-gone")],
            set: vec![
                (name("x-set"), value("{header:x-empty}").unwrap()),
                (name("x-ip"), value("{client_ip}").unwrap()),
            ],
            add: vec![(name("x-new"), value("3").unwrap()), (name("x-gone"), value("added").unwrap())],
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-old", "1"),
            ("x-old", "2"),
            ("x-a", "a"),
            ("x-b", "b"),
            ("x-gone", "a"),
            ("x-gone", "b"),
            ("x-set", "was"),
            ("x-ip", "spoofed"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        operations.apply(operations.made(fill), &mut headers);
        let all = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("x-old"), all("x-new")), (vec![], vec!["1", "2", "3"]));
        assert_eq!((all("x-a"), all("x-b")), (vec!["b"], vec!["a"]), "two change places");
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
            "X-HTTP-Method-Override",
            "x_method_override",
        ] {
            let refused = HeaderName::try_from(refused).unwrap();
            assert!(may_change(&refused).is_err() && may_become(&refused).is_err(), "{refused}");
        }
        for real in ["X-Real-IP", "x_real_ip"].map(|name| HeaderName::try_from(name).unwrap()) {
            assert!(may_change(&real).is_ok() && may_become(&real).is_err(), "{real}");
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
