//! What the admin listener can be asked, as one table: by it requests are found and judged, and `/openapi.json` is
//! made of it. What is not in the table does not exist, and what is in it is carried out by an exhaustive match.
//!
//! The table knows nobody of the listener. `schemas` says what answers look like, `document` writes all of it down.

mod blocks;
mod document;
mod orders;
mod pages;
mod schemas;

use std::time::Duration;

use http::Method;

pub(super) use blocks::{DELAY, PATCH_MAX, TTL, VALUE_MAX, WAIT};
pub(super) use document::document;
pub(super) use orders::{LEVEL_MAX, STEERED_AT_MOST};

/// What all paths of building blocks begin with.
pub(super) const BLOCKS: &str = "/v1/";

/// How far back history may be asked for.
pub(super) const HISTORY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(600)];

/// All that there is. The first path that matches counts, so what is special stands before what is general.
const TABLE: [&[Path]; 3] = [orders::PATHS, pages::PATHS, blocks::PATHS];

/// A path, and what may be done there.
#[derive(Debug)]
pub(super) struct Path {
    /// `/breakers/{name}`
    pub(super) template: &'static str,
    pub(super) who: Who,
    /// What stands for `{..}`.
    pub(super) name: Option<Name>,
    pub(super) operations: &'static [Operation],
}

/// Who may ask, besides programs of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Anybody, at places that are kept for that.
    Prober,
    /// Anybody.
    Anyone,
    /// Who shows `admin.token`.
    Operator,
    /// Nobody; programs of this machine have to show `building_blocks.token`.
    Application,
}

/// A part of a path that is not always the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) told: &'static str,
    /// `/` may be in it as it is; else it has to be `%2F`.
    pub(super) is_deep: bool,
    /// What stands between two `/`, where not anything will do.
    pub(super) part: Option<&'static str>,
}

/// A method of a path, or some of what it does.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) does: Does,
    /// Its name in the document, and so in clients that are made from it.
    pub(super) id: &'static str,
    /// In a line.
    pub(super) summary: &'static str,
    /// What else there is to know.
    pub(super) told: &'static str,
    pub(super) query: &'static [Parameter],
    pub(super) body: Option<RequestBody>,
    /// Without those that all have ([`Who`]).
    pub(super) answers: &'static [Answer],
}

/// Who carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    Page(Page),
    Command(Command),
    Block(Block),
}

/// Something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Index,
    OpenApi,
    Live,
    Startup,
    Ready,
    Health,
    Metrics,
    Endpoints,
    EndpointsOf,
    Upstreams,
    Breakers,
    Routes,
    GatewayRoutes,
    Config,
    Changes,
    Stats,
    GatewayStats,
    Consul,
    History,
    Events,
    Requests,
    Request,
    Explain,
    Tap,
    Ui,
    UiLive,
    UiData,
}

/// An operator's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Drain,
    Undrain,
    Eject,
    Pin,
    Undo,
    Breaker,
    Maintenance,
    Reload,
    LogLevel,
    Quit,
}

/// What an application asks of Consul.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Services,
    Service,
    WatchService,
    ReadSettings,
    ReadSetting,
    WriteSetting,
    TakeLock,
    ReleaseLock,
    Sagas,
    BeginSaga,
    Saga,
    SagaAgain,
    PatchMeta,
}

/// Of the query (`?name=value`).
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// With its unit and what it is when nobody says.
    pub(super) told: &'static str,
    pub(super) default: Option<&'static str>,
    pub(super) is_required: bool,
}

/// What a parameter may say. An empty text is as if it were not there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    /// Several are taken: `tag=a&tag=b`.
    Texts,
    /// `?watch`, `?watch=true`, `?watch=1`, and the contrary.
    Flag,
    Words(&'static [&'static str]),
    /// Up to this.
    Whole(u64),
    /// `503`, `5xx`
    Status,
    Duration {
        least: Duration,
        most: Duration,
    },
    /// `17`, `10m`
    Since,
    /// `GET`
    Method,
    /// `/users?page=2`
    Path,
    /// `https://shop.example/users`
    Url,
    /// `Name: value`, several.
    Fields,
    /// `debug`, `info,lictor_proxy=trace`
    Level,
}

/// What is sent.
#[derive(Debug)]
pub(super) struct RequestBody {
    pub(super) kind: &'static str,
    /// Its name among the schemas; `None`: any bytes.
    pub(super) schema: Option<&'static str>,
    /// Bytes.
    pub(super) most: usize,
    pub(super) is_required: bool,
    pub(super) told: &'static str,
}

/// What may come back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) told: &'static str,
    pub(super) content: Content,
}

/// In which form. A status with several has an answer for each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// By the name of its schema.
    Json(&'static str),
    /// Of this kind.
    Text(&'static str),
    Bytes,
    /// Server-sent events, and the schema of each one's `data`.
    Events(&'static [(&'static str, &'static str)]),
}

/// A path that was asked for.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: &'static Path,
    /// What stood for `{..}`, decoded.
    pub(super) name: String,
}

/// All paths.
pub(super) fn paths() -> impl Iterator<Item = &'static Path> {
    TABLE.iter().flat_map(|paths| paths.iter())
}

/// The one that is asked for.
pub(super) fn find(path: &str) -> Option<Found> {
    paths().find_map(|known| Some(Found { path: known, name: decode(known.matches(path)?) }))
}

impl Path {
    /// What stands for `{..}`, if this is it; nothing, if there is no such part.
    fn matches<'a>(&self, path: &'a str) -> Option<&'a str> {
        let is_key = self.who == Who::Application;
        let path = if is_key || path.len() == 1 { path } else { path.trim_end_matches('/') };
        let Some(name) = self.name else {
            let is_it = path == self.template || path.trim_end_matches('/') == self.template.trim_end_matches('/');
            let is_folder = self.template.len() > 1 && self.template.ends_with('/');
            return (is_it && (!is_folder || path.ends_with('/'))).then_some("");
        };
        let (before, rest) = self.template.split_once('{')?;
        let (_, after) = rest.split_once('}')?;
        let given = path.strip_prefix(before)?.strip_suffix(after)?;
        (!given.is_empty() && (name.is_deep || !given.contains('/'))).then_some(given)
    }

    /// The operation; a page may be asked for by HEAD, too.
    pub(super) fn operation(&self, method: &Method) -> Option<&'static Operation> {
        let wanted = if *method == Method::HEAD && self.answers_head() { GET } else { method.as_str() };
        self.operations.iter().find(|operation| operation.method == wanted)
    }

    /// For `Allow`.
    pub(super) fn methods(&self) -> String {
        let words = |operation: &Operation| match operation.method {
            GET if self.answers_head() => "GET, HEAD",
            method => method,
        };
        self.operations.iter().map(words).collect::<Vec<_>>().join(", ")
    }

    fn answers_head(&self) -> bool {
        self.who != Who::Application
    }

    /// Whether other machines need no token.
    pub(super) fn is_public(&self) -> bool {
        matches!(self.who, Who::Prober | Who::Anyone)
    }
}

impl Operation {
    /// Why a query's names or values are no good. What probes and scrapers say besides does not matter to anybody.
    pub(super) fn check<'q>(&self, who: Who, query: impl Iterator<Item = (&'q str, &'q str)>) -> Result<(), String> {
        if matches!(who, Who::Prober | Who::Anyone) {
            return Ok(());
        }
        for (name, value) in query {
            let known = self.query.iter().find(|parameter| parameter.name == name);
            let Some(known) = known else {
                let names: Vec<&str> = self.query.iter().map(|parameter| parameter.name).collect();
                return Err(match names[..] {
                    [] => format!("there is no parameter `{name}` here, nor any other"),
                    _ => format!("there is no parameter `{name}` here; there are {}", names.join(", ")),
                });
            };
            known.check(value)?;
        }
        Ok(())
    }
}

impl Parameter {
    fn check(&self, value: &str) -> Result<(), String> {
        let name = self.name;
        let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
        match self.kind {
            Kind::Flag if !FLAGS.contains(&value) => Err(format!("`{name}` is true or false, not `{value}`")),
            Kind::Words(words) if !words.contains(&value) => {
                Err(format!("`{name}` is one of {}, not `{value}`", words.join(", ")))
            }
            Kind::Whole(most) if !is_number || !value.parse().is_ok_and(|given: u64| given <= most) => {
                Err(format!("`{name}` takes a number of at most {most}, not `{value}`: {}", self.told))
            }
            Kind::Status if !is_status(value) => {
                Err(format!("`{name}` takes a status such as 503 or a class such as 5xx, not `{value}`"))
            }
            Kind::Duration { .. } if value.is_empty() => Err(format!("`{name}` takes a duration such as 5m")),
            Kind::Since if value.is_empty() => {
                Err(format!("`{name}` takes an event's id such as 17, or a duration such as 10m"))
            }
            Kind::Method | Kind::Path | Kind::Url | Kind::Fields if value.is_empty() => {
                Err(format!("`{name}` says nothing: leave it out"))
            }
            Kind::Level if !is_level(value) => {
                Err(format!("`{name}` takes {}, or such as info,lictor_proxy=debug, not `{value}`", LEVELS.join(", ")))
            }
            _ => Ok(()), // whoever works with it says more than could be said here
        }
    }
}

const FLAGS: [&str; 5] = ["", "true", "1", "false", "0"];
pub(super) const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn is_status(text: &str) -> bool {
    let (first, rest) = text.split_at_checked(1).unwrap_or_default();
    let is_rest = rest == "xx" || rest.len() == 2 && rest.bytes().all(|byte| byte.is_ascii_digit());
    matches!(first.as_bytes(), [b'1'..=b'9']) && is_rest
}

/// A level, or levels by where lines come from. A word that is no level would be taken for such a place, and nothing
/// be changed.
pub(super) fn is_level(text: &str) -> bool {
    let is_word = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_place =
        |place: &str| !place.is_empty() && place.bytes().all(|it| it.is_ascii_alphanumeric() || b"_:".contains(&it));
    text.split(',').map(str::trim).all(|part| match part.split_once('=') {
        Some((place, word)) => is_place(place) && is_word(word),
        None => is_word(part),
    })
}

/// Undoes percent-encoding (RFC 3986, section 2.1); what is not encoded well stays as it is.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

const GET: &str = "GET";

const fn get(page: Page) -> Operation {
    of(GET, Does::Page(page))
}

const fn post(command: Command) -> Operation {
    of("POST", Does::Command(command))
}

const fn block(method: &'static str, block: Block) -> Operation {
    of(method, Does::Block(block))
}

const fn of(method: &'static str, does: Does) -> Operation {
    Operation { method, does, id: "", summary: "", told: "", query: &[], body: None, answers: &[] }
}

/// One that may be left out.
const fn parameter(name: &'static str, kind: Kind, told: &'static str) -> Parameter {
    Parameter { name, kind, told, default: None, is_required: false }
}

const fn json(status: u16, schema: &'static str, told: &'static str) -> Answer {
    Answer { status, told, content: Content::Json(schema) }
}

const fn text(kind: &'static str, told: &'static str) -> Answer {
    Answer { status: 200, told, content: Content::Text(kind) }
}

const fn events(kinds: &'static [(&'static str, &'static str)], told: &'static str) -> Answer {
    Answer { status: 200, told, content: Content::Events(kinds) }
}

/// That it is none, and why.
const fn refusal(status: u16, told: &'static str) -> Answer {
    json(status, "Error", told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> Option<(&'static str, String)> {
        find(path).map(|found| (found.path.template, found.name))
    }

    #[test]
    fn paths_name_operations() {
        for (path, template, name) in [
            ("/", "/", ""),
            ("//", "/", ""),
            ("/live/", "/live", ""),
            ("/endpoints", "/endpoints", ""),
            ("/endpoints/", "/endpoints", ""),
            ("/endpoints/users", "/endpoints/{upstream}", "users"),
            ("/endpoints/users/love", "/endpoints/{upstream}", "users/love"),
            ("/endpoints/users-1/eject", "/endpoints/{id}/eject", "users-1"),
            ("/endpoints/a%2Fb/pin", "/endpoints/{id}/pin", "a/b"),
            ("/endpoints/a/b/undo", "/endpoints/{id}/undo", "a/b"),
            ("/endpoints//eject", "/endpoints/{upstream}", "/eject"),
            ("/breakers", "/breakers", ""),
            ("/breakers/users", "/breakers/{upstream}", "users"),
            ("/requests/a%20b", "/requests/{id}", "a b"),
            ("/v1/services", "/v1/services", ""),
            ("/v1/services/", "/v1/services", ""),
            ("/v1/services/a", "/v1/services/{service}", "a"),
            ("/v1/services/a%2Fb", "/v1/services/{service}", "a/b"),
            ("/v1/watch/services/a", "/v1/watch/services/{service}", "a"),
            ("/v1/config/a", "/v1/config/{key}", "a"),
            ("/v1/config/a/b%20c", "/v1/config/{key}", "a/b c"),
            ("/v1/config/a/", "/v1/config/{key}", "a/"),
            ("/v1/config/", "/v1/config/", ""),
            ("/v1/locks/a", "/v1/locks/{name}", "a"),
            ("/v1/self/meta", "/v1/self/meta", ""),
        ] {
            assert_eq!(found(path), Some((template, name.to_owned())), "{path}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_nothing() {
        for path in [
            "",
            "/nothing",
            "/livelier",
            "/live/x",
            "/openapi",
            "/v1/services/a/b",
            "/v1/watch/services/",
            "/v1/watch/services/a/b",
            "/v1/watch/a",
            "/v1/config",
            "/v1/locks",
            "/v1/locks/",
            "/v1/self",
            "/v1/",
            "/v2/services",
        ] {
            assert_eq!(found(path).filter(|(template, _)| *template != "/"), None, "{path}");
        }
    }

    #[test]
    fn levels_and_statuses_are_what_they_say() {
        for level in ["info", "Debug", "info,lictor_proxy=debug", " info , lictor::event=off"] {
            assert!(is_level(level), "{level}");
        }
        for level in ["", "verbose", "info,", "=info", "a b=info", "lictor_proxy", "lictor[span]=info", "5"] {
            assert!(!is_level(level), "{level}");
        }
        assert!(["503", "5xx", "100", "999"].into_iter().all(is_status));
        assert!(!["", "5", "50", "0xx", "+503", "5xxx", "5x", "xxx", "ü03"].into_iter().any(is_status));
    }
}
