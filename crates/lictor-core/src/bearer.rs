//! The token that our calls show where the application shows none (RFC 6750, section 2.1).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;

use crate::secret::Secret;

/// Its file is looked at again at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A token, which may change while it is in use: where it came from a file, that file is read again after a 401.
#[derive(Debug)]
pub struct Bearer {
    /// Where it came from, if it was a file.
    file: Option<PathBuf>,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    /// `Bearer ..`
    header: HeaderValue,
    looked: Option<Instant>,
}

impl Bearer {
    /// `None` for what cannot be a token: something empty, or with spaces or control characters.
    pub fn new(token: &Secret, file: Option<PathBuf>) -> Option<Self> {
        Some(Self { file, now: Mutex::new(Now { header: header(token)?, looked: None }) })
    }

    /// What `Authorization` says now.
    pub fn header(&self) -> HeaderValue {
        self.now.lock().header.clone()
    }

    /// The file to look at after this was refused: none where another one is in force by now, or somebody has just looked.
    pub fn file_after(&self, refused: &HeaderValue, now: Instant) -> Option<&PathBuf> {
        let file = self.file.as_ref()?;
        let mut known = self.now.lock();
        let is_recent = known.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY);
        if known.header != *refused || is_recent {
            return None;
        }
        known.looked = Some(now);
        Some(file)
    }

    /// The file says this now.
    pub fn renew(&self, token: &Secret) {
        if let Some(header) = header(token) {
            self.now.lock().header = header;
        }
    }
}

/// One is another when it says another thing or comes from elsewhere.
impl PartialEq for Bearer {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && (std::ptr::eq(self, other) || self.header() == other.header())
    }
}

fn header(token: &Secret) -> Option<HeaderValue> {
    let is_token = !token.reveal().is_empty() && token.reveal().bytes().all(|byte| byte.is_ascii_graphic());
    let mut header = HeaderValue::try_from(format!("Bearer {}", token.reveal())).ok().filter(|_| is_token)?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_at_once_a_second_and_only_for_the_token_that_was_refused() {
        let (one, two) = (Secret::new("one"), Secret::new("two"));
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let bearer = Bearer::new(&one, Some("/t".into())).unwrap();
        let refused = bearer.header();
        assert_eq!(refused, "Bearer one");
        assert!(bearer.file_after(&refused, at(0)).is_some());
        assert!(bearer.file_after(&refused, at(999)).is_none(), "somebody has just looked");
        assert!(bearer.file_after(&refused, at(1000)).is_some());
        bearer.renew(&Secret::new("not a token"));
        assert_eq!(bearer.header(), "Bearer one");
        bearer.renew(&two);
        assert_eq!(bearer.header(), "Bearer two");
        assert!(bearer.file_after(&refused, at(9000)).is_none(), "another one is in force");
        assert!(bearer.header().is_sensitive());
        let plain = Bearer::new(&one, None).unwrap();
        assert!(plain.file_after(&refused, at(0)).is_none());
        for wrong in ["", " ", "a b", "a\n", "\u{f6}"] {
            assert!(Bearer::new(&Secret::new(wrong), None).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn no_page_shows_it() {
        let shown = format!("{:?}", Bearer::new(&Secret::new("s3cret"), None).unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
