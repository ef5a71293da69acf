//! What the gateway would say of a request that is not sent: whose route it is, and whether he may. It is judged by the same
//! functions as one that comes. What only a sending could find out is told as what would be asked; no credential is repeated.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderName, Request, Uri};
use lictor_core::gateway::auth::{self, Auth, How, Identity, Mode, Tokens};
use lictor_core::gateway::maintenance::Allow;
use lictor_core::gateway::{Action, Gateway, Send, label};
use lictor_core::{Failure, Reason};
use lictor_jose::{Kind, Why};

use super::maintenance::{self, Held};
use super::refusal::{Because, No, refusal};
use super::shown::{self, Shown, Shows};
use super::{Stop, asking, basic, transcode};
use crate::admission::routed::{self, Found, Routed, Says, Told};
use crate::calls::explain::{Admitted, AuthView, Question, Refusal};
use crate::names;
use crate::world::view::View;
use crate::world::worker::Worker;

/// What the gateway's routes say of it; `None`: it is not asked there.
pub(crate) async fn admitted(worker: &Worker, view: &View, question: &Question) -> Result<Option<Admitted>, Refusal> {
    let Some(url) = &question.url else { return Ok(None) };
    let none = || Failure::new(Reason::NoRoute, "there is no gateway in this configuration");
    let gateway = view.mesh.gateway.as_ref().ok_or_else(none)?;
    let mut request = request(question, url);
    names::strip_outsiders(request.headers_mut());
    let shows = shown::take(gateway, &mut request);
    let (uri, authority) = (request.uri(), url.authority().map_or("", |authority| authority.as_str()));
    let found = routed::find(gateway, request.method(), authority, uri, request.headers(), |_, _| Ok(None))?;
    let (rules, orders) = (Arc::clone(&found.rules), view.mesh.maintenance.as_deref());
    // Where a request of his would come from nobody knows.
    let held = maintenance::check(&rules, orders, &found.label, None, request.headers());
    let held = held.map(|held| (in_maintenance(&found, &held), held));
    if let Some((failure, _)) = held.as_ref().filter(|(_, held)| !held.may_show) {
        return Err(failure.clone().into());
    }
    let Some(auth) = found.rules.auth.clone() else { return lead(gateway, found, None, None, question).map(Some) };
    let judged = Box::pin(judged(worker, gateway, &auth, found, shows, &request)).await;
    if let Some((failure, _)) = held {
        let passes = |judged: &Judged| maintenance::passes(&rules, judged.who.identity.as_ref());
        if !judged.as_ref().is_ok_and(passes) {
            return Err(failure.into());
        }
    }
    let Judged { who, found, when } = judged?;
    let auth = found.rules.auth.as_ref().unwrap_or(&auth);
    let Who { identity, open } = who;
    let view = AuthView {
        asks: auth.to_string(),
        subject: identity.as_ref().and_then(Identity::subject).map(str::to_owned),
        by: identity.as_ref().map(|identity| identity.how.as_str()),
        open,
    };
    let claims = identity.map(|identity| identity.known.claims);
    let admitted = lead(gateway, found, when, Some(view), question)?;
    Ok(Some(Admitted { claims, ..admitted }))
}

/// Why it is not served.
fn in_maintenance(found: &Found, held: &Held) -> Failure {
    let (label, state, own) = (&found.label, held.state, found.rules.maintenance.as_deref());
    let has_allow = own.is_some_and(|own| own.allow != Allow::default());
    let but = if has_allow { ", but for `maintenance.allow`" } else { "" };
    let detail =
        format!("the route {label} is in maintenance ({state}){but}; `lictor maintenance off` ends what was ordered");
    Failure::new(Reason::Maintenance, detail)
}

/// Whoever asks may go on.
struct Judged {
    who: Who,
    found: Found,
    /// What the route asks of claims.
    when: Option<String>,
}

async fn judged(
    worker: &Worker,
    gateway: &Gateway,
    auth: &Auth,
    found: Found,
    shows: Shows,
    request: &Request<()>,
) -> Result<Judged, Refusal> {
    let who = who(worker, auth, &found, shows, request).await?;
    let (found, when) = choose(gateway, found, auth, &who, request.uri())?;
    let auth = found.rules.auth.as_deref().unwrap_or(auth);
    if let Some(identity) = &who.identity {
        let judged = auth.rules.judge(&identity.known);
        judged.map_err(|refusal| refuse(auth, &found, identity.how.as_str(), &refusal))?;
    }
    Ok(Judged { who, found, when })
}

/// Who asks.
struct Who {
    identity: Option<Identity>,
    /// Who or what else would be asked.
    open: Option<String>,
}

fn request(question: &Question, url: &Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = question.method.clone();
    *request.uri_mut() = url.clone();
    *request.headers_mut() = question.headers.clone();
    request
}

/// Who asks, by what he shows. A token in a cookie is taken as from a page of the host's own.
async fn who(worker: &Worker, auth: &Auth, found: &Found, shows: Shows, request: &Request<()>) -> Result<Who, Refusal> {
    let nobody = |open| Ok(Who { identity: None, open });
    if auth.mode == Mode::None {
        return nobody(None);
    }
    let refused = |how: How, refusal: &lictor_jose::Refusal| refuse(auth, found, how.as_str(), refusal);
    let several = |refusal: lictor_jose::Refusal| refuse(auth, found, "all ways", &refusal);
    let shown = shown::shown(auth, shows.key, shows.query.as_deref(), request).map_err(several)?;
    let identity = match shown {
        Shown::Key(key) => shown::by_key(auth, &key).map_err(|refusal| refused(How::Key, &refusal))?,
        Shown::Password(users, shown) => match basic::known(worker, users, shown).await {
            Ok(known) => Identity { how: How::Password, known },
            Err(No { why: Because::Refused(refusal), .. }) => return Err(refused(How::Password, &refusal)),
            Err(No { why: Because::Other(_, Stop::Refused(failure, _)), .. }) => return Err(failure.into()),
            Err(No { why: Because::Other(_, Stop::Told(told)), .. }) => return Err(says(found, &told)),
        },
        Shown::Token(Tokens { keyring, .. }, shown) => {
            let known = lictor_jose::verify(shown.token.as_bytes(), &keyring.issuers(), SystemTime::now());
            Identity { how: How::Token, known: known.map_err(|refusal| refused(How::Token, &refusal))? }
        }
        Shown::Nothing => {
            if let Some(service) = auth.methods.asking.as_ref().filter(|_| auth.takes(How::Service)) {
                if asking::has_several(service, request.headers()) {
                    let twice = refusal(Why::SeveralCredentials, "a credential is there twice");
                    return Err(refused(How::Service, &twice));
                }
                if asking::has_credential(service, request.headers()) {
                    return nobody(Some(format!("{} would be asked, and its answer decides", service.to)));
                }
            }
            if auth.takes(How::Certificate) {
                return nobody(Some("the certificate of the client's connection decides".to_owned()));
            }
            if auth.mode == Mode::Optional {
                return nobody(None);
            }
            return Err(refuse(auth, found, "all ways", &refusal(Why::Missing, "no credential")));
        }
    };
    Ok(Who { identity: Some(identity), open: None })
}

/// Whose route of those at its place it is, and by which claims. Where only a sending could tell, that of nobody, or the first.
fn choose(
    gateway: &Gateway,
    found: Found,
    auth: &Auth,
    who: &Who,
    uri: &Uri,
) -> Result<(Found, Option<String>), Refusal> {
    let Says::Depends(first) = found.says else { return Ok((found, None)) };
    let chosen = match gateway.table.choose(first, who.identity.as_ref().map(|identity| &*identity.known.claims)) {
        Ok(chosen) => chosen,
        Err(_) if who.open.is_some() => first,
        Err(unchosen) => {
            let by = who.identity.as_ref().map_or("all ways", |identity| identity.how.as_str());
            let why = if who.identity.is_some() { Why::ClaimRule } else { Why::Missing };
            let routes = gateway.table.shared(first).unwrap_or_default();
            let all =
                gateway.table.iter().filter(|(index, _)| routes.contains(index)).map(|(_, matcher)| matcher.only());
            let sentence = format!("{unchosen} ({})", all.collect::<Vec<_>>().join(" / "));
            return Err(refuse(auth, &found, by, &refusal(why, &sentence)));
        }
    };
    let when = gateway.table.iter().find(|(index, _)| *index == chosen).map(|(_, matcher)| matcher.when.to_string());
    Ok((routed::of(gateway, chosen, uri)?, when.filter(|when| !when.is_empty())))
}

/// Where it goes from there, and as which call of gRPC where the route makes one of it.
fn lead(
    gateway: &Gateway,
    found: Found,
    when: Option<String>,
    auth: Option<AuthView>,
    question: &Question,
) -> Result<Admitted, Refusal> {
    match found.says {
        Says::Send(mut routed) => {
            let claims_place = claimed(gateway, &routed);
            if let Some(rule) = &found.rules.transcode {
                let (rpc, _) = transcode::method(rule, &question.method, &routed.target)?;
                transcode::lead(&mut routed, rpc, Instant::now())?;
            }
            Ok(Admitted { routed, claims_place, when, auth, claims: None })
        }
        Says::Tell(ref told) => Err(says(&found, told)),
        Says::Depends(_) => Err(routed::undecided().into()),
    }
}

/// The place of a route that a service claims: it is called as the space that it is in.
fn claimed(gateway: &Gateway, routed: &Routed) -> Option<Arc<str>> {
    let is_it = |send: &Send| (&send.upstream, send.index) == (&routed.upstream, routed.index);
    gateway.table.iter().find_map(|(index, matcher)| {
        let route = gateway.routes.get(index).filter(|route| route.claimed_by.is_some())?;
        matches!(&route.action, Action::Send(send) if is_it(send)).then(|| label(&matcher.host, &matcher.path))
    })
}

/// What a route answers by itself.
fn says(found: &Found, Told { status, field, .. }: &Told) -> Refusal {
    let field = field.as_ref();
    let field =
        field.map_or_else(String::new, |(name, value)| format!(", {name}: {}", value.to_str().unwrap_or_default()));
    let detail = format!("the route {} answers by itself: {status}{field}", found.label);
    Refusal { status: status.as_u16(), reason: None, detail }
}

/// Which way refuses, by which rule, and what would pass.
fn refuse(auth: &Auth, found: &Found, by: &str, refusal: &lictor_jose::Refusal) -> Refusal {
    let (kind, label) = (refusal.kind(), &found.label);
    let passes = match kind {
        Kind::Missing | Kind::InvalidToken | Kind::InvalidRequest | Kind::Unavailable => {
            format!("what passes is {}, where it asks for: {auth}", passes(auth))
        }
        Kind::InsufficientScope => format!("what passes: {auth}"),
    };
    let detail = format!("the route {label} refuses ({by}): {refusal}; {passes}");
    Refusal { status: kind.status(), reason: Some(auth::reason(kind)), detail }
}

/// How somebody may show who he is: in which way, and where.
fn passes(auth: &Auth) -> String {
    let methods = &auth.methods;
    let mut ways = Vec::new();
    if let Some(Tokens { keyring, sources }) = methods.tokens.as_ref().filter(|_| auth.takes(How::Token)) {
        let issuers = keyring.entries().map(|(issuer, _)| &*issuer.name).collect::<Vec<_>>().join(", ");
        let header = sources.authorization.then(|| "Authorization: Bearer".to_owned());
        let cookie = sources.cookie.as_ref().map(|name| format!("the cookie {name}"));
        let query = sources.query.as_ref().map(|name| format!("the parameter {name}"));
        let places: Vec<String> = header.into_iter().chain(cookie).chain(query).collect();
        ways.push(format!("a token of {issuers} ({})", places.join(", ")));
    }
    if let Some(keys) = methods.keys.as_ref().filter(|_| auth.takes(How::Key)) {
        let query = keys.query.as_ref().map(|name| format!("the parameter {name}"));
        let places: Vec<String> = keys.header.iter().map(HeaderName::to_string).chain(query).collect();
        ways.push(format!("an API key ({})", places.join(", ")));
    }
    if auth.takes(How::Password) {
        ways.push("a name and a password (Authorization: Basic)".to_owned());
    }
    if auth.takes(How::Certificate) {
        ways.push("a client certificate".to_owned());
    }
    if let Some(service) = methods.asking.as_ref().filter(|_| auth.takes(How::Service)) {
        let fields = service.headers_out.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        ways.push(format!("what {} says yes to ({fields})", service.to));
    }
    ways.join(", or ")
}
