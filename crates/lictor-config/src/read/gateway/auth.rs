//! `auth:`, who may ask. What a gateway believes is said once, for all its routes; a route says what it asks of it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use lictor_core::gateway::auth::{Auth, ClaimField, How, Methods, Mode, Tokens};
use lictor_jose::forward::Spelling;
use lictor_jose::rules::{Claim, Rules, Test};
use lictor_jose::source::Sources;
use lictor_jose::{Algorithm, Issuer, KeySet, Keyring, MAX_LEEWAY, Remote, Source};
use serde_json::{Value as Json, json};

use super::super::service::refuse_well_known;
use super::{asking, basic, keys};
use crate::tree::{Node, Section};
use crate::values;

const MODES: [(&str, Mode); 3] = [("required", Mode::Required), ("optional", Mode::Optional), ("none", Mode::None)];
/// The most issuers of a gateway: each token may be compared with all of them.
const ISSUERS_MAX: usize = 32;
/// How long keys are used that cannot be fetched again.
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);
/// Fields that are not the gateway's to set by a claim: HTTP's own, and those that say who is asked for what.
const NOT_OURS: [&str; 14] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The gateway's: how somebody may show who he is, and what is asked where a route says nothing.
pub(super) fn of_gateway(
    node: &Node<'_>,
    asks_for_certificates: bool,
    called: impl FnMut(&Node<'_>) -> Option<Arc<str>>,
) -> Option<Arc<Auth>> {
    let section = node.off_unless(false).section(&[]);
    let jwt = section.field("jwt", "Signed tokens: an issuer, or a list of them.");
    let from = section.field("from", "Where a request may have its token; one place at a time.");
    let tokens = tokens(&jwt.off_unless(false), &from.off_unless(jwt.is_set()));
    let keys_node = section.field("keys", "Keys that clients were given; the gateway's alone, as all ways are.");
    let forward = section.field("forward", "A service that is asked whether a request may go on.");
    let basic_node = section.field("basic", "Names and passwords (RFC 7617).");
    let certificates_node = section.field(
        "certificates",
        "The names of the client's certificate (`client_ca` of its TLS), where nothing else is shown.",
    );
    let certificates = certificates_node.boolean(false);
    if certificates && !asks_for_certificates {
        certificates_node.error("nobody is asked for a certificate", Some("give `tls` a `client_ca`".to_owned()));
    }
    let users = basic::users(&basic_node);
    let keys = keys::keys(&keys_node.off_unless(false));
    let asking = asking::asking(&forward.off_unless(false), called);
    if let (Some(keys), Some(asking)) = (&keys, &asking)
        && keys.header.as_ref().is_some_and(|header| asking.headers_out.contains(header))
    {
        forward.below("headers_out").error("the field of `keys` is taken off each request: no service sees it", None);
    }
    if node.is_set() && ![&jwt, &keys_node, &basic_node, &forward].iter().any(|way| way.is_set()) && !certificates {
        node.error(
            "`auth` needs `jwt`, `keys`, `basic`, `certificates` or `forward`: whom to believe",
            Some("write `jwt: {secret: '${JWT_SECRET}'}`".to_owned()),
        );
    }
    let methods = Methods { tokens, keys, users, certificates, asking: asking.map(Arc::new) };
    let base = nothing(methods, Mode::Required);
    let auth = asked(&section, &base);
    section.finish();
    node.is_set().then(|| Arc::new(auth))
}

/// A route's: `none`, `optional`, `required`, or a map.
pub(super) fn of_route(node: &Node<'_>, base: Option<&Arc<Auth>>) -> Option<Arc<Auth>> {
    let is_short = node.scalar().is_some();
    let section = if is_short { node.unset() } else { node.off_unless(base.is_some()) };
    let section = section.section(&[json!({ "type": "string" })]);
    let Some(base) = base else {
        // Read all the same, so that its keys are known; there is nobody to believe.
        let auth = asked(&section, &nothing(Methods::default(), Mode::None));
        section.finish();
        let is_none = is_short && node.choice(&MODES, None) == Some(Mode::None) || !is_short && auth.mode == Mode::None;
        if node.is_set() && !is_none {
            node.error(
                "the gateway has no `auth`: nobody could be believed",
                Some("write `auth: {jwt: ..}` at the gateway".to_owned()),
            );
        }
        return None;
    };
    let auth = if is_short {
        Auth { mode: node.choice(&MODES, None).unwrap_or(base.mode), ..(**base).clone() }
    } else {
        asked(&section, base)
    };
    section.finish();
    Some(if auth == **base { Arc::clone(base) } else { Arc::new(auth) })
}

/// Nothing is asked of who has shown who he is.
fn nothing(methods: Methods, mode: Mode) -> Auth {
    Auth {
        methods: Arc::new(methods),
        mode,
        by: Vec::new(),
        rules: Rules::default(),
        fields: Vec::new(),
        ends_streams: true,
    }
}

/// What a route asks; what it does not say is as the base has it.
fn asked(section: &Section<'_>, base: &Auth) -> Auth {
    let mode = section.field(
        "mode",
        "`required`; `optional`: what is shown must be good, and nothing need be; `none`: nobody looks.",
    );
    let shown = MODES.iter().find(|(_, mode)| *mode == base.mode).map(|(word, _)| *word);
    let rules = rules(&section.field("require", "What somebody must be, beside known; 403 otherwise."), &base.rules);
    let fields = section.field(
        "claims_to_headers",
        "Claims that those behind us see, by the field that they see them in. No client may set these fields.",
    );
    let by = section.field(
        "by",
        "Which of the ways are taken: `jwt`, `keys`, `basic`, `certificates`, `forward`. Default: all that there are.",
    );
    let streams = section.field(
        "stream_expiry",
        "`close`: a WebSocket, SSE or gRPC stream ends when its token does; `ignore`: it goes on.",
    );
    Auth {
        methods: Arc::clone(&base.methods),
        mode: mode.choice(&MODES, shown).unwrap_or(base.mode),
        by: ways(&by, base),
        rules,
        fields: claim_fields(&fields, &base.fields),
        ends_streams: streams
            .choice(&[("close", true), ("ignore", false)], Some(if base.ends_streams { "close" } else { "ignore" }))
            .unwrap_or(base.ends_streams),
    }
}

fn ways(node: &Node<'_>, base: &Auth) -> Vec<How> {
    let mut ways = Vec::new();
    for entry in node.elements() {
        let Some(how) = entry.choice(&How::ALL, None) else { continue };
        if !base.methods.has(how) {
            entry.error(format!("the gateway's `auth` has no `{}`", how.as_str()), None);
        }
        ways.push(how);
    }
    if node.is_set() && ways.is_empty() {
        node.error("needs at least one way", Some("where nobody must show anything, write `mode: none`".to_owned()));
    }
    if node.is_set() { ways } else { base.by.clone() }
}

fn tokens(jwt: &Node<'_>, from: &Node<'_>) -> Option<Tokens> {
    let entries = if jwt.is_map() || jwt.is_describing() || !jwt.is_set() { vec![jwt.clone()] } else { jwt.elements() };
    if let Some(entry) = entries.get(ISSUERS_MAX) {
        entry.error(format!("more than {ISSUERS_MAX} issuers"), None);
    }
    let read: Vec<_> = entries.iter().map(issuer).collect();
    let sources = sources(from);
    let read: Option<Vec<_>> = read.into_iter().collect();
    if !jwt.is_set() {
        if from.is_set() {
            from.key_error("`from` is about tokens, and there is no `jwt`", None);
        }
        return None;
    }
    match Keyring::new(read?) {
        Ok(keyring) => Some(Tokens { keyring: Arc::new(keyring), sources }),
        Err(mistake) => {
            jwt.error(mistake.to_string(), Some("give each its own `issuer`, and a `name`".to_owned()));
            None
        }
    }
}

fn issuer(node: &Node<'_>) -> Option<(Issuer, Source)> {
    let section = node.section(&[json!({ "type": "array" })]);
    let name = section
        .field("name", "What it is called in logs, metrics and `require.issuers`; default: `issuer`, else `default`.");
    let iss = section.field(
        "issuer",
        "What the claim `iss` must say, byte for byte. One without takes the tokens that name none of the others.",
    );
    let audiences = section.field("audience", "Of which the claim `aud` must have one; without, nobody looks at it.");
    let algorithms_node = section.field("algorithms", "How tokens may be signed, all of one family: HS256, RS256, PS256, ES256, EdDSA, .. Default: HS256 with `secret`, RS256 with `jwks`.");
    let leeway = section.field("leeway", "How far clocks may differ, for `exp` and `nbf`; at most 60s.");
    let required = section.field("required", "Claims that must be there besides `exp`.");
    let typ = section.field("typ", "What the header's `typ` must say, such as `at+jwt`; without, any.");
    let jwks = section.field("jwks", "Where the issuer's keys are: https, or http on this machine.");
    let secret = section.field("secret", "A shared secret, of at least 32 bytes.");
    let max_stale =
        section.field("max_stale", "How long keys are used that cannot be fetched again; then the answer is 503.");
    let defaults = Issuer::default();
    let iss_text = iss.text(None);
    let name = name.text(None).or_else(|| iss_text.clone()).unwrap_or_else(|| defaults.name.to_string());
    let default = if jwks.is_set() { Algorithm::RS256 } else { Algorithm::HS256 };
    let algorithms = algorithms(&algorithms_node, default);
    let read_leeway = leeway.duration(defaults.leeway);
    if read_leeway > MAX_LEEWAY {
        leeway.error("clocks that differ by more than 60s are to be set", None);
    }
    let issuer = Issuer {
        name: name.into(),
        iss: iss_text,
        audiences: words(&audiences),
        algorithms,
        leeway: read_leeway.min(MAX_LEEWAY),
        required: words(&required),
        typ: typ.text(None),
    };
    let url = jwks.parsed(
        json!({ "type": "string", "examples": ["https://idp.example/.well-known/jwks.json"] }),
        None,
        |text| fetched(text, "keys are fetched"),
    );
    let kept = max_stale.duration(MAX_STALE);
    let shared = secret.secret();
    section.finish();
    let source = match (jwks.is_set(), secret.is_set()) {
        (true, false) => url.map(|url| Source::Remote(Remote::new(&url, kept))),
        (false, true) => {
            if max_stale.is_set() {
                max_stale.key_error("`max_stale` is about keys that are fetched (`jwks`)", None);
            }
            let shared = shared?;
            refuse_well_known(&secret, &shared);
            match KeySet::secret(shared.reveal().as_bytes(), &issuer.algorithms) {
                Ok(keys) => Some(Source::Known(Arc::new(keys))),
                Err(why) => {
                    secret.error(why.to_string(), Some("make one: openssl rand -hex 32".to_owned()));
                    None
                }
            }
        }
        _ => {
            if node.is_set() {
                node.error("an issuer has one of `jwks` and `secret`", None);
            }
            None
        }
    };
    Some((issuer, source?))
}

fn algorithms(node: &Node<'_>, default: Algorithm) -> Vec<Algorithm> {
    let parse = |text: &str| {
        let known = || Algorithm::ALL.map(Algorithm::name).join(", ");
        Algorithm::parse(text).ok_or_else(|| format!("`{text}` is not built: known are {}", known()))
    };
    let elements = node.elements();
    let list: Vec<_> =
        elements.iter().filter_map(|entry| entry.parsed(json!({ "type": "string" }), None, parse)).collect();
    if list.is_empty() { vec![default] } else { list }
}

/// Where something comes from that is believed. What came over a network in the clear would be anybody's (RFC 8725, section
/// 3.10; RFC 8555, section 6.1).
pub(super) fn fetched(text: &str, what: &str) -> Result<String, String> {
    if values::names_user(text) {
        return Err("the URL may name no user: it is shown".to_owned());
    }
    let url: Uri = text.parse().map_err(|why| format!("`{text}` is no URL: {why}"))?;
    let host = url.host().unwrap_or_default();
    let is_here =
        matches!(host, "localhost" | "[::1]") || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match url.scheme_str() {
        _ if host.is_empty() => Err(format!("`{text}` has no host")),
        Some("https") => Ok(text.to_owned()),
        Some("http") if is_here => Ok(text.to_owned()),
        _ => Err(format!("{what} by https, or by http on this machine")),
    }
}

fn sources(node: &Node<'_>) -> Sources {
    let section = node.section(&[]);
    let header = section.field("header", "`Authorization: Bearer ..`.").boolean(true);
    let cookie = section.field("cookie", "A cookie of this name. A method that is not safe needs a sign that our own pages ask: `Sec-Fetch-Site`, or `Origin`.");
    let query =
        section.field("query", "A parameter of the query of this name; it is taken away before anything sees it.");
    let is_name = |text: &str| {
        let is_one =
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_one {
            Ok(text.to_owned())
        } else {
            Err(format!("`{text}` is no name: letters, digits, `-`, `.` and `_`"))
        }
    };
    let name = |node: &Node<'_>| node.parsed(json!({ "type": "string" }), None, is_name);
    let sources = Sources { authorization: header, cookie: name(&cookie), query: name(&query) };
    section.finish();
    if !header && sources.cookie.is_none() && sources.query.is_none() {
        node.error("no place is left where a token could be", None);
    }
    sources
}

fn rules(node: &Node<'_>, base: &Rules) -> Rules {
    let section = node.section(&[]);
    let list = |name, help, base: &Vec<String>| {
        let node = section.field(name, help);
        let words = words(&node);
        if node.is_set() { words } else { base.clone() }
    };
    let issuers = list("issuers", "Issuers by `name`; a token of another is not for this route.", &base.issuers);
    let audiences = list("audiences", "Of which `aud` must have one, beside what its issuer asks.", &base.audiences);
    let scopes = list("scopes", "All of them.", &base.scopes);
    let roles = list("roles", "One of them.", &base.roles);
    let scope_claim =
        section.field("scope_claim", "Where scopes are: a text of words, or a list; `/a/b` is a JSON Pointer.");
    let role_claim = section
        .field("role_claim", "Where roles are: a text, or a list of them; `/realm_access/roles` is a JSON Pointer.");
    let claims = section.field("claims", "Claims that must have this value, one of these, or any (`*`).");
    let rules = Rules {
        issuers,
        audiences,
        scopes,
        roles,
        scope_claim: claim(&scope_claim, &base.scope_claim),
        role_claim: claim(&role_claim, &base.role_claim),
        claims: if claims.is_set() {
            tests(&claims)
        } else {
            tests(&claims);
            base.claims.clone()
        },
    };
    section.finish();
    rules
}

/// Claims, and what each must be.
pub(super) fn tests(node: &Node<'_>) -> Vec<(Claim, Test)> {
    let mut tests = Vec::new();
    for entry in node.entries() {
        let read: Vec<Test> = entry.elements().iter().filter_map(test).collect();
        let values: Vec<Json> = read.iter().flat_map(values_of).cloned().collect();
        let name = entry.name();
        let Some(claim) = Claim::parse(&name) else {
            entry.key_error(format!("`{name}` is no claim"), None);
            continue;
        };
        if read.contains(&Test::Exists) {
            tests.push((claim, Test::Exists));
        } else if !values.is_empty() {
            tests.push((claim, Test::OneOf(values)));
        } else if !entry.is_describing() {
            entry.error("needs a value, several, or `*`", None);
        }
    }
    tests
}

fn values_of(test: &Test) -> &[Json] {
    match test {
        Test::Exists => &[],
        Test::OneOf(values) => values,
    }
}

/// One value. What reads as a boolean or a number of JSON is one, as everywhere in this file; a text of the same letters is written
/// as JSON has it: `'"true"'`.
fn test(node: &Node<'_>) -> Option<Test> {
    node.parsed(json!({ "type": ["string", "number", "boolean"] }), None, |text| {
        let read = serde_json::from_str(text).ok();
        let read = read.filter(|it: &Json| it.is_boolean() || it.is_number() || it.is_string());
        Ok(if text == "*" { Test::Exists } else { Test::OneOf(vec![read.unwrap_or_else(|| json!(text))]) })
    })
}

fn claim(node: &Node<'_>, base: &Claim) -> Claim {
    let parse = |text: &str| Claim::parse(text).ok_or_else(|| format!("`{text}` is no claim"));
    node.parsed(json!({ "type": "string" }), Some(base.text()), parse).unwrap_or_else(|| base.clone())
}

fn claim_fields(node: &Node<'_>, base: &[ClaimField]) -> Vec<ClaimField> {
    let mut fields: Vec<ClaimField> = Vec::new();
    for entry in node.entries() {
        let section = entry.section_or_short("claim", &[json!({ "type": "string" })]);
        let claim_node = section.field("claim", "Which; `/a/b` is a JSON Pointer.");
        let encode = section.field(
            "encode",
            "`plain`: what a field cannot carry is not sent; `percent`: as in a URL, for names of people.",
        );
        let parse = |text: &str| Claim::parse(text).ok_or_else(|| format!("`{text}` is no claim"));
        let claim = claim_node.parsed(json!({ "type": "string" }), None, parse);
        let spelling = encode.choice(&[("plain", Spelling::Plain), ("percent", Spelling::Percent)], Some("plain"));
        section.finish();
        if entry.is_describing() {
            continue;
        }
        if claim.is_none() && !claim_node.is_set() {
            entry.error("needs a `claim`", None);
        }
        let Some(name) = field_name(&entry, &fields) else { continue };
        fields.extend(claim.map(|claim| ClaimField { name, claim, spelling: spelling.unwrap_or(Spelling::Plain) }));
    }
    if node.is_set() { fields } else { base.to_vec() }
}

fn field_name(entry: &Node<'_>, fields: &[ClaimField]) -> Option<HeaderName> {
    let text = entry.name();
    let name = HeaderName::try_from(&*text)
        .ok()
        .filter(|name| name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    let Some(name) = name else {
        entry.key_error(format!("`{text}` is no name of a field of letters, digits and `-`"), None);
        return None;
    };
    let plain = name.as_str();
    let is_lictors = plain.starts_with("x-lictor-")
        || plain.starts_with("x-forwarded-")
        || plain == "x-service-auth"
        || plain == "forwarded";
    if NOT_OURS.contains(&plain) || is_lictors {
        entry.key_error(format!("`{text}` says something else already"), None);
        return None;
    }
    if fields.iter().any(|field| field.name == name) {
        entry.key_error(format!("`{name}` is there twice: names of fields do not differ by case"), None);
        return None;
    }
    Some(name)
}

fn words(node: &Node<'_>) -> Vec<String> {
    node.elements().iter().filter_map(|entry| entry.text(None)).collect()
}
