//! `/ui`: the dashboard, one file without anything from elsewhere. It reads `/ui/live`, `/requests/ID` and `/config`.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderValue, Response};
use ring::digest::{SHA256, digest};

use crate::admin::reply::{Body, text_reply};

const PAGE: &str = include_str!("ui.html");

/// Content Security Policy, level 3: only this script and this style, named by their hashes, and only our own pages.
/// What a path or a header smuggles into the page can therefore not run, even if it were not escaped.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    HeaderValue::try_from(policy).expect("hashes are ASCII")
});

/// The page.
pub(super) fn page() -> Response<Body> {
    let mut response = text_reply("text/html; charset=utf-8", PAGE.to_owned());
    let fixed = |text| HeaderValue::from_static(text);
    let fields: [(HeaderName, HeaderValue); 4] = [
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (X_FRAME_OPTIONS, fixed("DENY")),
        (REFERRER_POLICY, fixed("no-referrer")),
    ];
    response.headers_mut().extend(fields);
    response
}

/// Of what is between the only such tags.
fn hash(tag: &str) -> String {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let inside = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map_or("", |(inside, _)| inside);
    format!("sha256-{}", BASE64_STANDARD.encode(digest(&SHA256, inside.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_small_file_that_asks_nobody_else() {
        assert!(PAGE.len() < 60 << 10, "{} bytes", PAGE.len());
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://"), "only this listener");
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!PAGE.contains(forbidden), "{forbidden} makes text into markup or code");
        }
        for forbidden in [" onclick=", " onload=", " onerror=", " style=", "javascript:"] {
            assert!(!PAGE.contains(forbidden), "{forbidden} is against the policy");
        }
        assert_eq!((PAGE.matches("<script").count(), PAGE.matches("<style").count()), (1, 1));
    }

    #[test]
    fn the_policy_names_the_script_and_the_style() {
        let response = page();
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_ne!(hash("script"), hash("style"));
        assert_ne!(hash("script"), hash("no such tag"), "the script is found");
    }
}
