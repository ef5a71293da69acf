//! Which pages of other origins a browser lets read the answers (the Fetch standard, "CORS protocol").
//!
//! One judge for all: preflights, answers of upstreams, kept answers, lictor's own, and upgrades, whose pages browsers do not
//! ask about. Whatever an upstream says of it is replaced.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::vary::vary;

/// Origins in one list.
pub const ORIGINS_MAX: usize = 100;

/// Every field that answers with: an upstream's own copies go.
const ANSWERS: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    HeaderName::from_static("access-control-allow-private-network"),
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// Whose pages may read, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Box<[Origin]>,
    has_credentials: bool,
    /// `Access-Control-Allow-Methods`, `-Allow-Headers`, `-Expose-Headers` and `-Max-Age`; `None`: not said.
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

/// What may stand in the list of origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// All.
    Any,
    /// This one, byte by byte as browsers write it; `null` is one too.
    Exact(Box<str>),
    /// `https://*.app.example:8443`: all names under one.
    Under {
        /// With `://`.
        scheme: Box<str>,
        /// What follows the names, with its dot, and the port.
        end: Box<str>,
    },
}

/// What a list of origins, and the lists beside it, say.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whose pages.
    pub origins: Vec<Origin>,
    /// What they may ask by.
    pub methods: Vec<String>,
    /// Which fields they may send.
    pub headers: Vec<String>,
    /// Which fields of answers they may read.
    pub expose: Vec<String>,
    /// Whether cookies and the like are sent.
    pub has_credentials: bool,
    /// For so many seconds a browser need not ask again.
    pub max_age: Option<u64>,
}

impl Cors {
    /// Puts it together; in words why it would not be what it looks like.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let Settings { origins, methods, headers, expose, has_credentials, max_age } = settings;
        if origins.is_empty() {
            return Err("names no origin".to_owned());
        }
        if origins.len() > ORIGINS_MAX {
            return Err(format!("more than {ORIGINS_MAX} origins: write patterns"));
        }
        if has_credentials && origins.contains(&Origin::Any) {
            return Err(
                "`*` with `credentials` would let any page act for whoever visits it: name the origins".to_owned()
            );
        }
        if has_credentials && origins.iter().any(|origin| matches!(origin, Origin::Exact(text) if &**text == "null")) {
            return Err("any page can make itself `null`: not with `credentials`".to_owned());
        }
        for (name, list) in [("methods", &methods), ("headers", &headers), ("expose", &expose)] {
            if has_credentials && list.iter().any(|entry| entry == "*") {
                return Err(format!("`*` in `{name}` means nothing to browsers with `credentials`: list them"));
            }
        }
        let joined = |list: &[String]| HeaderValue::try_from(list.join(", ")).map_err(|why| why.to_string());
        let some = |list: Vec<String>| (!list.is_empty()).then(|| joined(&list)).transpose();
        Ok(Self {
            origins: origins.into(),
            has_credentials,
            methods: some(methods)?,
            headers: some(headers)?,
            expose: some(expose)?,
            max_age: max_age.map(HeaderValue::from),
        })
    }

    /// Whether pages of the origin that a request tells may read its answer; `None`: it tells none. One that stands twice is
    /// nobody's.
    pub fn allows(&self, request: &HeaderMap) -> Option<bool> {
        self.judged(request).map(|(_, is_listed)| is_listed)
    }

    fn judged<'r>(&self, request: &'r HeaderMap) -> Option<(&'r HeaderValue, bool)> {
        let mut origins = request.get_all(ORIGIN).into_iter();
        let origin = origins.next()?;
        Some((origin, origins.next().is_none() && self.origins.iter().any(|listed| listed.has(origin.as_bytes()))))
    }

    /// Whether it comes from a page that may send cookies and the like along: of a listed origin, with `credentials`.
    pub fn trusts(&self, request: &HeaderMap) -> bool {
        self.has_credentials && self.allows(request) == Some(true)
    }

    /// What of a request's head the answer is to be dressed by: kept until then.
    pub fn asked(&self, request: &HeaderMap) -> Option<HeaderValue> {
        self.judged(request).filter(|(_, is_listed)| *is_listed).map(|(origin, _)| origin.clone())
    }

    /// Says it in an answer's head, in place of what is there: `origin` is what [`Cors::asked`] has returned.
    pub fn dress(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        self.say_who(origin, answer);
        if let (Some(_), Some(expose)) = (origin, &self.expose) {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
        vary(answer, "Origin");
    }

    /// The head of the answer to a preflight.
    pub fn preflight(&self, origin: Option<&HeaderValue>) -> HeaderMap {
        let mut answer = HeaderMap::new();
        self.say_who(origin, &mut answer);
        if origin.is_some() {
            let said = [
                (ACCESS_CONTROL_ALLOW_METHODS, &self.methods),
                (ACCESS_CONTROL_ALLOW_HEADERS, &self.headers),
                (ACCESS_CONTROL_MAX_AGE, &self.max_age),
            ];
            for (name, value) in said {
                if let Some(value) = value {
                    answer.insert(name, value.clone());
                }
            }
        }
        let asked = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        answer.insert(VARY, HeaderValue::from_static(asked));
        answer
    }

    fn say_who(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if answer.keys().any(|name| name.as_str().starts_with("access-control-")) {
            for name in ANSWERS {
                answer.remove(name);
            }
        }
        let is_any = self.origins.contains(&Origin::Any);
        let told = if is_any { Some(HeaderValue::from_static("*")) } else { origin.cloned() };
        if let Some(told) = told {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, told);
            if self.has_credentials {
                answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
    }
}

/// What becomes of the request of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It goes on, and the page may read the answer.
    Allowed,
    /// It goes on, and no browser shows the page its answer.
    Unlisted,
    /// It is answered here: the page may send what it asks about.
    Preflight,
    /// It is answered here: the page may not.
    PreflightUnlisted,
    /// It is refused: of upgrades browsers ask nobody.
    Refused,
}

impl Judged {
    /// All, with their words in metrics.
    pub const ALL: [(&str, Self); 5] = [
        ("allowed", Self::Allowed),
        ("unlisted", Self::Unlisted),
        ("preflight", Self::Preflight),
        ("preflight_unlisted", Self::PreflightUnlisted),
        ("refused", Self::Refused),
    ];

    /// As metrics have it.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].0
    }

    /// Of a request with an `Origin`, by what it is and whether that is one of the list.
    pub fn of(is_preflight: bool, is_upgrade: bool, is_listed: bool) -> Self {
        match (is_preflight, is_listed) {
            (true, true) => Self::Preflight,
            (true, false) => Self::PreflightUnlisted,
            (false, true) => Self::Allowed,
            (false, false) if is_upgrade => Self::Refused,
            (false, false) => Self::Unlisted,
        }
    }
}

/// The method of the request that a preflight asks about; `None`: it is none, but a request like any (the Fetch standard,
/// "CORS-preflight request").
pub fn preflight_of(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    let mut asked = headers.get_all(ACCESS_CONTROL_REQUEST_METHOD).into_iter();
    let first = asked.next()?;
    if asked.next().is_some() { None } else { Method::from_bytes(first.as_bytes()).ok() }
}

impl Origin {
    /// `https://app.example`, `https://*.app.example:8443`, `null`, or `*`; as a browser writes it, or in words why not.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "null" {
            return Ok(Self::Exact(text.into()));
        }
        let text = text.to_ascii_lowercase();
        let wrong = |why: &str| Err(format!("`{text}` is not an origin: {why}"));
        let Some((scheme, rest)) = text.split_once("://") else { return wrong("write `https://app.example`") };
        let is_scheme = scheme.starts_with(|sign: char| sign.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+.-".contains(&byte));
        if !is_scheme {
            return wrong("its scheme is none");
        }
        if rest.contains(['/', '?', '#', '@']) {
            return wrong("it has no path and no user, only scheme, host and port");
        }
        let (names, host) = rest.strip_prefix("*.").map_or((false, rest), |host| (true, host));
        if host.contains('*') {
            return wrong("`*` stands for the names before a host, as in `https://*.app.example`");
        }
        if super::host::read(host).is_err() {
            return wrong("its host is no name or address");
        }
        let port = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => "",
        };
        // Browsers leave a scheme's own port out.
        let host = if port.is_empty() { host } else { host.strip_suffix(port).unwrap_or(host) };
        if names && !host.contains('.') {
            return wrong("a pattern is about the names under one that has a dot");
        }
        Ok(if names {
            Self::Under { scheme: format!("{scheme}://").into(), end: format!(".{host}").into() }
        } else {
            Self::Exact(format!("{scheme}://{host}").into())
        })
    }

    fn has(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => text.as_bytes() == origin,
            Self::Under { scheme, end } => {
                let names = origin.strip_prefix(scheme.as_bytes()).and_then(|rest| rest.strip_suffix(end.as_bytes()));
                let is_sign =
                    |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
                let is_label = |label: &[u8]| !label.is_empty() && label.iter().all(is_sign);
                names.is_some_and(|names| names.split(|byte| *byte == b'.').all(is_label))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str]) -> Vec<Origin> {
        texts.iter().map(|text| Origin::parse(text).unwrap()).collect()
    }

    fn head(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn an_origin_is_one_of_the_list_as_browsers_write_it() {
        let list =
            ["https://App.Example:443", "https://*.app.example", "http://localhost:3000", "capacitor://localhost"];
        let cors = Cors::new(Settings { origins: origins(&list), ..Settings::default() }).unwrap();
        let null = Cors::new(Settings { origins: origins(&["null"]), ..Settings::default() }).unwrap();
        let any = Cors::new(Settings { origins: origins(&["*"]), ..Settings::default() }).unwrap();
        for (origin, is_listed) in [
            ("https://app.example", true),
            ("https://a.app.example", true),
            ("https://a.b-c.app.example", true),
            ("http://localhost:3000", true),
            ("capacitor://localhost", true),
            ("https://APP.example", false),
            ("HTTPS://app.example", false),
            ("https://app.example:443", false),
            ("https://app.example:8443", false),
            ("https://app.example/", false),
            ("http://app.example", false),
            ("http://a.app.example", false),
            ("https://a.app.example:8443", false),
            ("https://app.example.evil.example", false),
            ("https://a.app.example.evil.example", false),
            ("https://evilapp.example", false),
            ("https://evil.example/.app.example", false),
            ("https://evil.example?.app.example", false),
            ("https://evil.example#.app.example", false),
            ("https://user@a.app.example", false),
            ("https://a\\.app.example", false),
            ("https://.app.example", false),
            ("https://a..app.example", false),
            ("https://*.app.example", false),
            ("http://localhost:30001", false),
            ("http://localhost", false),
            ("null", false),
            ("*", false),
            ("", false),
        ] {
            let asked = head(&[("origin", origin)]);
            assert_eq!(cors.allows(&asked), Some(is_listed), "{origin}");
            assert_eq!(cors.asked(&asked).is_some(), is_listed, "{origin}");
            assert_eq!(null.allows(&asked), Some(origin == "null"), "{origin}");
            assert_eq!(any.allows(&asked), Some(true), "{origin}");
        }
        assert_eq!(cors.allows(&HeaderMap::new()), None);
        let twice = head(&[("origin", "https://app.example"), ("origin", "https://app.example")]);
        assert_eq!((cors.allows(&twice), any.allows(&twice)), (Some(false), Some(false)));
    }

    #[test]
    fn what_is_no_origin_is_refused_when_it_is_read() {
        for text in [
            "",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/x",
            "https://u@app.example",
            "https://app.*",
            "https://*app.example",
            "https://*.*.app.example",
            "https://*",
            "https://*.example",
            "https://a b",
            "://app.example",
            "1://app.example",
            "https://app.example:x",
            "https://b\u{fc}cher.example",
        ] {
            assert!(Origin::parse(text).is_err(), "{text:?}");
        }
        for (list, has_credentials, headers, is_good) in [
            (&["*"][..], false, &[][..], true),
            (&["*"], true, &[], false),
            (&["https://a.example", "*"], true, &[], false),
            (&["null"], false, &[], true),
            (&["null"], true, &[], false),
            (&["https://a.example"], true, &["Content-Type"], true),
            (&["https://a.example"], true, &["*"], false),
            (&["https://a.example"], false, &["*", "Authorization"], true),
            (&[], false, &[], false),
        ] {
            for place in 0..3 {
                let all = || headers.iter().map(|name: &&str| (*name).to_owned()).collect::<Vec<_>>();
                let of = |own| if own == place { all() } else { Vec::new() };
                let settings = Settings {
                    origins: origins(list),
                    has_credentials,
                    methods: of(0),
                    headers: of(1),
                    expose: of(2),
                    ..Settings::default()
                };
                assert_eq!(Cors::new(settings).is_ok(), is_good, "{list:?} {has_credentials} {headers:?}");
            }
        }
    }

    #[test]
    fn answers_say_who_may_read_them_in_place_of_what_they_said() {
        let settings = |list: &[&str], has_credentials| Settings {
            origins: origins(list),
            methods: vec!["GET".to_owned(), "PUT".to_owned()],
            headers: vec!["Content-Type".to_owned()],
            expose: vec!["X-Total".to_owned()],
            has_credentials,
            max_age: Some(600),
        };
        let some = Cors::new(settings(&["https://app.example"], true)).unwrap();
        let any = Cors::new(settings(&["*"], false)).unwrap();
        let own = [
            ("access-control-allow-origin", "https://upstream.example"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "X-Own"),
            ("access-control-allow-private-network", "true"),
            ("vary", "Accept"),
        ];
        let shown = |headers: &HeaderMap| {
            let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}={}", value.to_str().unwrap());
            let mut lines: Vec<String> = headers.iter().map(line).collect();
            lines.sort();
            lines.join("; ").replace("access-control-", "")
        };
        let (app, other) = (head(&[("origin", "https://app.example")]), head(&[("origin", "https://evil.example")]));
        for (cors, asked, dressed, preflight) in [
            (
                &some,
                &app,
                "allow-credentials=true; allow-origin=https://app.example; expose-headers=X-Total; vary=Accept, Origin",
                "allow-credentials=true; allow-headers=Content-Type; allow-methods=GET, PUT; allow-origin=https://app.example; max-age=600; vary=",
            ),
            (&some, &other, "vary=Accept, Origin", "vary="),
            (&some, &HeaderMap::new(), "vary=Accept, Origin", "vary="),
            (
                &any,
                &other,
                "allow-origin=*; expose-headers=X-Total; vary=Accept, Origin",
                "allow-headers=Content-Type; allow-methods=GET, PUT; allow-origin=*; max-age=600; vary=",
            ),
            (&any, &HeaderMap::new(), "allow-origin=*; vary=Accept, Origin", "allow-origin=*; vary="),
        ] {
            let mut answer = head(&own);
            let origin = cors.asked(asked);
            cors.dress(origin.as_ref(), &mut answer);
            assert_eq!(shown(&answer), dressed, "{asked:?}");
            let all = "Origin, Request-Method, Request-Headers".replace("Request", "access-control-request");
            let wanted = format!("{preflight}{all}");
            assert_eq!(shown(&cors.preflight(origin.as_ref())).to_lowercase(), wanted.to_lowercase(), "{asked:?}");
        }
    }

    #[test]
    fn only_an_upgrade_of_a_page_of_somebody_else_is_refused() {
        for (is_preflight, is_upgrade, is_listed, word) in [
            (false, false, true, "allowed"),
            (false, true, true, "allowed"),
            (false, false, false, "unlisted"),
            (false, true, false, "refused"),
            (true, false, true, "preflight"),
            (true, true, true, "preflight"),
            (true, false, false, "preflight_unlisted"),
            (true, true, false, "preflight_unlisted"),
        ] {
            let judged = Judged::of(is_preflight, is_upgrade, is_listed);
            assert_eq!(judged.as_str(), word, "{is_preflight} {is_upgrade} {is_listed}");
            assert_eq!(Judged::ALL[judged as usize].1, judged, "they stand in order");
        }
    }

    #[test]
    fn only_a_preflight_is_one() {
        let origin = ("origin", "https://app.example");
        let asks = ("access-control-request-method", "PUT");
        for (method, pairs, is_one) in [
            (Method::OPTIONS, &[origin, asks][..], true),
            (Method::OPTIONS, &[origin], false),
            (Method::OPTIONS, &[asks], false),
            (Method::OPTIONS, &[origin, asks, asks], false),
            (Method::OPTIONS, &[origin, ("access-control-request-method", "P T")], false),
            (Method::GET, &[origin, asks], false),
            (Method::POST, &[origin, asks], false),
        ] {
            let asked = preflight_of(&method, &head(pairs));
            assert_eq!(asked, is_one.then_some(Method::PUT), "{method} {pairs:?}");
        }
    }
}
