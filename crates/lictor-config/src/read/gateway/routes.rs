//! The routes of `gateway:`.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use lictor_core::gateway::claim::method;
use lictor_core::gateway::{
    self, Action, Condition, Conditions, HostPattern, Matcher, Odd, PathPattern, Redirect, Rewrite, Rules, When, label,
};
use lictor_core::policy::Policy;
use lictor_core::route::Route;
use serde_json::json;

use super::super::{fallback, limit, policy};
use super::leads::{Lead, Leads};
use super::mirror::mirror;
use super::split::split;
use super::{auth, maintenance, rules, transcode, when};
use crate::bounds::too_many_called;
use crate::tree::{Node, Section};

/// Keys of a route that sends requests on, and means nothing where it does not.
const OF_SENDING: [&str; 11] = [
    "cache",
    "strip",
    "timeout",
    "per_try_timeout",
    "connect_timeout",
    "idle_timeout",
    "retry",
    "idempotent",
    "priority",
    "mirror",
    "transcode",
];

/// A route, and where it was written.
pub(super) struct Read<'t> {
    pub(super) node: Node<'t>,
    pub(super) matcher: Matcher,
    pub(super) route: gateway::Route,
}

impl Read<'_> {
    pub(super) fn error(&self, message: String, help: String) {
        if self.node.is_map() {
            self.node.error(message, Some(help));
        } else {
            self.node.key_error(message, Some(help));
        }
    }
}

pub(super) struct Reading<'u, 't> {
    /// Whom they lead to.
    pub(super) leads: Leads<'u>,
    /// What holds where a route says nothing.
    pub(super) rules: &'u Arc<Rules>,
    pub(super) read: Vec<Read<'t>>,
}

impl<'u, 't> Reading<'u, 't> {
    pub(super) fn new(leads: Leads<'u>, rules: &'u Arc<Rules>) -> Self {
        Self { leads, rules, read: Vec::new() }
    }

    pub(super) fn routes(&mut self, node: &Node<'t>) {
        let entries = node.elements_or_entries();
        if let Some(entry) = entries.get(self.leads.room) {
            return entry.error(too_many_called(), None);
        }
        for entry in &entries {
            let read = if node.is_map() { self.short(entry) } else { self.full(entry) };
            self.read.extend(read);
        }
    }

    /// `/api/users/*: user-service`
    fn short(&mut self, node: &Node<'t>) -> Option<Read<'t>> {
        let path = match PathPattern::parse(&node.name(), false) {
            Ok(path) => path,
            Err(why) => {
                node.key_error(why.to_string(), None);
                return None;
            }
        };
        let upstream = self.leads.named(node)?;
        let label: Arc<str> = path.as_str().into();
        let send = self.plain(upstream, &label, None);
        let matcher =
            Matcher { host: HostPattern::Any, path, conditions: Conditions::default(), when: When::default() };
        Some(Read {
            node: node.clone(),
            matcher,
            route: gateway::Route {
                label,
                rules: Arc::clone(self.rules),
                odd: Odd::default(),
                action: Action::Send(send),
                claimed_by: None,
            },
        })
    }

    fn full(&mut self, node: &Node<'t>) -> Option<Read<'t>> {
        let section = node.section(&[]);
        let host =
            host(&section.field(
                "host",
                "The client's: `shop.example`, or `*.shop.example` for all names under it. Default: any.",
            ));
        let ignores_case = section.field("ignore_case", "Letters of the path match in either case.").boolean(false);
        let path = section.field("path", "`/users`, `/users/{id}` (one segment), or `/users/*` (it and all below).");
        let pattern = path.parsed(json!({ "type": "string" }), None, |text| {
            PathPattern::parse(text, ignores_case).map_err(|why| why.to_string())
        });
        let conditions = Conditions {
            methods: methods(&section.field("methods", "Any of these. Default: all.")),
            headers: headers(&section.field("headers", "Fields with these values; `*` is any value.")),
            query: query(&section.field(
                "query",
                "Parameters of the query with these values, as they are written there; `*` is any value.",
            )),
        };
        let auth = section.field("auth", "Who may ask: `none`, `optional`, `required`, or a map with more.");
        let auth = auth::of_route(&auth, self.rules.auth.as_ref());
        let transcode_node =
            section.field("transcode", "Requests of REST and JSON become calls of gRPC, by a descriptor set.");
        let transcode = transcode::of_route(&transcode_node);
        if transcode_node.is_set() {
            transcode::check(&section);
        }
        let when = when::when(
            &section.field(
                "when",
                "Claims of whoever asks, with this value, one of these, or any (`*`), once he has shown who he is. Routes that differ by it alone share a place.",
            ),
            auth.as_deref(),
        );
        maintenance::check(&section, auth.as_deref());
        let mut rules = Rules { auth, transcode, ..rules::rules(&section, pattern.as_ref(), self.rules) };
        let odd = odd(&section.field(
            "allow_encoded",
            "Escapes that are part of a segment in its paths, and go on: %2F, %5C, %3B, %3F, %23.",
        ));
        let action = self.action(&section, host.as_ref(), pattern.as_ref());
        let asks = |method: &Method| *method == Method::GET || *method == Method::HEAD;
        let cache = section.field("cache", "");
        if cache.is_set() && !cache.is_off() && !conditions.methods.is_empty() && !conditions.methods.iter().any(asks) {
            cache.key_error("`cache` keeps answers to GET, and this route is for other methods", None);
        }
        section.finish();
        if node.is_set() && !path.is_set() {
            node.error("a route needs a `path`", Some("write `path: /api/*`".to_owned()));
        }
        let (host, path) = (host?, pattern?);
        let label = label(&host, &path);
        let matcher = Matcher { host, path, conditions, when };
        rules.limits = limit::of_route(&rules.limits, &self.rules.limits, &matcher, &label);
        // One that says nothing of its own shares the gateway's.
        let rules = if rules == **self.rules { Arc::clone(self.rules) } else { Arc::new(rules) };
        let route = gateway::Route { label, rules, odd, action: action?, claimed_by: None };
        Some(Read { node: node.clone(), matcher, route })
    }

    fn action(
        &mut self,
        section: &Section<'t>,
        host: Option<&HostPattern>,
        pattern: Option<&PathPattern>,
    ) -> Option<Action> {
        let to = section.field(
            "to",
            "Where it goes: an upstream, its instances of one version (`orders@v2`), or a URL (`http://127.0.0.1:8080`).",
        );
        let redirect_node = section.field("redirect", "Where the client is sent instead: a path, a URL, or a map.");
        let respond = section.field("respond", "What it is answered instead.");
        let is_split = section.node().below("split").is_set();
        let rewrite = rewrite(section, pattern, is_split || to.is_set() || to.is_describing());
        let redirect = redirect(&redirect_node, pattern);
        let answered = respond.section(&[]);
        let answer = fallback::answer(&answered, None);
        answered.finish();
        let send = self.send(section, &to, host, pattern, rewrite);
        match [to.is_set() || is_split, redirect_node.is_set(), respond.is_set()] {
            [true, false, false] => send.map(Action::Send),
            [false, redirects, responds] if redirects != responds => {
                for key in OF_SENDING.map(|key| section.field(key, "")).iter().filter(|key| key.is_set()) {
                    key.key_error(format!("`{}` is about requests that go to an upstream (`to`)", key.name()), None);
                }
                if responds && answer.is_none() && !respond.below("body").is_set() {
                    respond.error("an answer needs a `body`", Some("write `body: ''` for none".to_owned()));
                }
                if redirects { redirect.map(Action::Redirect) } else { answer.map(Action::Answer) }
            }
            _ => {
                if section.node().is_set() {
                    section.node().error("a route has one of `to`, `split`, `redirect` and `respond`", None);
                }
                None
            }
        }
    }

    /// How its requests are sent, wherever they go.
    fn send(
        &mut self,
        section: &Section<'t>,
        to: &Node<'t>,
        host: Option<&HostPattern>,
        pattern: Option<&PathPattern>,
        rewrite: Option<Rewrite>,
    ) -> Option<gateway::Send> {
        let is_split = section.node().below("split").is_set();
        let split = split(section, &mut self.leads);
        let only = if to.is_set() && !is_split { self.leads.named(to) } else { None };
        let mirror_node = section.field("mirror", "Where copies of its requests go: an upstream, or a map with more.");
        let mirror = mirror(&mirror_node, &mut self.leads);
        let upstreams = split.as_ref().map_or_else(|| only.into_iter().collect(), |(_, upstreams)| upstreams.clone());
        if section.node().below("transcode").is_set() {
            for upstream in &upstreams {
                self.leads.speaks_grpc(to, *upstream);
            }
        }
        let base = upstreams.first().map_or_else(Policy::default, |first| self.leads.policy(*first).clone());
        let said = route_policy(section, &base);
        let label = label(host?, pattern?);
        let mut leads = Vec::new();
        for (number, upstream) in upstreams.iter().enumerate() {
            let base = self.leads.policy(*upstream).clone();
            // The route says the same of each, which has defaults of its own.
            let again = || section.node().again(|| route_policy(section, &base));
            let (policy, is_idempotent) = if number == 0 { said.clone() } else { again() };
            let has_policy = policy != base || is_idempotent.is_some();
            let route = Route::of_gateway(Arc::clone(&label), Arc::new(policy), is_idempotent);
            leads.push((self.leads.lead(*upstream, route), has_policy));
        }
        let mirror = mirror.map(|(mirror, upstream)| {
            let policy = Arc::new(self.leads.policy(upstream).clone());
            let Lead { upstream, index } = self.leads.lead(upstream, Route::of_gateway(label, policy, None));
            Arc::new(gateway::Mirror { upstream, index, ..mirror })
        });
        let split = split.map(|(mut split, _)| {
            for (variant, (lead, has_policy)) in split.variants.iter_mut().zip(&leads) {
                (variant.upstream, variant.index, variant.has_policy) =
                    (Arc::clone(&lead.upstream), lead.index, *has_policy);
            }
            Arc::new(split)
        });
        let (Lead { upstream, index }, has_policy) = leads.into_iter().next()?;
        Some(gateway::Send { upstream, index, has_policy, rewrite, split, mirror })
    }
}

fn host(node: &Node<'_>) -> Option<HostPattern> {
    let host = node.parsed(json!({ "type": "string" }), Some("*"), HostPattern::parse);
    if node.is_set() { host } else { Some(HostPattern::Any) }
}

fn methods(node: &Node<'_>) -> Vec<Method> {
    let elements = node.elements();
    if node.is_set() && elements.is_empty() {
        node.error("needs at least one method; without `methods` there are all", None);
    }
    elements.iter().filter_map(|entry| entry.parsed(json!({ "type": "string" }), None, method)).collect()
}

fn odd(node: &Node<'_>) -> Odd {
    let parsed = |entry: &Node<'_>| entry.parsed(json!({ "type": "string" }), None, Odd::parse);
    node.elements().iter().filter_map(parsed).fold(Odd::default(), Odd::and)
}

fn condition(node: &Node<'_>) -> Option<Condition> {
    node.parsed(json!({ "type": ["string", "number", "boolean"] }), None, |text| {
        Ok(if text == "*" { Condition::Present } else { Condition::Exactly(text.to_owned()) })
    })
}

fn headers(node: &Node<'_>) -> Vec<(HeaderName, Condition)> {
    let mut headers: Vec<(HeaderName, Condition)> = Vec::new();
    for entry in node.entries() {
        let Some(condition) = condition(&entry) else { continue };
        match HeaderName::try_from(entry.name()) {
            Ok(name) if headers.iter().any(|(known, _)| *known == name) => {
                entry.key_error(format!("`{name}` is there twice: names of fields do not differ by case"), None);
            }
            Ok(name) if name.as_str() == "host" => {
                entry.key_error("what is asked of the host is `host`", None);
            }
            Ok(name) => headers.push((name, condition)),
            Err(_) => entry.key_error(format!("`{}` is not a header name", entry.name()), None),
        }
    }
    headers
}

fn query(node: &Node<'_>) -> Vec<(String, Condition)> {
    let of = |entry: &Node<'_>| Some((entry.name(), condition(entry)?));
    node.entries().iter().filter_map(of).collect()
}

fn rewrite(section: &Section<'_>, pattern: Option<&PathPattern>, may_strip: bool) -> Option<Rewrite> {
    let strip = section.field("strip", "What is taken off the path's begin: `/api` of `/api/users/*`.");
    let template = section.field("rewrite", "What the path becomes: `/users/{id}`, `/v1/*`.");
    let made = |text: &str, make: fn(&str, &PathPattern) -> Result<Rewrite, String>| {
        pattern.map(|pattern| make(text, pattern)).transpose()
    };
    let stripped = strip.parsed(json!({ "type": "string" }), None, |text| made(text, Rewrite::strip)).flatten();
    let rewritten = template.parsed(json!({ "type": "string" }), None, |text| made(text, Rewrite::template)).flatten();
    if strip.is_set() && template.is_set() {
        template.error("`strip` and `rewrite` are both given", Some("keep one".to_owned()));
    }
    if template.is_set() && !may_strip {
        template.key_error("`rewrite` is about requests that go to an upstream (`to`)", None);
    }
    stripped.or(rewritten)
}

fn redirect(node: &Node<'_>, pattern: Option<&PathPattern>) -> Option<Redirect> {
    let section = node.section_or_short("to", &[json!({ "type": "string" })]);
    let to = section.field("to", "A path or a URL, which may have the route's `{id}` and `*`; the query stays.");
    let status = section.field("status", "301, 302, 303, 307 or 308.");
    let known = |text: &str| match text {
        "301" | "302" | "303" | "307" | "308" => StatusCode::try_from(text.as_bytes()).map_err(|why| why.to_string()),
        _ => Err(format!("`{text}` is none of 301, 302, 303, 307, 308")),
    };
    let status = status.parsed(json!({ "type": ["integer", "string"] }), (!section.is_short()).then_some("308"), known);
    let status = status.unwrap_or(StatusCode::PERMANENT_REDIRECT);
    let target = to.parsed(json!({ "type": "string" }), None, |text| {
        let (origin, path) = split_url(text)?;
        let pattern = pattern.filter(|_| !path.is_empty());
        let rewrite = pattern.map(|pattern| Rewrite::template(path, pattern)).transpose()?;
        Ok(Redirect { status, origin, rewrite })
    });
    section.finish();
    if node.is_map() && !to.is_set() {
        node.error("a redirect needs `to`", Some("write `to: https://shop.example`".to_owned()));
    }
    target
}

/// A URL's origin, if there is one, and its path.
fn split_url(text: &str) -> Result<(Option<HeaderValue>, &str), String> {
    if text.starts_with('/') {
        return Ok((None, text));
    }
    let scheme = ["https://", "http://"].into_iter().find(|scheme| text.starts_with(scheme));
    let Some(scheme) = scheme else {
        return Err(format!("`{text}` is neither a path nor a URL: write `https://shop.example/*`"));
    };
    let end = text[scheme.len()..].find('/').map_or(text.len(), |at| scheme.len() + at);
    let (origin, path) = text.split_at(end);
    let host = gateway::host::read(&origin[scheme.len()..]).map_err(|_| format!("`{text}` names no host"));
    host.and_then(|_| HeaderValue::try_from(origin).map_err(|why| why.to_string())).map(|origin| (Some(origin), path))
}

/// What the route says of how its requests are sent.
fn route_policy(section: &Section<'_>, base: &Policy) -> (Policy, Option<bool>) {
    let timeouts = policy::timeouts(section, &base.timeouts);
    let retry =
        policy::retry(&section.field("retry", "When and how a request is sent again; `off`: never."), &base.retry);
    if retry.budget != base.retry.budget {
        let budget = section.field("retry", "").below("budget");
        budget.error("the budget of retries is shared by all routes", Some("say it for the upstream".to_owned()));
    }
    let idempotent = section.field("idempotent", "Whether a second processing is harmless.");
    let is_idempotent = idempotent.is_set().then(|| idempotent.boolean(false));
    if !idempotent.is_set() {
        idempotent.parsed(json!({ "type": "boolean" }), None, |_| Ok(()));
    }
    let cache = policy::cache(
        &section.field("cache", "Answers are kept and given again (RFC 9111; docs/caching.md); `off`: never."),
        base.cache,
    );
    let priority = policy::priority(section);
    (Policy { timeouts, retry, cache, priority, ..base.clone() }, is_idempotent)
}
