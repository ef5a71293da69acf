//! The fields by which an answer tells browsers to be careful with it.

use http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue};

/// What answers get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// `Strict-Transport-Security` (RFC 6797), over TLS alone (section 7.2).
    pub hsts: Option<HeaderValue>,
    /// The others.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// In place of what the upstream says.
    pub replaces: bool,
}

impl Security {
    /// Who may put a page into a frame: `deny`, `sameorigin`; `frame-ancestors` says the same to newer browsers.
    pub fn frames(is_denied: bool) -> [(HeaderName, HeaderValue); 2] {
        let (old, new) =
            if is_denied { ("DENY", "frame-ancestors 'none'") } else { ("SAMEORIGIN", "frame-ancestors 'self'") };
        [(X_FRAME_OPTIONS, HeaderValue::from_static(old)), (CONTENT_SECURITY_POLICY, HeaderValue::from_static(new))]
    }

    /// No guessing of what a body is.
    pub fn nosniff() -> (HeaderName, HeaderValue) {
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
    }

    /// What others are told of where a visitor comes from.
    pub fn referrer(policy: &'static str) -> (HeaderName, HeaderValue) {
        (REFERRER_POLICY, HeaderValue::from_static(policy))
    }

    /// Says it in an answer's head.
    pub fn dress(&self, answer: &mut HeaderMap, is_encrypted: bool) {
        let hsts = self.hsts.as_ref().filter(|_| is_encrypted).map(|value| (&STRICT_TRANSPORT_SECURITY, value));
        for (name, value) in hsts.into_iter().chain(self.fields.iter().map(|(name, value)| (name, value))) {
            if self.replaces || !answer.contains_key(name) {
                answer.insert(name, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_upstream_says_stays_unless_it_is_to_go_and_hsts_is_for_tls() {
        let of = |replaces| Security {
            hsts: Some(HeaderValue::from_static("max-age=1")),
            fields: Security::frames(true).into_iter().chain([Security::nosniff()]).collect(),
            replaces,
        };
        for (replaces, is_encrypted, frame, hsts) in
            [(false, false, "SAMEORIGIN", None), (true, true, "DENY", Some("max-age=1"))]
        {
            let mut answer = HeaderMap::new();
            answer.insert(X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
            of(replaces).dress(&mut answer, is_encrypted);
            assert_eq!(answer[X_FRAME_OPTIONS], frame);
            assert_eq!(answer[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(answer[CONTENT_SECURITY_POLICY], "frame-ancestors 'none'");
            assert_eq!(answer.get(STRICT_TRANSPORT_SECURITY).map(|value| value.to_str().unwrap()), hsts);
        }
    }
}
