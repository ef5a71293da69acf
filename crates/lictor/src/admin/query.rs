//! A request's query (`?upstream=users&status=5xx`), decoded.

use std::time::Duration;

use lictor_core::story::Filter;

use super::api::{Operation, Who, decode};

/// Names and values, in their order.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    /// Why it is none for this operation.
    pub(super) fn check(&self, operation: &Operation, who: Who) -> Result<(), String> {
        operation.check(who, self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// The first value of this name that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Whether it is there, as `?watch` or `?watch=1`.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.0.iter().any(|(known, value)| known == name && !matches!(value.as_str(), "0" | "false"))
    }

    /// All its values.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// A duration such as `5m`.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, String> {
        let parse = |text: &str| {
            humantime::parse_duration(text).map_err(|_| format!("`{name}` takes a duration such as 5m, not `{text}`"))
        };
        self.get(name).map(parse).transpose()
    }

    /// Which requests are asked for: `upstream`, `status`, `reason`, `path`.
    pub(super) fn filter(&self) -> Result<Filter, String> {
        let text = |name| self.get(name).map(str::to_owned);
        Ok(Filter {
            upstream: text("upstream"),
            status: self.get("status").map(str::parse).transpose()?,
            reason: text("reason"),
            path: text("path"),
        })
    }
}

#[cfg(test)]
mod tests {
    use lictor_core::story::StatusFilter;

    use super::*;

    #[test]
    fn values_are_decoded_and_filters_read() {
        let query = Query::parse("upstream=users&status=5xx&path=%2Fa%20b&header=A%3A1&header=B:2&empty=&x%zz=1");
        let filter = query.filter().unwrap();
        assert_eq!((filter.upstream.as_deref(), filter.path.as_deref()), (Some("users"), Some("/a b")));
        assert_eq!((filter.status, filter.reason), (Some(StatusFilter::Class(5)), None));
        assert!(query.is_set("empty") && query.is_set("status") && !query.is_set("none"));
        assert!(!Query::parse("watch=0").is_set("watch") && Query::parse("watch=1").is_set("watch"));
        assert_eq!(query.all("header").collect::<Vec<_>>(), ["A:1", "B:2"]);
        assert_eq!((query.get("empty"), query.get("x%zz")), (None, Some("1")));
        assert!(Query::parse("status=often").filter().unwrap_err().contains("often"));
        assert_eq!(Query::parse("for=5m").duration("for"), Ok(Some(Duration::from_secs(300))));
        assert!(Query::parse("for=soon").duration("for").is_err());
    }
}
