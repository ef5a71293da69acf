//! Where a request carries its token: exactly one credential, out of the places that the configuration names (RFC 6750, section 2: a client must
//! not use more than one). Two are refused, whatever they say: who picks one is fooled by whoever picks the other.

use crate::refusal::{Refusal, Why};

/// The places that are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// `Authorization: Bearer ..`.
    pub authorization: bool,
    /// A cookie of this name, to the letter.
    pub cookie: Option<String>,
    /// A parameter of the query of this name. It is in logs, histories and `Referer` of everybody on the way (RFC 6750, section 5.3).
    pub query: Option<String>,
}

impl Default for Sources {
    /// The field alone.
    fn default() -> Self {
        Self { authorization: true, cookie: None, query: None }
    }
}

/// Where one was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `Authorization`.
    Authorization,
    /// The cookie: a browser sends it by itself, so that a method that is not safe needs a check of `Origin` as well.
    Cookie,
    /// The query: [`without`] takes it away before anything else sees it, and the answer is `Cache-Control: private` (RFC 6750, section 2.3).
    Query,
}

/// A token that nobody has looked at yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'r> {
    /// Its text; characters of a token68 (RFC 9110, section 11.2).
    pub token: &'r str,
    /// Where it was.
    pub place: Place,
}

/// The one credential of a request: its `Authorization` fields, its `Cookie` fields, and its query without `?`.
///
/// # Errors
///
/// [`Why::Missing`] when there is none, also when `Authorization` has another scheme; [`Why::SeveralCredentials`] and [`Why::MalformedCredential`]
/// otherwise.
pub fn find<'r>(
    sources: &Sources,
    authorization: impl IntoIterator<Item = &'r [u8]>,
    cookies: impl IntoIterator<Item = &'r [u8]>,
    query: Option<&'r str>,
) -> Result<Found<'r>, Refusal> {
    let mut one = One::default();
    if sources.authorization {
        authorization.into_iter().try_for_each(|field| one.put(Place::Authorization, scheme(field)))?;
    }
    if let Some(name) = &sources.cookie {
        let values = cookies
            .into_iter()
            .flat_map(|field| field.split(|byte| *byte == b';'))
            .filter_map(|pair| cookie(pair, name));
        values.into_iter().try_for_each(|value| one.put(Place::Cookie, Ok(Some(value))))?;
    }
    if let (Some(name), Some(query)) = (&sources.query, query) {
        let values = query.split('&').filter_map(|pair| parameter(pair, name));
        values.into_iter().try_for_each(|value| one.put(Place::Query, Ok(Some(value.as_bytes()))))?;
    }
    one.take()
}

/// The query without the parameter, for everybody behind us; `None` when nothing of it is left.
pub fn without(query: &str, name: &str) -> Option<String> {
    let kept: Vec<&str> = query.split('&').filter(|pair| parameter(pair, name).is_none()).collect();
    (!kept.is_empty()).then(|| kept.join("&")).filter(|query| !query.is_empty())
}

/// What was seen so far.
#[derive(Default)]
struct One<'r> {
    seen: usize,
    found: Option<Found<'r>>,
}

impl<'r> One<'r> {
    /// A credential, whether or not we can use it.
    fn put(&mut self, place: Place, value: Result<Option<&'r [u8]>, Refusal>) -> Result<(), Refusal> {
        self.seen += 1;
        if self.seen > 1 {
            return Err(Refusal::new(Why::SeveralCredentials, "more than one credential"));
        }
        let Some(value) = value? else { return Ok(()) };
        self.found = Some(Found { token: token68(value)?, place });
        Ok(())
    }

    fn take(self) -> Result<Found<'r>, Refusal> {
        let detail = if self.seen == 0 { "no token" } else { "another scheme than Bearer" };
        self.found.ok_or_else(|| Refusal::new(Why::Missing, detail))
    }
}

/// `Bearer`, in any case, one space or more, and the rest; `None` for another scheme (RFC 9110, section 11.4; RFC 6750, section 2.1).
fn scheme(field: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    let field = trimmed(field);
    let end = field.iter().position(|byte| !is_tchar(*byte)).unwrap_or(field.len());
    let (scheme, rest) = field.split_at(end);
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer");
    match rest {
        [b' ', ..] if is_bearer => Ok(Some(&rest[rest.iter().take_while(|byte| **byte == b' ').count()..])),
        [b' ', ..] | [] if !is_bearer && !scheme.is_empty() => Ok(None),
        _ => Err(Refusal::new(Why::MalformedCredential, "not a scheme, a space and a credential")),
    }
}

/// Text without spaces and tabs at its ends (RFC 9110, section 5.6.3).
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// RFC 9110, section 5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Each request has some hundred characters of a token, so that they are looked at many at a time: no branch is taken for one.
fn token68(value: &[u8]) -> Result<&str, Refusal> {
    let padding = value.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = &value[..value.len() - padding];
    let is_token = !body.is_empty() && body.iter().fold(true, |all, byte| all & is_token68(*byte));
    let text = std::str::from_utf8(value).ok().filter(|_| is_token);
    text.ok_or_else(|| Refusal::new(Why::MalformedCredential, "characters that no token has"))
}

/// The characters of a token68 but the padding (RFC 9110, section 11.2); `-./` stand beside each other, and digits follow.
#[expect(clippy::needless_bitwise_bool, reason = "no branch")]
fn is_token68(byte: u8) -> bool {
    ((byte | 0x20).wrapping_sub(b'a') < 26)
        | (byte.wrapping_sub(b'-') < 13)
        | (byte == b'+')
        | (byte == b'_')
        | (byte == b'~')
}

/// The value of a cookie of this name, without its quotes (RFC 6265, section 4.1.1). An empty one is what is left of one that was taken back.
fn cookie<'r>(pair: &'r [u8], name: &str) -> Option<&'r [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let value = Some(trimmed(&pair[equals + 1..])).filter(|_| trimmed(&pair[..equals]) == name.as_bytes())?;
    let value = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    (!value.is_empty()).then_some(value)
}

/// The value of a parameter of this name, however the name is spelled (a backend decodes it).
fn parameter<'r>(pair: &'r str, name: &str) -> Option<&'r str> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    is_spelled(key.as_bytes(), name.as_bytes()).then_some(value)
}

fn is_spelled(mut key: &[u8], name: &[u8]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    for wanted in name {
        let (byte, rest) = match key {
            [b'%', high, low, rest @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, rest),
                _ => return false,
            },
            [b'+', rest @ ..] => (b' ', rest),
            [byte, rest @ ..] => (*byte, rest),
            [] => return false,
        };
        if byte != *wanted {
            return false;
        }
        key = rest;
    }
    key.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Sources {
        Sources { authorization: true, cookie: Some("session".to_owned()), query: Some("access_token".to_owned()) }
    }

    fn asked<'r>(
        sources: &Sources,
        authorization: &[&'r str],
        cookies: &[&'r str],
        query: Option<&'r str>,
    ) -> Result<Found<'r>, Why> {
        let fields = |list: &[&'r str]| list.iter().map(|field| field.as_bytes()).collect::<Vec<_>>();
        find(sources, fields(authorization), fields(cookies), query).map_err(|refusal| refusal.why)
    }

    #[test]
    fn the_field_has_one_credential_of_our_scheme() {
        let table: &[(&[&str], Result<&str, Why>)] = &[
            (&["Bearer a.b.c"], Ok("a.b.c")),
            (&["bearer a.b.c"], Ok("a.b.c")),
            (&["BEARER   a.b.c"], Ok("a.b.c")),
            (&["  Bearer a.b.c \t"], Ok("a.b.c")),
            (&["Bearer a=="], Ok("a==")),
            (&[], Err(Why::Missing)),
            (&["Basic YTpi"], Err(Why::Missing)),
            (&["Negotiate"], Err(Why::Missing)),
            (&["Digest username=\"a\", realm=\"b\""], Err(Why::Missing)),
            (&["Bearer"], Err(Why::MalformedCredential)),
            (&["Bearer "], Err(Why::MalformedCredential)),
            (&[""], Err(Why::MalformedCredential)),
            (&["Bearer\ta.b.c"], Err(Why::MalformedCredential)),
            (&["Bearer a b"], Err(Why::MalformedCredential)),
            (&["Bearer a, Bearer b"], Err(Why::MalformedCredential)),
            (&["Bearer a,b"], Err(Why::MalformedCredential)),
            (&["Bearer a=b"], Err(Why::MalformedCredential)),
            (&["Bearer =="], Err(Why::MalformedCredential)),
            (&["Bearer a;b"], Err(Why::MalformedCredential)),
            (&["Bearer \u{e9}"], Err(Why::MalformedCredential)),
            (&["Bearer:a"], Err(Why::MalformedCredential)),
            (&["\"Bearer\" a"], Err(Why::MalformedCredential)),
            (&["Bearer a", "Bearer a"], Err(Why::SeveralCredentials)),
            (&["Bearer a", "Basic YTpi"], Err(Why::SeveralCredentials)),
            (&["Basic YTpi", "Bearer a"], Err(Why::SeveralCredentials)),
        ];
        for (fields, expected) in table {
            let found = asked(&Sources::default(), fields, &["session=x"], Some("access_token=y"));
            assert_eq!(found, expected.map(|token| Found { token, place: Place::Authorization }), "{fields:?}");
        }
    }

    #[test]
    fn characters_of_a_token_are_those_of_the_grammar() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_token68(byte), byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte), "{byte}");
        }
    }

    #[test]
    fn a_request_has_one_credential_in_all_places_together() {
        let (field, cookie, query) = (&["Bearer a"][..], &["session=b"][..], Some("access_token=c"));
        let none: &[&str] = &[];
        let found = |token, place| Ok(Found { token, place });
        let table = [
            (field, none, None, found("a", Place::Authorization)),
            (none, cookie, None, found("b", Place::Cookie)),
            (none, none, query, found("c", Place::Query)),
            (none, none, None, Err(Why::Missing)),
            (field, cookie, None, Err(Why::SeveralCredentials)),
            (field, none, query, Err(Why::SeveralCredentials)),
            (none, cookie, query, Err(Why::SeveralCredentials)),
            (field, cookie, query, Err(Why::SeveralCredentials)),
            (&["Basic YTpi"][..], cookie, None, Err(Why::SeveralCredentials)),
            // The others of their kind are not looked at.
            (none, &["a=1; session=b; sessio=2"][..], None, found("b", Place::Cookie)),
            (none, &["a=1", "session=\"b\""][..], None, found("b", Place::Cookie)),
            (none, &["Session=b"][..], None, Err(Why::Missing)),
            (none, &["session="][..], None, Err(Why::Missing)),
            (none, &["session"][..], None, Err(Why::Missing)),
            (none, &["session=", "session=b"][..], None, found("b", Place::Cookie)),
            (none, &["session=b; session=c"][..], None, Err(Why::SeveralCredentials)),
            (none, &["session=b", "session=b"][..], None, Err(Why::SeveralCredentials)),
            (none, &["session=b c"][..], None, Err(Why::MalformedCredential)),
            (none, &["session=\"b"][..], None, Err(Why::MalformedCredential)),
            (none, none, Some("x=1&access_token=c&y"), found("c", Place::Query)),
            (none, none, Some("%61ccess%5Ftoken=c"), found("c", Place::Query)),
            (none, none, Some("access_tokens=c&xaccess_token=d&=e&"), Err(Why::Missing)),
            (none, none, Some("Access_Token=c"), Err(Why::Missing)),
            (none, none, Some("access_token=c&%61ccess_token=d"), Err(Why::SeveralCredentials)),
            (none, none, Some("access_token="), Err(Why::MalformedCredential)),
            (none, none, Some("access_token"), Err(Why::MalformedCredential)),
            (none, none, Some("access_token=%63"), Err(Why::MalformedCredential)),
            (none, none, Some("access_token=c;d"), Err(Why::MalformedCredential)),
        ];
        for (fields, cookies, query, expected) in table {
            assert_eq!(asked(&all(), fields, cookies, query), expected, "{fields:?} {cookies:?} {query:?}");
        }
    }

    #[test]
    fn the_query_goes_on_without_it() {
        for (query, expected) in [
            ("access_token=c", None),
            ("a=1&access_token=c&b=2", Some("a=1&b=2")),
            ("%61ccess_token=c&a=%26", Some("a=%26")),
            ("access_token=c&access_token=d", None),
            ("a&access_token", Some("a")),
            ("a=access_token=c", Some("a=access_token=c")),
            ("", None),
        ] {
            assert_eq!(without(query, "access_token").as_deref(), expected, "{query}");
        }
    }
}
