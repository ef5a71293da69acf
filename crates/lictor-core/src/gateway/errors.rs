//! What a failure of the gateway's own looks like: in the shape that the clients of an API know.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::template::Template;

/// How failures are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// RFC 9457: `type`, `title`, `status`, `detail`, and `reason`, `request_id`, `retry_after`.
    Problem,
    /// `{"status":"error","message":..,"timestamp":..}`, and `retry_after` where there is one.
    StatusMessage,
    /// `{"error":..}`.
    Error,
    /// `{"error":"Bad Gateway","message":..}`.
    ErrorMessage,
    /// A line.
    Text,
    /// The configuration's own.
    Template(Box<Page>),
}

/// A body of the configuration's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What it is.
    pub content_type: HeaderValue,
    escaping: Escaping,
    template: Template<Variable>,
}

/// What may stand in a [`Page`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `{status}`: 503.
    Status,
    /// `{title}`: Service Unavailable.
    Title,
    /// `{reason}`: `breaker_open`.
    Reason,
    /// `{message}`: the sentence.
    Message,
    /// `{request_id}`.
    RequestId,
    /// `{timestamp}`: RFC 3339, UTC.
    Timestamp,
    /// `{retry_after}`: seconds, 0 where there is nothing to wait for.
    RetryAfter,
    /// `{route}`: its label, empty where there is none.
    Route,
}

/// A failure.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Its status.
    pub status: StatusCode,
    /// The word.
    pub reason: &'a str,
    /// A sentence for those who are outside.
    pub message: &'a str,
    /// Whether it is a 401 of somebody who has shown something.
    pub is_wrong: bool,
    /// The request's.
    pub request_id: &'a str,
    /// RFC 3339.
    pub timestamp: &'a str,
    /// Seconds.
    pub retry_after: Option<u64>,
    /// The route's label.
    pub route: Option<&'a str>,
}

/// How what a client may have chosen is written among the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escaping {
    Json,
    Html,
    Plain,
}

impl Shape {
    /// What it is, and the body.
    pub fn write(&self, told: &Told<'_>) -> (HeaderValue, Bytes) {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        match self {
            Self::Problem => (HeaderValue::from_static("application/problem+json"), problem(told)),
            Self::StatusMessage => (JSON, status_message(told)),
            Self::Error => (JSON, Object::default().text("error", &lower(told)).end()),
            Self::ErrorMessage => (JSON, error_message(told)),
            Self::Text => {
                let text = HeaderValue::from_static("text/plain; charset=utf-8");
                let words = if told.status.is_server_error() { "Service not available" } else { told.message };
                (text, Bytes::from(format!("{words}\n")))
            }
            Self::Template(page) => (page.content_type.clone(), page.write(told)),
        }
    }
}

impl Page {
    /// Reads one; in words why not.
    pub fn parse(text: &str, content_type: HeaderValue) -> Result<Self, String> {
        let known = |name: &str, what: Option<&str>| match name {
            _ if what.is_some() => Err(format!("`{{{name}}}` takes nothing behind a `:`")),
            "status" => Ok(Variable::Status),
            "title" => Ok(Variable::Title),
            "reason" => Ok(Variable::Reason),
            "message" => Ok(Variable::Message),
            "request_id" => Ok(Variable::RequestId),
            "timestamp" => Ok(Variable::Timestamp),
            "retry_after" => Ok(Variable::RetryAfter),
            "route" => Ok(Variable::Route),
            _ => Err(format!(
                "there is no `{{{name}}}`; known: status, title, reason, message, request_id, timestamp, retry_after, route"
            )),
        };
        let template = Template::parse(text, known)?;
        let kind = content_type.to_str().unwrap_or_default().to_ascii_lowercase();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let escaping = match kind.as_str() {
            json if json == "application/json" || json.ends_with("+json") => Escaping::Json,
            markup if markup == "text/html" || markup.ends_with("xml") => Escaping::Html,
            _ => Escaping::Plain,
        };
        Ok(Self { content_type, escaping, template })
    }

    fn write(&self, told: &Told<'_>) -> Bytes {
        let made = self.template.write(|variable, out| {
            let number = |number: u64| number.to_string();
            let text = match variable {
                Variable::Status => number(told.status.as_u16().into()),
                Variable::RetryAfter => number(told.retry_after.unwrap_or(0)),
                Variable::Title => title(told.status).to_owned(),
                Variable::Reason => told.reason.to_owned(),
                Variable::Message => told.message.to_owned(),
                Variable::RequestId => told.request_id.to_owned(),
                Variable::Timestamp => told.timestamp.to_owned(),
                Variable::Route => told.route.unwrap_or_default().to_owned(),
            };
            let mut escaped = String::with_capacity(text.len());
            match self.escaping {
                Escaping::Json => json(&text, &mut escaped),
                Escaping::Html => html(&text, &mut escaped),
                Escaping::Plain => escaped = text,
            }
            out.extend_from_slice(escaped.as_bytes());
            true
        });
        Bytes::from(made.unwrap_or_default())
    }
}

fn problem(told: &Told<'_>) -> Bytes {
    let mut body = Object::default();
    body.text("type", "about:blank").text("title", title(told.status)).number("status", told.status.as_u16().into());
    body.text("detail", told.message).text("reason", told.reason).text("request_id", told.request_id);
    body.text("timestamp", told.timestamp);
    if let Some(seconds) = told.retry_after {
        body.number("retry_after", seconds);
    }
    body.end()
}

fn status_message(told: &Told<'_>) -> Bytes {
    let message = match told.status {
        StatusCode::UNAUTHORIZED if told.is_wrong => "Invalid authentication token",
        StatusCode::UNAUTHORIZED => "Authentication required",
        StatusCode::TOO_MANY_REQUESTS => "Rate limit exceeded",
        status if status.is_server_error() => "Service temporarily unavailable",
        _ => told.message,
    };
    let mut body = Object::default();
    body.text("status", "error").text("message", message).text("timestamp", told.timestamp);
    if let Some(seconds) = told.retry_after {
        body.number("retry_after", seconds);
    }
    body.end()
}

fn error_message(told: &Told<'_>) -> Bytes {
    let message = match told.status {
        StatusCode::UNAUTHORIZED if told.is_wrong => "Invalid token",
        StatusCode::UNAUTHORIZED => "No token provided",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests, please try again later",
        status if status.is_server_error() => "Service temporarily unavailable",
        _ => told.message,
    };
    Object::default().text("error", title(told.status)).text("message", message).end()
}

/// As Go's programs say it.
fn lower(told: &Told<'_>) -> String {
    match told.status {
        StatusCode::UNAUTHORIZED if told.is_wrong => "invalid token".to_owned(),
        StatusCode::UNAUTHORIZED => "missing token".to_owned(),
        StatusCode::TOO_MANY_REQUESTS => "rate limit exceeded".to_owned(),
        StatusCode::SERVICE_UNAVAILABLE => "service unavailable".to_owned(),
        status if status.is_server_error() => title(status).to_ascii_lowercase(),
        _ => told.message.to_owned(),
    }
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

/// A JSON object, member by member.
#[derive(Debug, Default)]
struct Object(String);

impl Object {
    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        self.0.push('"');
        json(value, &mut self.0);
        self.0.push('"');
        self
    }

    fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        let _ = write!(self.0, "{value}");
        self
    }

    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        let _ = write!(self.0, "\"{name}\":");
    }

    fn end(&mut self) -> Bytes {
        self.0.push('}');
        Bytes::from(std::mem::take(&mut self.0))
    }
}

/// What stands between the quotes (RFC 8259, section 7). `<` and `>` are escaped too, so that no page takes it for markup.
fn json(text: &str, out: &mut String) {
    for sign in text.chars() {
        match sign {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{0}'..='\u{1f}' | '\u{7f}' | '<' | '>' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(sign));
            }
            sign => out.push(sign),
        }
    }
}

fn html(text: &str, out: &mut String) {
    for sign in text.chars() {
        match sign {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            sign => out.push(sign),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Told<'_> = Told {
        status: StatusCode::NOT_FOUND,
        reason: "no_route",
        message: "no \"route\"\n<is> for \\it",
        is_wrong: false,
        request_id: "id-1",
        timestamp: "2025-12-04T08:00:00.000Z",
        retry_after: None,
        route: Some("/users/{id}"),
    };

    fn of(shape: &Shape, told: &Told<'_>) -> String {
        String::from_utf8(shape.write(told).1.to_vec()).unwrap()
    }

    #[test]
    fn each_shape_is_what_its_clients_know() {
        let told = |status: u16, retry_after, is_wrong| Told {
            status: StatusCode::from_u16(status).unwrap(),
            message: "the sentence",
            retry_after,
            is_wrong,
            ..TOLD
        };
        let at = "\"timestamp\":\"2025-12-04T08:00:00.000Z\"";
        for (shape, status, retry_after, is_wrong, wanted) in [
            (
                Shape::StatusMessage,
                503,
                None,
                false,
                format!(r#"{{"status":"error","message":"Service temporarily unavailable",{at}}}"#),
            ),
            (
                Shape::StatusMessage,
                401,
                None,
                false,
                format!(r#"{{"status":"error","message":"Authentication required",{at}}}"#),
            ),
            (
                Shape::StatusMessage,
                401,
                None,
                true,
                format!(r#"{{"status":"error","message":"Invalid authentication token",{at}}}"#),
            ),
            (
                Shape::StatusMessage,
                429,
                Some(60),
                false,
                format!(r#"{{"status":"error","message":"Rate limit exceeded",{at},"retry_after":60}}"#),
            ),
            (Shape::StatusMessage, 404, None, false, format!(r#"{{"status":"error","message":"the sentence",{at}}}"#)),
            (
                Shape::ErrorMessage,
                502,
                None,
                false,
                r#"{"error":"Bad Gateway","message":"Service temporarily unavailable"}"#.to_owned(),
            ),
            (
                Shape::ErrorMessage,
                401,
                None,
                false,
                r#"{"error":"Unauthorized","message":"No token provided"}"#.to_owned(),
            ),
            (Shape::ErrorMessage, 401, None, true, r#"{"error":"Unauthorized","message":"Invalid token"}"#.to_owned()),
            (Shape::ErrorMessage, 403, None, false, r#"{"error":"Forbidden","message":"the sentence"}"#.to_owned()),
            (Shape::Error, 503, None, false, r#"{"error":"service unavailable"}"#.to_owned()),
            (Shape::Error, 502, None, false, r#"{"error":"bad gateway"}"#.to_owned()),
            (Shape::Error, 401, None, false, r#"{"error":"missing token"}"#.to_owned()),
            (Shape::Error, 401, None, true, r#"{"error":"invalid token"}"#.to_owned()),
            (Shape::Error, 429, Some(1), false, r#"{"error":"rate limit exceeded"}"#.to_owned()),
            (Shape::Error, 413, None, false, r#"{"error":"the sentence"}"#.to_owned()),
            (Shape::Text, 503, None, false, "Service not available\n".to_owned()),
            (Shape::Text, 404, None, false, "the sentence\n".to_owned()),
            (
                Shape::Problem,
                429,
                Some(7),
                false,
                format!(
                    r#"{{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"the sentence","reason":"no_route","request_id":"id-1",{at},"retry_after":7}}"#
                ),
            ),
        ] {
            assert_eq!(of(&shape, &told(status, retry_after, is_wrong)), wanted, "{shape:?} {status}");
        }
        assert_eq!(Shape::Problem.write(&TOLD).0, "application/problem+json");
    }

    #[test]
    fn pages_are_filled_in_by_what_they_are() {
        let page = |text: &str, kind: &'static str| {
            Page::parse(text, HeaderValue::from_static(kind)).map(|page| Shape::Template(Box::new(page)))
        };
        let escaped = r#"no \"route\"\u000a\u003cis\u003e for \\it"#;
        for (text, kind, wanted) in [
            (
                r#"{"code":{status},"msg":"{message}"}"#,
                "application/json",
                format!(r#"{{"code":404,"msg":"{escaped}"}}"#),
            ),
            (r#""{message}""#, "application/vnd.shop+json; charset=utf-8", format!("\"{escaped}\"")),
            ("<p>{message}</p>", "text/html", "<p>no &quot;route&quot;\n&lt;is&gt; for \\it</p>".to_owned()),
            (
                "{status} {title} {reason} {request_id} {route} {retry_after}",
                "text/plain",
                "404 Not Found no_route id-1 /users/{id} 0".to_owned(),
            ),
        ] {
            let page = page(text, kind).unwrap();
            assert_eq!(of(&page, &TOLD), wanted, "{text}");
            assert_eq!(page.write(&TOLD).0, kind);
        }
        for wrong in ["{mesage}", "{status:1}", "{env}", "{header:x}"] {
            assert!(page(wrong, "text/plain").is_err(), "{wrong}");
        }
    }
}
