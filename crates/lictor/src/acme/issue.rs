//! One order, from the account to the certificate (RFC 8555, section 7.4). Each step is written down before the next, so that a
//! process that ends between two goes on where it was.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewAccount, NewOrder,
    OrderStatus, Problem, RetryPolicy,
};
use lictor_core::acme::{Acme, Cause, Challenge, Order};
use lictor_proxy::DataPlane;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use ring::digest::{SHA256, digest};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use super::kept::{self, Progress, Proof};
use super::transport::Transport;
use super::window;

/// How often it is asked whether an order has gone on, where the CA does not say: after half a second, then less often.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(Duration::from_secs(120));

/// What a CA is to see is with all gateways of the folder after this: each looks every second.
pub(super) const SPREADS_WITHIN: Duration = Duration::from_secs(2);

/// A sentence of a CA's is no longer than this.
const WHY_MAX: usize = 1000;

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) why: String,
    pub(super) cause: Cause,
    /// The order comes to nothing: another one is begun next time.
    pub(super) is_over: bool,
    /// The CA does not know our account.
    pub(super) is_unknown: bool,
}

impl Trouble {
    pub(super) fn of(why: impl ToString) -> Self {
        let mut why = why.to_string();
        why.truncate(why.floor_char_boundary(WHY_MAX));
        Self { why, cause: Cause::Refused, is_over: false, is_unknown: false }
    }

    fn over(why: impl ToString) -> Self {
        Self { is_over: true, ..Self::of(why) }
    }

    fn told(problem: &Problem) -> Self {
        let kind = problem.r#type.as_deref().unwrap_or_default();
        let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
        let detail = problem.detail.as_deref().unwrap_or("no detail").to_owned();
        let details: Vec<String> =
            [detail].into_iter().chain(problem.subproblems.iter().map(ToString::to_string)).collect();
        let is_limited = kind == "rateLimited";
        // What is the server's fault, or the time's, may be otherwise next time.
        let is_passing = is_limited || matches!(kind, "badNonce" | "serverInternal");
        Self {
            cause: if is_limited { Cause::Limited } else { Cause::Refused },
            is_over: !is_passing,
            is_unknown: kind == "accountDoesNotExist",
            ..Self::of(format!("the CA says {kind}: {}", details.join("; ")))
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::told(&problem),
            Error::Other(why) => Self { cause: Cause::Unreached, ..Self::of(why) }, // the transport's
            error => Self::of(error),
        }
    }
}

/// Orders a certificate, or goes on with an order: from when to when it is good.
pub(super) async fn issue(
    order: &Order,
    progress: &mut Progress,
    plane: &DataPlane,
    transport: &Transport,
    registering: &Mutex<()>,
) -> Result<(u64, u64), Trouble> {
    // Nothing is asked of a CA that cannot be remembered: neither an account nor an order.
    write(order, progress).await.map_err(|trouble| Trouble { cause: Cause::Unreached, ..trouble })?;
    let mut used = Vec::new();
    let issued = by_account(order, progress, plane, transport, registering, &mut used).await;
    if issued.as_ref().is_err_and(|trouble| trouble.is_unknown) {
        let _only_one = registering.lock().await;
        let of = Arc::clone(&order.acme);
        if let Ok(Err(why)) = spawn_blocking(move || kept::Account::forget(&of, &used)).await {
            warn!(host = &*order.host, %why, "an account that its CA does not know cannot be put away");
        }
    }
    issued
}

/// The same, by our account there, whose credentials it tells.
async fn by_account(
    order: &Order,
    progress: &mut Progress,
    plane: &DataPlane,
    transport: &Transport,
    registering: &Mutex<()>,
    used: &mut Vec<u8>,
) -> Result<(u64, u64), Trouble> {
    let account = account(&order.acme, transport, registering, used).await?;
    let mut placed = place(&account, order, progress).await?;
    if placed.state().status == OrderStatus::Pending {
        prove(&mut placed, order, progress, plane).await?;
        let polled = placed.poll_ready(&POLLS).await;
        plane.forget_challenge(&order.host);
        progress.proof = None;
        match polled {
            Ok(OrderStatus::Invalid) | Err(Error::Api(_)) => return Err(refused(&mut placed, polled).await),
            Ok(_) => (),
            Err(error) => return Err(error.into()),
        }
    }
    let key = match &progress.key {
        Some(key) => KeyPair::from_pem(key),
        None => KeyPair::generate(),
    };
    let key = key.map_err(Trouble::over)?;
    if placed.state().status == OrderStatus::Ready {
        progress.key = Some(key.serialize_pem());
        write(order, progress).await?;
        let csr = request(&order.host, &key).map_err(Trouble::over)?;
        placed.finalize_csr(&csr).await?;
    } else if progress.key.is_none() {
        return Err(Trouble::over("the order has gone on without us"));
    }
    let chain = placed.poll_certificate(&POLLS).await.map_err(|error| match error {
        Error::Str(why) => Trouble::over(why),
        error => error.into(),
    })?;
    let (order, key) = (order.clone(), key.serialize_pem());
    let adopted = spawn_blocking(move || kept::adopt(&order, &key, &chain, super::now())).await.map_err(Trouble::of)?;
    // What the disk does not take is still the CA's to give.
    adopted.map_err(|why| Trouble {
        is_over: why.kind() == ErrorKind::InvalidData,
        ..Trouble::of(format!("the CA's certificate is not used: {why}"))
    })
}

/// Our account at this CA: the one that we have, or a new one.
async fn account(
    acme: &Arc<Acme>,
    transport: &Transport,
    registering: &Mutex<()>,
    used: &mut Vec<u8>,
) -> Result<Account, Trouble> {
    let _only_one = registering.lock().await;
    let builder = Account::builder_with_http(Box::new(transport.clone()));
    let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
    let of = Arc::clone(acme);
    let known = spawn_blocking(move || kept::Account::read(&of)).await.map_err(Trouble::of)?;
    let Some(mut known) = known else {
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder.create(&new, acme.directory.clone(), None).await?;
        *used = serde_json::to_vec(&credentials).map_err(Trouble::of)?;
        keep(acme, kept::Account { contact: acme.contact.clone(), credentials }).await?;
        return Ok(account);
    };
    let is_told_otherwise = known.contact != acme.contact;
    *used = serde_json::to_vec(&known.credentials).map_err(Trouble::of)?;
    let account = builder.from_credentials(serde_json::from_slice(used).map_err(Trouble::of)?).await?;
    if is_told_otherwise {
        account.update_contacts(&contact).await?;
        known.contact.clone_from(&acme.contact);
        keep(acme, known).await?;
    }
    Ok(account)
}

async fn keep(acme: &Arc<Acme>, account: kept::Account) -> Result<(), Trouble> {
    let acme = Arc::clone(acme);
    let kept = spawn_blocking(move || account.write(&acme)).await.map_err(Trouble::of)?;
    kept.map_err(|why| Trouble::of(format!("the account cannot be kept: {why}")))
}

/// The order that we have, unless it came to nothing, or a new one.
async fn place(account: &Account, order: &Order, progress: &mut Progress) -> Result<instant_acme::Order, Trouble> {
    if let Some(url) = progress.order.clone() {
        let mut placed = account.order(url).await?;
        if placed.state().status != OrderStatus::Invalid {
            return Ok(placed);
        }
    }
    let identifiers = [Identifier::Dns(order.host.to_string())];
    let new = NewOrder::new(&identifiers);
    // Which one it replaces counts less towards a CA's limits (RFC 9773, section 5); once, for it may know otherwise.
    let replaced = if progress.window.is_some() && progress.failures == 0 { window::id(order).await } else { None };
    let new = match replaced {
        Some((issuer, serial)) => {
            new.replaces(CertificateIdentifier { authority_key_identifier: issuer.into(), serial: serial.into() })
        }
        None => new,
    };
    let placed = account.new_order(&new).await?;
    *progress = Progress { order: Some(placed.url().to_owned()), key: None, proof: None, ..progress.clone() };
    write(order, progress).await?;
    Ok(placed)
}

/// Has what the CA looks for where it looks, and tells it to.
async fn prove(
    placed: &mut instant_acme::Order,
    order: &Order,
    progress: &mut Progress,
    plane: &DataPlane,
) -> Result<(), Trouble> {
    let (kind, name) = match order.acme.challenge {
        Challenge::Http01 => (ChallengeType::Http01, "http-01"),
        Challenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
    };
    let mut authorizations = placed.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization = next?;
        match authorization.status {
            AuthorizationStatus::Valid => continue, // from an order before this one
            AuthorizationStatus::Pending => (),
            other => return Err(Trouble::over(format!("the CA's authorization is {other:?}"))),
        }
        let mut challenge = authorization
            .challenge(kind.clone())
            .ok_or_else(|| Trouble::over(format!("the CA does not offer {name} for this host")))?;
        let proof =
            Proof { token: challenge.token.clone(), authorization: challenge.key_authorization().as_str().to_owned() };
        show(plane, order, &proof).map_err(Trouble::of)?;
        progress.proof = Some(proof);
        write(order, progress).await?;
        sleep(SPREADS_WITHIN).await;
        challenge.set_ready().await?;
    }
    Ok(())
}

/// Has it where the CA looks.
pub(super) fn show(plane: &DataPlane, order: &Order, proof: &Proof) -> Result<(), String> {
    match order.acme.challenge {
        Challenge::Http01 => plane.answer_challenge(&order.host, &proof.token, &proof.authorization),
        Challenge::TlsAlpn01 => {
            let (certificate, key) = certificate(&order.host, &proof.authorization).map_err(|why| why.to_string())?;
            plane.show_proof(&order.host, certificate, key).map_err(|why| why.to_string())?;
        }
    }
    Ok(())
}

/// What a CA sees by tls-alpn-01 (RFC 8737, section 3), and its key.
fn certificate(host: &str, authorization: &str) -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([host.to_owned()])?;
    params.custom_extensions =
        vec![CustomExtension::new_acme_identifier(digest(&SHA256, authorization.as_bytes()).as_ref())];
    Ok((params.self_signed(&key)?.der().to_vec(), key.serialize_der()))
}

/// A request for a certificate (PKCS #10; RFC 8555, section 7.4): the host is all that it says.
fn request(host: &str, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new([host.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// What the CA saw where it looked says more than that the order is over.
async fn refused(placed: &mut instant_acme::Order, polled: Result<OrderStatus, Error>) -> Trouble {
    let mut authorizations = placed.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await
            && let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref())
        {
            return Trouble { is_over: true, ..Trouble::told(problem) };
        }
    }
    match polled {
        Err(error) => Trouble { is_over: true, ..error.into() },
        Ok(_) => Trouble::over("the CA has ended the order"),
    }
}

pub(super) async fn write(order: &Order, progress: &Progress) -> Result<(), Trouble> {
    let (order, progress) = (order.clone(), progress.clone());
    let written = spawn_blocking(move || progress.write(&order)).await.map_err(Trouble::of)?;
    written.map_err(|why| Trouble::of(format!("it cannot be written down how far the order is: {why}")))
}
