//! `lictor routes`: the gateway's table, the most specific first.

use lictor_core::gateway::{Action, Gateway, Redirect, Route, Send};

use crate::cli::print;
use crate::configured::Configured;

pub(super) fn routes(configured: &Configured) -> anyhow::Result<u8> {
    let loaded = configured.load()?;
    match &loaded.config.gateway {
        Some(gateway) => print(&table(&gateway.routes)),
        None => print("there is no gateway in this configuration\n"),
    }
    Ok(0)
}

fn table(gateway: &Gateway) -> String {
    let mut rows = vec![["host", "path", "only", "auth", "becomes"].map(str::to_owned)];
    for (index, matcher) in gateway.table.iter() {
        let Some(route) = gateway.routes.get(index) else { continue };
        let case = if matcher.path.ignores_case() { " (any case)" } else { "" };
        let path = format!("{}{case}", matcher.path.as_str());
        rows.push([
            matcher.host.to_string(),
            path,
            matcher.conditions.to_string(),
            auth(route),
            becomes(&route.action),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3)];
    let line = |row: &[String; 5]| {
        let [host, path, only, auth, becomes] = row;
        let [first, second, third, fourth] = widths;
        format!("{host:first$}  {path:second$}  {only:third$}  {auth:fourth$}  {becomes}").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn auth(route: &Route) -> String {
    route.rules.auth.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn becomes(action: &Action) -> String {
    match action {
        Action::Send(Send { upstream, rewrite, split, mirror, .. }) => {
            let to = split.as_ref().map_or_else(|| upstream.to_string(), ToString::to_string);
            let rewrite = rewrite.as_ref().map(|rewrite| format!(", {rewrite}")).unwrap_or_default();
            let mirror = mirror.as_ref().map(|mirror| format!("; copies to {}", mirror.upstream)).unwrap_or_default();
            format!("{to}{rewrite}{mirror}")
        }
        Action::Redirect(Redirect { status, origin, rewrite }) => {
            let origin = origin.as_ref().and_then(|origin| origin.to_str().ok()).unwrap_or_default();
            let path = rewrite.as_ref().map_or_else(|| "the same path".to_owned(), ToString::to_string);
            format!("{} {origin} {path}", status.as_u16())
        }
        Action::Answer(answer) => format!("{} of its own", answer.status.as_u16()),
    }
}
