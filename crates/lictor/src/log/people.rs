//! Log lines for people: what the JSON says, in a line that is read. Whatever others have said in it is only seen.

use std::fmt;
use std::io::{IsTerminal, stdout};

use lictor_config::LogFormat;
use lictor_core::plain;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::term::{Paint, millis};

/// What every line has; a person sees the rest.
const UNSAID: [&str; 4] = ["timestamp", "level", "target", "message"];

/// Whoever reads the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct People {
    paint: Paint,
    /// They see it as it comes, and know what day it is.
    are_watching: bool,
}

impl People {
    /// `None` where a program reads it.
    pub(super) fn at_stdout(format: LogFormat) -> Option<Self> {
        let are_watching = stdout().is_terminal();
        match format {
            LogFormat::Json => None,
            LogFormat::Auto if !are_watching => None,
            LogFormat::Auto | LogFormat::Text => Some(Self { paint: Paint::stdout(), are_watching }),
        }
    }

    /// The line in words; `None` for what is no line of ours.
    pub(super) fn line(self, json: &[u8]) -> Option<String> {
        let line: Line = serde_json::from_slice(json).ok()?;
        let level = line.text("level");
        let painted = match level {
            "ERROR" => self.paint.verdict("ERROR", false),
            "WARN" => self.paint.caution("WARN "),
            other => format!("{other:<5}"),
        };
        let time = line.text("timestamp");
        let time = time.get(11..23).filter(|_| self.are_watching).unwrap_or(time);
        let what = match (line.text("target"), line.text("message")) {
            ("lictor::access", "request") => self.request(&line),
            ("lictor::access", _) => line.rest(line.text("message")),
            (target, message) => {
                let is_ours = target.starts_with("lictor") && !matches!(level, "DEBUG" | "TRACE");
                let from = if is_ours { String::new() } else { format!("{}: ", plain::line(target)) };
                from + &line.rest(message)
            }
        };
        Some(format!("{} {painted} {what}", self.paint.dim(&plain::line(time))))
    }

    /// `GET /users/1 503 users 12 ms connect_refused [10.0.3.9:8001=connect_refused(1ms)] 5f2c..`
    fn request(self, line: &Line) -> String {
        let text = |key: &str| plain::line(line.text(key));
        let number = |key: &str| line.get(key).and_then(Json::as_f64).unwrap_or_default();
        let (reason, attempts, status) = (text("reason"), text("attempts"), number("status"));
        let is_good = reason.is_empty() && status < 500.0;
        let direction = Some(text("direction")).filter(|direction| direction != "outbound");
        let tried =
            Some(&attempts).filter(|attempts| !attempts.is_empty() && !reason.is_empty() || attempts.contains(','));
        let words = [
            direction,
            Some(text("method")),
            Some(text("path")),
            Some(self.paint.verdict(&status.to_string(), is_good).into()),
            Some(text("upstream")),
            Some(millis(number("duration") * 1e3).into()),
            Some(&reason).filter(|reason| !reason.is_empty()).map(|reason| self.paint.verdict(reason, false).into()),
            tried.map(|attempts| format!("[{attempts}]").into()),
            Some(self.paint.dim(&text("request_id")).into()),
        ];
        words.into_iter().flatten().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// A line of ours, its fields in their order.
#[derive(Debug)]
struct Line(Vec<(String, Json)>);

impl Line {
    fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn text(&self, key: &str) -> &str {
        self.get(key).and_then(Json::as_str).unwrap_or_default()
    }

    /// Words, and what is said besides.
    fn rest(&self, words: &str) -> String {
        let mut text = plain::line(words).into_owned();
        for (name, value) in &self.0 {
            // What an event is called its message says; what listens nothing else does.
            let is_said = UNSAID.contains(&name.as_str()) || name == "kind" && self.text("target") == "lictor::event";
            if is_said {
                continue;
            }
            let value = match value {
                Json::String(value) if is_word(value) => value.clone(),
                value => value.to_string(),
            };
            text += &format!(" {}={}", plain::line(name), plain::line(&value));
        }
        text
    }
}

/// It needs no quotes.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\\'))
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Line;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a log line")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Line(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: &str = r#"{"timestamp":"2026-12-01T10:00:00.123456Z","level":"WARN","message":"a name","target":"lictor_consul::watch","service":"users","error":"no such host","kept":2}"#;

    #[test]
    fn a_line_is_what_the_json_says() {
        let read = |are_watching, line: &str| People { paint: Paint::none(), are_watching }.line(line.as_bytes());
        let words = "WARN  a name service=users error=\"no such host\" kept=2";
        assert_eq!(read(false, STARTED).unwrap(), format!("2026-12-01T10:00:00.123456Z {words}"));
        assert_eq!(read(true, STARTED).unwrap(), format!("10:00:00.123 {words}"));
        assert!(read(true, "no JSON").is_none() && read(true, "[1]").is_none());
    }

    #[test]
    fn a_request_is_a_short_line() {
        let people = People { paint: Paint::none(), are_watching: true };
        let failed = r#"{"timestamp":"2026-12-01T10:00:00.123Z","level":"ERROR","target":"lictor::access","message":"request","direction":"inbound","service":"","method":"GET","path":"/a","status":503,"duration":0.0124,"bytes":7,"upstream":"users","attempts":"10.0.0.1:80=reset(1ms)","reason":"reset","request_id":"r-1","ip":"::1"}"#;
        let said = people.line(failed.as_bytes()).unwrap();
        assert_eq!(said, "10:00:00.123 ERROR inbound GET /a 503 users 12 ms reset [10.0.0.1:80=reset(1ms)] r-1");
    }

    #[test]
    fn whatever_others_say_is_only_seen() {
        let people = People { paint: Paint::none(), are_watching: true };
        let evil = r#"{"timestamp":"2026","level":"INFO","target":"lictor","message":"a\u001b[2Jb","name":"c\u202ed"}"#;
        assert_eq!(people.line(evil.as_bytes()).unwrap(), "2026 INFO  a\\u001b[2Jb name=c\\u202ed");
    }
}
