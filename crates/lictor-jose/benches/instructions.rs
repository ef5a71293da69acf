//! Runs one operation a number of times, for a counter of instructions: `instructions NAME COUNT`, or `instructions list`. See
//! `scripts/instructions.sh`. No clock is read.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lictor_jose::cache::{Cache, CacheLimits};
use lictor_jose::rules::Rules;
use lictor_jose::{Algorithm, Issuer, Issuers, KeySet, Keys, Trusted, verify};
use ring::hmac;

const NAMES: [&str; 2] = ["token_known", "token_hs256"];
const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [list] if list == "list" => {
            for name in NAMES {
                #[expect(clippy::print_stdout, reason = "a list for a script")]
                {
                    println!("{name}");
                }
            }
            ExitCode::SUCCESS
        }
        [name, count] => {
            let Ok(count) = count.parse() else { return ExitCode::FAILURE };
            match name.as_str() {
                "token_known" => known(count),
                "token_hs256" => unknown(count),
                _ => return ExitCode::FAILURE,
            }
            ExitCode::SUCCESS
        }
        _ => ExitCode::SUCCESS, // `cargo bench` of everything
    }
}

/// A token that is known, and the rules of its route: what a request costs.
fn known(count: u32) {
    let (issuers, token, now) = (issuers(), token(), now());
    let mut cache = Cache::new(CacheLimits::default());
    let rules = Rules { scopes: vec!["orders:write".to_owned()], roles: vec!["user".to_owned()], ..Rules::default() };
    for _ in 0..count {
        let (verified, _) = cache.verify(black_box(token.as_bytes()), &issuers, now).expect("it is good");
        black_box(rules.judge(&verified)).expect("it may");
    }
}

/// The whole check, with the cheapest of signatures.
fn unknown(count: u32) {
    let (issuers, token, now) = (issuers(), token(), now());
    for _ in 0..count {
        black_box(verify(black_box(token.as_bytes()), &issuers, now)).expect("it is good");
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn issuers() -> Issuers {
    let algorithms = vec![Algorithm::HS256];
    let keys = KeySet::secret(SECRET, &algorithms).expect("it is long enough");
    let issuer = Issuer {
        iss: Some("https://id.example".to_owned()),
        audiences: vec!["shop".to_owned()],
        algorithms,
        ..Issuer::default()
    };
    let entry = Trusted::new(Arc::new(issuer), Keys::Known(Arc::new(keys)));
    Issuers::new(vec![entry]).expect("there is one")
}

/// Of a usual size: about 500 bytes.
fn token() -> String {
    let payload = r#"{"iss":"https://id.example","aud":["shop","account"],"sub":"7c9e6679-7425-40de-944b-e07fc1f90ae7","exp":1800000300,"iat":1800000000,"jti":"550e8400-e29b-41d4-a716-446655440000","scope":"openid profile orders:read orders:write","role":"user","email":"someone@shop.example","realm_access":{"roles":["user","offline_access"]}}"#;
    let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(br#"{"alg":"HS256","typ":"JWT"}"#), encode(payload.as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", encode(tag.as_ref()))
}
