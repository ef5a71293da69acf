//! `lictor explain`: the story of a request that was, or what would become of one, for a person who was just woken up.

use anyhow::bail;
use clap::Args;
use serde_json::Value as Json;

use crate::cli::probe::{self, Running, encode};
use crate::term::Paint;
use crate::words::{prospect, stories};

/// Either a request's id, or METHOD UPSTREAM PATH, or METHOD URL at the gateway.
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// A request's id (`X-Request-ID`), or METHOD UPSTREAM PATH: `GET user-service /users/1`, or, at the gateway, METHOD URL:
    /// `GET https://shop.example/api/users/1`.
    #[arg(required = true, num_args = 1..=3, value_name = "ID | METHOD UPSTREAM PATH | METHOD URL")]
    what: Vec<String>,
    /// A header of the request that is not sent.
    #[arg(short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    #[command(flatten)]
    running: Running,
}

pub(super) fn explain(asked: &Explain) -> anyhow::Result<u8> {
    let admin = asked.running.admin()?;
    let (page, told): (Json, fn(&Json, Paint) -> String) = match asked.what.as_slice() {
        [id] => (probe::page(&admin, &format!("requests/{}", encode(id)))?, stories),
        [method, url] if url.contains("://") => {
            let page = with_headers(format!("explain?method={}&url={}", encode(method), encode(url)), &asked.headers);
            (probe::page(&admin, &page)?, prospect)
        }
        [method, upstream, path] => (probe::page(&admin, &question(method, upstream, path, &asked.headers))?, prospect),
        _ => bail!(
            "say a request's id, or METHOD UPSTREAM PATH: `lictor explain GET user-service /users/1`, or METHOD URL"
        ),
    };
    asked.running.output.print(&page, |page| told(page, Paint::stdout()));
    Ok(0)
}

fn question(method: &str, upstream: &str, path: &str, headers: &[String]) -> String {
    let page = format!("explain?method={}&upstream={}&path={}", encode(method), encode(upstream), encode(path));
    with_headers(page, headers)
}

fn with_headers(mut page: String, headers: &[String]) -> String {
    for header in headers {
        page += &format!("&header={}", encode(header));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_goes_as_it_is() {
        let page = question("GET", "users", "/a b?c=d&e", &["X-A: 1".to_owned()]);
        assert_eq!(page, "explain?method=GET&upstream=users&path=/a%20b%3Fc%3Dd%26e&header=X-A%3A%201");
    }
}
