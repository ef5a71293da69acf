//! `Date`, which is written once a second.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// The date that was told last, and until when it is the date.
#[derive(Debug, Default)]
pub(crate) struct Date(RefCell<Option<(Instant, HeaderValue)>>);

impl Date {
    /// The value of `Date` (RFC 9110, section 5.6.7) for an answer that comes or is made now.
    pub(crate) fn now(&self, now: Instant) -> HeaderValue {
        let mut last = self.0.borrow_mut();
        if let Some((until, date)) = &*last
            && now < *until
        {
            return date.clone();
        }
        let time = SystemTime::now();
        let within = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        let until = now + Duration::from_nanos(1_000_000_000 - u64::from(within));
        let date = HeaderValue::try_from(httpdate::fmt_http_date(time)).unwrap_or(HeaderValue::from_static(""));
        *last = Some((until, date.clone()));
        date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_its_second() {
        let (date, now) = (Date::default(), Instant::now());
        let (one, other) = (date.now(now), date.now(now + Duration::from_millis(1100)));
        for told in [&one, &other] {
            let told = httpdate::parse_http_date(told.to_str().unwrap()).unwrap();
            assert!(told.elapsed().unwrap_or_default() < Duration::from_secs(60));
        }
        assert_eq!(date.now(now), other, "kept for its second");
    }
}
