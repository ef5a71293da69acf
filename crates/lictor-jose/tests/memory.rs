//! What the known tokens take, beside what the cache says that they take: an allocator of its own counts it, so this is one test alone.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lictor_jose::cache::{Cache, CacheLimits};
use lictor_jose::{Algorithm, Issuer, Issuers, KeySet, Keys, Trusted};
use ring::hmac;
use serde_json::{Map, Value, json};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_800_000_000;

#[test]
fn a_cache_takes_no_more_than_it_says_whatever_tokens_say() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let issuer = Issuer { algorithms: vec![Algorithm::HS256], ..Issuer::default() };
    let keys = Keys::Known(Arc::new(KeySet::secret(SECRET, &[Algorithm::HS256]).unwrap()));
    let issuers = Issuers::new(vec![Trusted::new(Arc::new(issuer), keys)]).unwrap();
    let wide = |size: usize| (0..size).map(|at| (format!("claim-{at}"), json!(at))).collect::<Map<_, _>>();
    let deep = || (0..10).fold(json!("x"), |inner, _| json!({"a": inner}));
    let kinds: [(&str, Value); 8] = [
        ("a name", json!({})),
        ("two names", json!({"tenant": "shop-12345"})),
        ("a long text", json!({"fill": "x".repeat(2000)})),
        ("as many claims as a node of a map has", Value::Object(wide(9))),
        ("one more", Value::Object(wide(10))),
        ("many claims", Value::Object(wide(60))),
        ("lists", json!({"roles": ["a", "b", "c"], "empty": [[], {}, ""], "numbers": (0..17).collect::<Vec<_>>()})),
        ("objects in one another", json!({"a": deep()})),
    ];
    for (kind, more) in kinds {
        let limits = CacheLimits { ttl: Duration::from_secs(60), bytes: 1 << 18 };
        let before = dhat::HeapStats::get().curr_bytes;
        let mut cache = Cache::new(limits);
        let (mut most, mut known) = (0, 0);
        for number in 0..1000 {
            let mut claims = more.clone();
            claims["sub"] = json!(format!("user-{number}"));
            claims["exp"] = json!(NOW + 300);
            let token = token(&claims);
            let now = UNIX_EPOCH + Duration::from_secs(NOW);
            assert!(cache.verify(token.as_bytes(), &issuers, now).is_ok_and(|(_, is_known)| !is_known));
            drop((claims, token));
            let taken = dhat::HeapStats::get().curr_bytes - before;
            most = most.max(taken);
            known = known.max(cache.len());
            assert!(
                cache.len() < 50 || taken <= cache.bytes(),
                "{kind}: {taken} with {number}: {cache_bytes}",
                cache_bytes = cache.bytes()
            );
        }
        eprintln!("{kind}: {known} known in {most} bytes, {} each", most / known);
        assert!(most <= limits.bytes && most >= limits.bytes / 3, "{kind}: {most}");
    }
}

fn token(claims: &Value) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.to_string().as_bytes()));
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", encode(mac.as_ref()))
}
