//! When a CA wants a certificate renewed (ARI; RFC 9773), where it says so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lictor_core::acme::Order;
use serde_json::Value as Json;
use tokio::task::spawn_blocking;

use super::transport::Transport;

/// How soon and how late it is asked again, whatever the CA says (section 4.3.2); and where there is no answer (section 4.3.3).
const AGAIN_LEAST: Duration = Duration::from_secs(60);
const AGAIN_MOST: Duration = Duration::from_secs(86_400);
pub(super) const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(6 * 3600);

/// The CA's name of a certificate: the key of who issued it and its number, in base64url (section 4.1).
pub(super) async fn id(order: &Order) -> Option<(String, String)> {
    let file = order.file();
    let (issuer, serial) = spawn_blocking(move || lictor_tls::renewal_id(&file)).await.ok().flatten()?;
    Some((URL_SAFE_NO_PAD.encode(issuer), URL_SAFE_NO_PAD.encode(serial)))
}

/// The window, and when to ask again; no window where the CA has none, and an error where it may have one.
pub(super) async fn ask(order: &Order, transport: &Transport) -> (Result<Option<(u64, u64)>, String>, Duration) {
    match fetch(order, transport).await {
        Ok(Some((window, again))) => {
            (Ok(Some(window)), again.unwrap_or(AGAIN_AFTER_FAILURE).clamp(AGAIN_LEAST, AGAIN_MOST))
        }
        Ok(None) => (Ok(None), AGAIN_MOST),
        Err(why) => (Err(why), AGAIN_AFTER_FAILURE),
    }
}

type Told = ((u64, u64), Option<Duration>);

async fn fetch(order: &Order, transport: &Transport) -> Result<Option<Told>, String> {
    let (directory, _) = transport.json(&order.acme.directory).await?;
    let Some(place) = directory["renewalInfo"].as_str() else { return Ok(None) };
    let Some((issuer, serial)) = id(order).await else { return Ok(None) };
    let (told, again) = transport.json(&format!("{}/{issuer}.{serial}", place.trim_end_matches('/'))).await?;
    let window = window(&told).ok_or("its answer has no window")?;
    Ok(Some((window, again)))
}

fn window(told: &Json) -> Option<(u64, u64)> {
    let time = |name: &str| {
        let time: SystemTime = humantime::parse_rfc3339_weak(told["suggestedWindow"][name].as_str()?).ok()?;
        Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
    };
    let (begins, ends) = (time("start")?, time("end")?);
    (begins <= ends).then_some((begins, ends))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_window_is_two_times_in_order() {
        let of = |start: &str, end: &str| window(&json!({ "suggestedWindow": { "start": start, "end": end } }));
        assert_eq!(of("2025-01-02T04:00:00Z", "2025-01-02T04:00:10Z"), Some((1_735_790_400, 1_735_790_410)));
        assert_eq!(of("2025-01-02T04:00:00.5Z", "2025-01-02T04:00:10Z"), Some((1_735_790_400, 1_735_790_410)));
        for (start, end) in
            [("2025-01-03T04:00:00Z", "2025-01-02T04:00:00Z"), ("", ""), ("soon", "2025-01-02T04:00:00Z")]
        {
            assert_eq!(of(start, end), None, "{start} {end}");
        }
        assert_eq!(window(&json!([])), None);
    }
}
