//! Signatures: jsonwebtoken asks, ring computes. jsonwebtoken brings no cryptography of its own unless asked; lictor has one provider, ring.
//!
//! The provider is the process's (`CryptoProvider::install_default`), as jsonwebtoken wants it, and is installed by who first needs it.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory,
    verifier_factory,
    // What of jsonwebtoken asks for these, JWKs of its own, is not used.
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        compute_digest: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    },
};

/// Whether the signature (as it stands in a token) over the message is this key's. The caller has seen to it that the key is for the algorithm.
pub(crate) fn is_signed(message: &[u8], signature: &str, key: &DecodingKey, algorithm: Algorithm) -> bool {
    install();
    jsonwebtoken::crypto::verify(signature, message, key, algorithm).unwrap_or(false)
}

/// Somebody else's provider, if it came first, stays.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "jsonwebtoken's signature")]
fn signer_factory(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into()) // lictor signs nothing
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "jsonwebtoken's signature")]
fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Ring { algorithm: *algorithm, key: key.clone() }))
}

/// One check.
struct Ring {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let checked = match self.algorithm {
            Algorithm::HS256 => self.mac(hmac::HMAC_SHA256, message, signature),
            Algorithm::HS384 => self.mac(hmac::HMAC_SHA384, message, signature),
            Algorithm::HS512 => self.mac(hmac::HMAC_SHA512, message, signature),
            Algorithm::RS256 => self.rsa(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature),
            Algorithm::RS384 => self.rsa(&signature::RSA_PKCS1_2048_8192_SHA384, message, signature),
            Algorithm::RS512 => self.rsa(&signature::RSA_PKCS1_2048_8192_SHA512, message, signature),
            Algorithm::PS256 => self.rsa(&signature::RSA_PSS_2048_8192_SHA256, message, signature),
            Algorithm::PS384 => self.rsa(&signature::RSA_PSS_2048_8192_SHA384, message, signature),
            Algorithm::PS512 => self.rsa(&signature::RSA_PSS_2048_8192_SHA512, message, signature),
            // r and s side by side, each as long as the curve's order and neither 0 nor beyond it (RFC 7518, section 3.4): CVE-2022-21449.
            Algorithm::ES256 => self.public(&signature::ECDSA_P256_SHA256_FIXED, message, signature),
            Algorithm::ES384 => self.public(&signature::ECDSA_P384_SHA384_FIXED, message, signature),
            Algorithm::EdDSA => self.public(&signature::ED25519, message, signature),
            _ => None,
        };
        checked.ok_or_else(Error::new)
    }
}

impl Ring {
    fn mac(&self, algorithm: hmac::Algorithm, message: &[u8], signature: &[u8]) -> Option<()> {
        let DecodingKeyKind::SecretOrDer(secret) = self.key.kind() else { return None };
        hmac::verify(&hmac::Key::new(algorithm, secret), message, signature).ok()
    }

    fn rsa(&self, parameters: &'static RsaParameters, message: &[u8], signature: &[u8]) -> Option<()> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() else { return None };
        RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).ok()
    }

    fn public(&self, algorithm: &'static dyn VerificationAlgorithm, message: &[u8], signature: &[u8]) -> Option<()> {
        let DecodingKeyKind::SecretOrDer(key) = self.key.kind() else { return None };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).ok()
    }
}
