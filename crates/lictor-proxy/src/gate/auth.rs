//! Who asks, and may he? Where a route asks nothing, nobody looks.
//!
//! A client hears one fixed sentence for each kind of refusal, and `WWW-Authenticate` as RFC 6750, section 3 has it; what exactly was wrong is
//! in the log and the story.

use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use lictor_core::gateway::Gateway;
use lictor_core::gateway::asking::Asking;
use lictor_core::gateway::auth::{Auth, How, Identity, Mode, Tokens, reason};
use lictor_core::{Failure, Reason};
use lictor_http::RequestBody;
use lictor_jose::forward::{Field, field};
use lictor_jose::refresh::Miss;
use lictor_jose::rules::Rules;
use lictor_jose::source::{self, Place};
use lictor_jose::{Kind, Refusal, Verified, Why};
use tokio::time::timeout_at;
use tracing::debug;

use super::refusal::{Because, No, UNAVAILABLE, refusal};
use super::shown::{self, Shown};
use super::{Stop, Visit, asking, basic, certificate};
use crate::admission::cache::Untold;
use crate::admission::routed::{self, Found, Says, Told};
use crate::stores::answers::{self, Answer, Yes};
use crate::world::client::Connection;

/// Whom a challenge speaks for (RFC 9110, section 11.5).
const REALM: &str = "gateway";
/// How it is counted that nobody has shown anything, and need not.
const ANONYMOUS: &str = "anonymous";
/// A token whose key may be on its way waits no longer for it.
const KEY_WITHIN: Duration = Duration::from_secs(1);

/// Finds out who asks, whose route this is then, and whether he may; what those behind us are told of him is in the head afterwards.
pub(super) async fn check(
    visit: &mut Visit,
    gateway: &Gateway,
    connection: &Rc<Connection>,
    request: &mut Request<RequestBody>,
    found: &mut Found,
) -> Result<(), Stop> {
    let Some(auth) = visit.rules.auth.clone().filter(|auth| auth.mode != Mode::None) else { return Ok(()) };
    let shown = match identify(&auth, visit, connection, request).await {
        Ok(Some(identity)) => Some(Known { identity, fields: None }),
        Ok(None) => Box::pin(asked(&auth, visit, connection, request, found)).await?,
        Err(No { how, why: Because::Refused(refusal) }) => {
            count(connection, &auth, how, &refusal);
            return Err(visit.refuse(&auth, &refusal));
        }
        Err(No { how, why: Because::Other(word, stop) }) => {
            connection.worker.shared.metrics.authenticated(how.map_or("", How::as_str), word);
            return Err(stop);
        }
    };
    let Says::Depends(first) = found.says else {
        return shown.map_or(Ok(()), |shown| accept(&auth, visit, connection, shown, request));
    };
    *found = choose(&auth, visit, gateway, connection, shown.as_ref(), request, first)?;
    match (shown, &found.rules.auth) {
        (Some(shown), Some(auth)) => accept(auth, visit, connection, shown, request)?,
        _ => connection.worker.shared.metrics.authenticated("", ANONYMOUS),
    }
    visit.turn(connection, request, &found.rules);
    Ok(())
}

/// Whose route of those that share a place this is. All of them ask in the same way who he is.
fn choose<B>(
    auth: &Auth,
    visit: &mut Visit,
    gateway: &Gateway,
    connection: &Connection,
    shown: Option<&Known>,
    request: &Request<B>,
    first: usize,
) -> Result<Found, Stop> {
    let known = shown.map(|shown| &shown.identity.known);
    let index = gateway.table.choose(first, known.map(|known| &*known.claims)).map_err(|unchosen| {
        // Who has shown nothing may be somebody for whom there is a route.
        let why = if known.is_some() { Why::ClaimRule } else { Why::Missing };
        let refusal = refusal(why, &unchosen.to_string());
        let issuer = known.map_or("", |known| &*known.issuer.name);
        connection.worker.shared.metrics.authenticated(issuer, why.word());
        visit.refuse(auth, &refusal)
    })?;
    routed::of(gateway, index, request.uri())
        .map_err(|failure| Stop::Refused(failure, "the path has more than one reading"))
}

/// Who asks, and what goes on besides.
struct Known {
    identity: Identity,
    /// What the service that was asked says of him.
    fields: Option<Rc<Yes>>,
}

/// He is known; may he?
fn accept<B>(
    auth: &Auth,
    visit: &mut Visit,
    connection: &Connection,
    shown: Known,
    request: &mut Request<B>,
) -> Result<(), Stop> {
    let Known { identity, fields } = shown;
    let judged = auth.rules.judge(&identity.known);
    let decision = judged.as_ref().map_or_else(|refusal| refusal.why.word(), |()| "allowed");
    connection.worker.shared.metrics.authenticated(&identity.known.issuer.name, decision);
    judged.map_err(|refusal| visit.refuse(auth, &refusal))?;
    if identity.how == How::Password {
        request.headers_mut().remove(AUTHORIZATION); // a password is for the gateway alone
    }
    tell(auth, &identity, request.headers_mut());
    // But for `Authorization` nothing in the head tells caches that the answer is one client's (RFC 9111, section 3.5).
    let is_told = match identity.how {
        How::Token => auth.methods.tokens.as_ref().is_some_and(|tokens| tokens.sources.authorization),
        How::Service => auth.methods.asking.as_ref().is_some_and(|asking| *asking.headers_out == [AUTHORIZATION]),
        How::Key | How::Password | How::Certificate => false,
    } && request.headers().contains_key(AUTHORIZATION);
    visit.is_private |= match identity.how {
        How::Key | How::Certificate => true,
        How::Service => !is_told,
        How::Token | How::Password => false,
    };
    if visit.is_private || !is_told {
        request.extensions_mut().insert(Untold);
    }
    let ends = auth.ends_streams && identity.how == How::Token;
    visit.expires = ends.then(|| Instant::now() + identity.known.remaining(SystemTime::now()));
    visit.identity = Some(identity);
    for (name, value) in fields.iter().flat_map(|yes| &yes.fields) {
        request.headers_mut().append(name, value.clone());
    }
    Ok(())
}

/// Nobody has shown anything that is judged here: a service is asked, if there is one and something to ask about. `None`: it is
/// nobody, who may go on.
async fn asked(
    auth: &Auth,
    visit: &mut Visit,
    connection: &Rc<Connection>,
    request: &mut Request<RequestBody>,
    found: &Found,
) -> Result<Option<Known>, Stop> {
    let asking = auth.methods.asking.as_ref().filter(|_| auth.takes(How::Service));
    let Some(asking) = asking.filter(|asking| asking::has_credential(asking, request.headers())) else {
        if let Some(identity) = certificate::identity(connection).filter(|_| auth.takes(How::Certificate)) {
            return Ok(Some(Known { identity, fields: None }));
        }
        if auth.mode == Mode::Optional {
            if !matches!(found.says, Says::Depends(_)) {
                connection.worker.shared.metrics.authenticated("", ANONYMOUS);
            }
            return Ok(None);
        }
        let refusal = refusal(Why::Missing, "no credential");
        count(connection, auth, None, &refusal);
        return Err(visit.refuse(auth, &refusal));
    };
    if asking::has_several(asking, request.headers()) {
        let refusal = refusal(Why::SeveralCredentials, "a credential is there twice");
        count(connection, auth, Some(How::Service), &refusal);
        return Err(visit.refuse(auth, &refusal));
    }
    let counted = |word| connection.worker.shared.metrics.authenticated(How::Service.as_str(), word);
    let unavailable = |detail: String| {
        counted(UNAVAILABLE);
        Stop::Refused(Failure::new(Reason::AuthUnavailable, detail), Kind::Unavailable.message())
    };
    let asks_of_him = auth.rules != Rules::default() || matches!(found.says, Says::Depends(_));
    match asking::answer(visit, connection, asking, request, &found.label).await {
        Answer::Yes(yes) if !yes.is_readable && (asks_of_him || !auth.fields.is_empty()) => {
            Err(unavailable(format!("{} answered with a body that is no JSON object", asking.to)))
        }
        Answer::Yes(yes) => {
            Ok(Some(Known { identity: Identity { how: How::Service, known: yes.known.clone() }, fields: Some(yes) }))
        }
        Answer::No(no) => {
            counted("denied");
            Err(denied(visit, auth, asking, &no))
        }
        // As nobody's: what a route asks of somebody, nobody is.
        Answer::Nothing(failure) if asking.fail_open && !asks_of_him => {
            counted("fail_open");
            debug!(service = %asking.to, reason = %failure.reason, "the service did not answer, and the request goes on");
            Ok(None)
        }
        Answer::Nothing(failure) | Answer::Nonsense(failure) => {
            Err(unavailable(format!("{}: {}", asking.to, failure.detail)))
        }
    }
}

/// Counts who is not believed, by the issuer that his token names or the way in which he has tried.
fn count(connection: &Connection, auth: &Auth, how: Option<How>, refusal: &Refusal) {
    let of = |issuer: usize| Some(&*auth.methods.tokens.as_ref()?.keyring.entries().nth(issuer)?.0.name);
    let provider = how.map(How::as_str).or_else(|| refusal.issuer.and_then(of));
    connection.worker.shared.metrics.authenticated(provider.unwrap_or_default(), refusal.why.word());
}

/// What a service's no becomes: its status, and of its fields those that tell the client what to do.
fn denied(visit: &mut Visit, auth: &Auth, asking: &Asking, no: &answers::No) -> Stop {
    visit.said.extend(no.fields.iter().cloned());
    visit.has_failed = no.status == StatusCode::UNAUTHORIZED;
    let (reason, kind) = match no.status {
        StatusCode::UNAUTHORIZED => (Reason::Unauthenticated, Kind::InvalidToken),
        StatusCode::FORBIDDEN => (Reason::Forbidden, Kind::InsufficientScope),
        status => return Stop::Told(Told { status, field: None, body: Bytes::new() }),
    };
    if reason == Reason::Unauthenticated && no.fields.iter().all(|(name, _)| *name != WWW_AUTHENTICATE) {
        visit.challenge(auth, kind);
    }
    Stop::Refused(Failure::new(reason, format!("{} answered {}", asking.to, no.status.as_u16())), kind.message())
}

impl Visit {
    fn refuse(&mut self, auth: &Auth, refusal: &Refusal) -> Stop {
        let kind = refusal.kind();
        self.has_failed = kind == Kind::InvalidToken;
        self.challenge(auth, kind);
        Stop::Refused(Failure::new(reason(kind), refusal.to_string()), kind.message())
    }

    /// Says how somebody could show who he is (RFC 9110, section 11.6.1): in each way that the route takes.
    fn challenge(&mut self, auth: &Auth, kind: Kind) {
        let mut say = |text: Option<String>| {
            let value = text.and_then(|text| HeaderValue::try_from(text).ok());
            self.said.extend(value.map(|value| (WWW_AUTHENTICATE, value)));
        };
        if auth.takes(How::Token) || auth.takes(How::Service) {
            say(kind.challenge(REALM));
        }
        if auth.takes(How::Password) && matches!(kind, Kind::Missing | Kind::InvalidToken) {
            say(Some(format!("Basic realm=\"{REALM}\", charset=\"UTF-8\""))); // RFC 7617, section 2.1
        }
        if auth.takes(How::Key) && matches!(kind, Kind::Missing | Kind::InvalidToken) {
            say(Some(format!("Key realm=\"{REALM}\"")));
        }
    }
}

/// Who asks, by the one thing that he shows; `None`: nothing that is judged here.
async fn identify(
    auth: &Auth,
    visit: &mut Visit,
    connection: &Connection,
    request: &Request<RequestBody>,
) -> Result<Option<Identity>, No> {
    let key = std::mem::take(&mut visit.key);
    match shown::shown(auth, key, visit.query.as_deref(), request)? {
        Shown::Nothing => Ok(None),
        Shown::Key(key) => {
            let identity = shown::by_key(auth, &key).map_err(|refusal| No::from(refusal).by(How::Key))?;
            Ok(Some(identity))
        }
        Shown::Password(users, shown) => {
            let known = Box::pin(basic::known(&connection.worker, users, shown)).await;
            let known = known.map_err(|no| no.by(How::Password))?;
            Ok(Some(Identity { how: How::Password, known }))
        }
        Shown::Token(tokens, found) => {
            shown::check_page(visit.rules.cors.as_deref(), &found, request)?;
            let is_private = found.place == Place::Query;
            let known = believed(connection, tokens, &found).await?;
            visit.is_private = is_private;
            Ok(Some(Identity { how: How::Token, known }))
        }
    }
}

/// What the token says. Where a key for it may be on its way, that is waited for.
async fn believed(connection: &Connection, tokens: &Tokens, found: &source::Found<'_>) -> Result<Verified, Refusal> {
    let worker = &connection.worker;
    let verify = || worker.tokens.borrow_mut().verify(found.token, &tokens.keyring, SystemTime::now());
    match verify() {
        Err(refusal) if refusal.why == Why::UnknownKey && refusal.issuer.is_some() => {
            Box::pin(awaited(connection, tokens, refusal, &verify)).await
        }
        judged => judged,
    }
}

async fn awaited(
    connection: &Connection,
    tokens: &Tokens,
    mut refusal: Refusal,
    verify: &impl Fn() -> Result<Verified, Refusal>,
) -> Result<Verified, Refusal> {
    let (bell, until) = (&connection.worker.shared.keys, Instant::now() + KEY_WITHIN);
    loop {
        let mut ended = pin!(bell.ended.notified());
        ended.as_mut().enable(); // before the question, so that no end is missed
        let entry = refusal.issuer.unwrap_or(usize::MAX);
        match tokens.keyring.unknown_key(entry, Instant::now(), connection.worker.random()) {
            Miss::Refuse => return verify(),
            Miss::Fetch(_) => bell.wanted.notify_one(),
            Miss::Pending(_) => (),
        }
        if timeout_at(until.into(), ended).await.is_err() {
            return Err(refusal);
        }
        match verify() {
            Err(again) if again.why == Why::UnknownKey => refusal = again,
            judged => return judged,
        }
    }
}

/// Writes what those behind us are told. Nobody else has written these fields: they were taken off every head.
fn tell(auth: &Auth, identity: &Identity, headers: &mut HeaderMap) {
    for told in &auth.fields {
        match field(told.claim.of(&identity.known.claims), told.spelling) {
            Field::Absent => (),
            Field::Value(value) => {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(told.name.clone(), value);
                }
            }
            Field::Unfit(why) => debug!(field = %told.name, claim = told.claim.text(), ?why, "a claim is not sent"),
        }
    }
}

/// The answer to a request whose token was in its query is nobody else's (RFC 6750, section 2.3).
pub(super) fn make_private(headers: &mut HeaderMap) {
    let fields = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let is_public = |directive: &&str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        ["public", "private", "s-maxage"].iter().any(|public| name.eq_ignore_ascii_case(public))
    };
    let kept = fields.flat_map(|field| field.split(',')).map(str::trim).filter(|it| !it.is_empty() && !is_public(it));
    let value = ["private"].into_iter().chain(kept).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(CACHE_CONTROL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cache_between_gives_the_answer_to_others() {
        for (said, becomes) in [
            (&[][..], "private"),
            (&["max-age=60"], "private, max-age=60"),
            (&["Public, max-age=60", "s-maxage=5"], "private, max-age=60"),
            (&["no-store"], "private, no-store"),
            (&["private"], "private"),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            make_private(&mut headers);
            assert_eq!(headers.get_all(CACHE_CONTROL).into_iter().collect::<Vec<_>>(), [becomes], "{said:?}");
        }
    }
}
