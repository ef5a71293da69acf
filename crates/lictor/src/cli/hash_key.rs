//! `lictor hash-key`: what the configuration has of an API key, or of a password.

use std::io::Read;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use lictor_core::gateway::keys::{KEY_MAX, KeyHash};
use lictor_core::gateway::password::{PASSWORD_MAX, PasswordHash};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use crate::cli::output::Output;

/// 128 bits have as many characters in base64. A shorter key can be found by trying, from its hash.
const CHARACTERS_MIN: usize = 22;

/// Reads a key from standard input, which nobody else sees, unlike a command line; or draws one.
pub(super) fn hash_key(is_new: bool, output: Output) -> anyhow::Result<u8> {
    if is_new {
        let key = draw()?;
        let hash = hash(key.as_bytes()).to_string();
        output.print(&json!({ "key": key, "hash": hash }), |_| format!("{key}\n{hash}\n"));
        return Ok(0);
    }
    let key = &read()?;
    if key.len() > KEY_MAX {
        bail!("a key is at most {KEY_MAX} bytes long");
    }
    if key.len() < CHARACTERS_MIN {
        bail!("a key of fewer than {CHARACTERS_MIN} characters can be guessed: `lictor hash-key --new` draws one");
    }
    let hash = hash(key.as_bytes()).to_string();
    output.print(&json!({ "hash": hash }), |_| format!("{hash}\n"));
    Ok(0)
}

/// The same of a password.
pub(super) fn hash_password(output: Output) -> anyhow::Result<u8> {
    let password = &read()?;
    if password.is_empty() || password.chars().any(char::is_control) {
        bail!("a password has at least one character, and no control characters (RFC 7617, section 2)");
    }
    let hash = PasswordHash::of(password, random()?);
    let hash = hash.with_context(|| format!("a password is at most {PASSWORD_MAX} bytes long"))?;
    let hash = hash.text();
    output.print(&json!({ "hash": hash }), |_| format!("{hash}\n"));
    Ok(0)
}

fn read() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(2 * KEY_MAX as u64).read_to_string(&mut text).context("standard input")?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}

fn draw() -> anyhow::Result<String> {
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?))
}

fn random<const LENGTH: usize>() -> anyhow::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).ok().context("the system has no random numbers")?;
    Ok(bytes)
}

fn hash(key: &[u8]) -> KeyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key).as_ref());
    KeyHash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_sha256sum_prints() {
        // printf %s abc | sha256sum
        assert_eq!(hash(b"abc").to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let (one, other) = (draw().unwrap(), draw().unwrap());
        assert!(one != other && one.len() == 43, "{one} {other}");
    }
}
