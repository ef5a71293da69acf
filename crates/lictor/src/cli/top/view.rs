//! How `lictor top` looks: a pure function from what is known to cells. Colour says what a word or a mark says too.

use std::time::Instant;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, Widget, Wrap};

use crate::cli::top::model::{Endpoint, Failure, Focus, Frame, Level, Model, Screen, Traffic, Upstream};
use crate::term::{failure as failure_of, millis};

/// What the terminal can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) has_colour: bool,
    /// With keys, history and a choice.
    pub(super) is_live: bool,
}

/// Without a sparkline beside each upstream; 80 columns have room for the numbers alone.
const NUMBERS: u16 = 80;
const SPARK: usize = 18;
/// After so long without a frame, what is shown is said to be old.
const OLD_MS: u128 = 3000;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const KEYS: &str = " ↑↓ move  Tab failures  Enter detail  / filter  s sort  p pause  ? help  q quit";
const HELP: &str = "\
 ↑ ↓ j k   move, or scroll          Tab ← →   upstreams or failures
 Enter     the upstream with all its endpoints; of a failure its story
 Esc q     back; q at the top ends  /         filter by name, endpoint, state, path, reason
 s         sort: name, worst, rate, p99       p         pause, and go on

 RATE      requests that ended in the last second; of tcp upstreams, connections
 ERR       of those, with a 5xx or without an answer
 P50 P99   from a request's arrival to the last byte of its answer, in the last second
 RETRY     attempts after the first, a second
 FLY       requests now
 EP        endpoints that are well, of all
 REQ/MIN   attempts at an endpoint in the last minute, and FAIL how many failed
           its P50 and P99 are to the heads of good answers, in that minute
 SHARE     of all attempts at its upstream's endpoints
 failing   it fails far more than the others, or half of the time; slow likewise

 The numbers are the counters' of /metrics; the dashboard at /ui shows the same.";

/// Rows that everything needs.
pub(super) fn height(model: &Model) -> u16 {
    let upstreams = model.frame.iter().flat_map(|frame| &frame.upstreams);
    let rows = 9 + upstreams.map(|upstream| 3 + upstream.endpoints.len().max(1)).sum::<usize>();
    (rows + model.failures().len()).min(10_000) as u16
}

pub(super) fn draw(model: &Model, look: Look, now: Instant, area: Rect, buffer: &mut Buffer) {
    let Some(frame) = &model.frame else {
        let word = model.trouble.as_deref().unwrap_or("waiting for the first frame");
        Line::raw(format!(" {word}")).render(area, buffer);
        return;
    };
    let keys = u16::from(look.is_live);
    let [top, main, bottom] =
        Layout::vertical([Constraint::Length(3), Constraint::Min(1), Constraint::Length(keys)]).areas(area);
    Paragraph::new(heading(frame, model, look, now)).render(top, buffer);
    match &model.screen {
        Screen::All if look.is_live => all(model, look, main, buffer),
        Screen::All => Paragraph::new(listing(model, look, main.width)).render(main, buffer),
        Screen::Upstream => match model.chosen() {
            Some(upstream) => one(model, upstream, look, main, buffer),
            None => Line::raw(" There is no such upstream.").render(main, buffer),
        },
        Screen::Story(lines, from) => {
            let shown: Vec<Line<'_>> = lines.iter().skip(*from).map(|line| Line::raw(format!(" {line}"))).collect();
            Paragraph::new(shown).wrap(Wrap { trim: false }).render(main, buffer);
        }
        Screen::Help => Paragraph::new(HELP).render(main, buffer),
    }
    let footer = match (model.is_typing, model.screen == Screen::All) {
        (true, _) => Line::raw(format!(" / {}_   Enter keeps it, Esc clears it", model.filter)),
        (false, true) => Line::from(KEYS).style(dim()),
        (false, false) => Line::from(" Esc back  ↑↓ scroll  p pause  q back").style(dim()),
    };
    footer.render(bottom, buffer);
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

impl Look {
    fn of(self, level: Level) -> Style {
        match level {
            _ if !self.has_colour => Style::new(),
            Level::Good => Style::new().fg(Color::Green),
            Level::Warn => Style::new().fg(Color::Yellow),
            Level::Bad => Style::new().fg(Color::Red),
        }
    }

    fn mark(self, level: Level, word: &str) -> Span<'static> {
        let mark = match level {
            Level::Good => '●',
            Level::Warn => '▲',
            Level::Bad => '■',
        };
        Span::styled(format!("{mark} {word}"), self.of(level))
    }

    fn bad_if(self, is_bad: bool) -> Style {
        if is_bad { self.of(Level::Bad) } else { Style::new() }
    }
}

/// Who, how, since when.
fn heading(frame: &Frame, model: &Model, look: Look, now: Instant) -> Vec<Line<'static>> {
    let (level, word) = match frame.service.state.as_str() {
        "ready" => (Level::Good, "ready"),
        "not_ready" => (Level::Bad, "not ready"),
        word => (Level::Warn, word),
    };
    let consul = match (&frame.consul.address, frame.consul.up) {
        (None, _) => Span::styled("not used", dim()),
        (_, Some(true)) => look.mark(Level::Good, "answers"),
        (_, None) => look.mark(Level::Warn, "not asked yet"),
        (_, Some(false)) => look.mark(Level::Bad, &format!("away, data {} old", millis(oldest(frame)))),
    };
    let silence = model.heard.map_or(0, |heard| now.duration_since(heard).as_millis());
    let live = match &model.trouble {
        _ if !look.is_live => Span::raw(""),
        _ if model.is_paused => look.mark(Level::Warn, "paused"),
        Some(why) => look.mark(Level::Bad, &format!("lost {} s ago: {why}", silence / 1000)),
        None if silence > OLD_MS => look.mark(Level::Bad, &format!("no word for {} s", silence / 1000)),
        None => look.mark(Level::Good, "live"),
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let time = frame.at.get(11..19).unwrap_or_default().to_owned();
    let mut first = vec![Span::raw(" "), Span::styled(frame.service.name.clone(), bold), Span::raw("  ")];
    first.extend([look.mark(level, word), Span::raw("   Consul "), consul, Span::raw(format!("   {time}  ")), live]);
    let inbound = frame.inbound.as_ref().map_or_else(String::new, |inbound| {
        let (it, running) = (&inbound.traffic, inbound.in_flight);
        format!("in {}/s, p99 {}, {running} in flight   ", rate(it.rate), time_of(it.p99_ms))
    });
    let out: f64 = frame.upstreams.iter().filter_map(|upstream| upstream.traffic.rate).sum();
    let second = format!(
        " {inbound}out {}/s   lictor {}: {} CPU, {} MiB   {}, {}",
        rate(frame.interval_ms.map(|_| out)),
        frame.lictor.version,
        percent(frame.lictor.cpu),
        frame.lictor.resident_bytes >> 20,
        frame.service.instance,
        frame.consul.registration.replace('_', " "),
    );
    vec![Line::from(first), Line::from(second).style(dim())]
}

fn oldest(frame: &Frame) -> f64 {
    frame.consul.watches.iter().filter_map(|watch| watch.age_ms).fold(0.0, f64::max)
}

/// Upstreams above, the chosen one below them, failures at the bottom.
fn all(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) {
    let rows = model.upstreams();
    let wanted = 1 + rows.len().max(1) as u16;
    let most = (area.height / 3).max(3);
    let endpoints = model.chosen().map_or(0, |chosen| chosen.endpoints.len()) as u16;
    let detail = (5 + endpoints.clamp(1, 6)).min(area.height / 2);
    let heights = [Constraint::Length(wanted.min(most)), Constraint::Length(detail), Constraint::Min(2)];
    let [top, middle, bottom] = Layout::vertical(heights).spacing(1).areas(area);
    upstreams(model, &rows, look, top, buffer);
    if let Some(chosen) = model.chosen() {
        one(model, chosen, look, middle, buffer);
    }
    failures(model, look, bottom, buffer);
}

/// Everything below one another, for paper.
fn listing(model: &Model, look: Look, width: u16) -> Vec<Line<'static>> {
    let rows = model.upstreams();
    let mut lines = vec![head(model, width)];
    lines.extend(rows.iter().map(|upstream| row(model, upstream, look, width)));
    for upstream in rows {
        lines.extend([Line::raw(""), endpoints_head(Some(&upstream.name), width)]);
        lines.extend(upstream.worst_first().into_iter().map(|endpoint| endpoint_row(endpoint, look, width)));
    }
    lines.extend([Line::raw(""), failures_head(model, false)]);
    lines.extend(model.failures().into_iter().map(|failure| failure_row(failure, look, width)));
    lines
}

fn upstreams(model: &Model, rows: &[&Upstream], look: Look, area: Rect, buffer: &mut Buffer) {
    let mut lines = vec![head(model, area.width)];
    if rows.is_empty() {
        lines.push(Line::from("   None matches the filter.").style(dim()));
    }
    let chosen = model.chosen().and_then(|chosen| rows.iter().position(|it| it.name == chosen.name)).unwrap_or(0);
    let from = window(chosen, rows.len(), usize::from(area.height.saturating_sub(1)));
    for (index, upstream) in rows.iter().enumerate().skip(from) {
        let line = row(model, upstream, look, area.width);
        lines.push(marked(line, index == chosen, model.focus == Focus::Upstreams));
    }
    Paragraph::new(lines).render(area, buffer);
}

/// The first row of a list that is too long, so that the chosen one is seen.
fn window(chosen: usize, all: usize, room: usize) -> usize {
    (chosen + 1).saturating_sub(room).min(all.saturating_sub(room))
}

/// The row that the arrows are at.
fn marked(mut line: Line<'static>, is_chosen: bool, has_focus: bool) -> Line<'static> {
    if is_chosen {
        line.spans[0] = Span::raw("▸");
        let modifier = if has_focus { Modifier::REVERSED } else { Modifier::BOLD };
        line.style = line.style.add_modifier(modifier);
    }
    line
}

fn head(model: &Model, width: u16) -> Line<'static> {
    let sparks = if sparks(width) > 0 { format!("  {:<SPARK$}  {:<SPARK$}", "RATE", "P99") } else { String::new() };
    let text = format!(
        " {:<18}{:>7}{:>7}{:>8}{:>8}{:>6}{:>5}  {:<9}{:>5}  {}{sparks}",
        "UPSTREAM",
        "RATE",
        "ERR",
        "P50",
        "P99",
        "RETRY",
        "FLY",
        "BREAKER",
        "EP",
        if width < 100 { "" } else { "STATE           " },
    );
    let filter = if model.filter.is_empty() { String::new() } else { format!("  /{}", model.filter) };
    let sort = if width < 100 { String::new() } else { format!("  by {}", model.sort.word()) };
    Line::from(text.trim_end().to_owned() + &sort + &filter).style(dim())
}

/// Columns for sparklines beside the numbers.
fn sparks(width: u16) -> usize {
    if width >= NUMBERS + 20 + 2 * (SPARK as u16 + 2) { SPARK } else { 0 }
}

fn row(model: &Model, upstream: &Upstream, look: Look, width: u16) -> Line<'static> {
    let (it, level) = (&upstream.traffic, upstream.verdict.level);
    let well = upstream.endpoints.iter().filter(|endpoint| endpoint.state == "healthy").count();
    let has_errors = it.error_ratio.is_some_and(|share| share > 0.0);
    let breaker = if upstream.breaker.state == "closed" { Level::Good } else { level };
    let mut spans = vec![
        Span::raw(" "),
        look.mark(level, ""),
        Span::raw(format!("{:<16}", cut(&upstream.name, 16))),
        Span::raw(format!("{:>7}", rate(it.rate))),
        Span::styled(format!("{:>7}", percent(it.error_ratio)), look.bad_if(has_errors)),
        Span::raw(format!("{:>8}{:>8}", time_of(it.p50_ms), time_of(it.p99_ms))),
        Span::raw(format!("{:>6}{:>5}  ", rate(it.retries), upstream.in_flight)),
        Span::styled(format!("{:<9}", upstream.breaker.state), look.of(breaker)),
        Span::raw(format!("{:>5}  ", format!("{well}/{}", upstream.endpoints.len()))),
    ];
    if width >= 100 {
        spans.push(Span::styled(format!("{:<16}", cut(&upstream.verdict.word, 16)), look.of(level)));
    }
    let columns = sparks(width);
    for pick in [|it: &Traffic| it.rate, |it: &Traffic| it.p99_ms].into_iter().filter(|_| columns > 0) {
        spans.push(Span::raw(format!("  {:<columns$}", bars(&past(model, upstream, columns, pick)))));
    }
    Line::from(spans)
}

fn past(model: &Model, upstream: &Upstream, most: usize, pick: fn(&Traffic) -> Option<f64>) -> Vec<f64> {
    let mut latest: Vec<f64> =
        model.past(&upstream.name).rev().take(most).map(|it| pick(it).unwrap_or_default()).collect();
    latest.reverse();
    latest
}

fn bars(values: &[f64]) -> String {
    let most = values.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    values.iter().map(|value| BARS[((value / most * 7.0).round() as usize).min(7)]).collect()
}

/// The chosen upstream: two plots and its endpoints.
fn one(model: &Model, upstream: &Upstream, look: Look, area: Rect, buffer: &mut Buffer) {
    let [title, plots, list] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(3), Constraint::Min(0)]).areas(area);
    Line::from(summary(upstream, look)).render(title, buffer);
    let halves: [Rect; 2] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas(plots);
    let colours = if look.has_colour { [Color::Blue, Color::Magenta] } else { [Color::Reset; 2] };
    plot("rate", rate, &past(model, upstream, halves[0].width.into(), |it| it.rate), colours[0], halves[0], buffer);
    plot("p99", time_of, &past(model, upstream, halves[1].width.into(), |it| it.p99_ms), colours[1], halves[1], buffer);
    let mut lines = opened(upstream, list.width);
    lines.push(endpoints_head(None, list.width));
    lines.extend(upstream.worst_first().into_iter().map(|endpoint| endpoint_row(endpoint, look, list.width)));
    if upstream.endpoints.is_empty() {
        lines.push(Line::raw(format!("   No instance of {} can be called.", upstream.service)));
    }
    Paragraph::new(lines).render(list, buffer);
}

/// What opened its breaker the last time, the newest first: as much as fits into a line.
fn opened(upstream: &Upstream, width: u16) -> Vec<Line<'static>> {
    let Some(last) = &upstream.breaker.last_opened else { return Vec::new() };
    let lasted = last.lasted_ms.map(|ms| format!(" for {}", millis(ms as f64))).unwrap_or_default();
    let mut text = format!(" opened {} ago{lasted}:", millis(last.ago_ms as f64));
    for blame in last.failures.iter().rev() {
        let of = blame.endpoint.as_deref().map(|id| format!(" of {id}")).unwrap_or_default();
        let request = blame.request_id.as_deref().map(|id| format!(" ({id})")).unwrap_or_default();
        text += &format!(" {}{of}{request}", blame.outcome);
    }
    vec![Line::from(cut(&text, width.max(1).into())).style(dim())]
}

fn summary(upstream: &Upstream, look: Look) -> Vec<Span<'static>> {
    let breaker = match upstream.breaker.next_probe_ms {
        Some(left) => format!("  probe in {}", millis(left as f64)),
        None if upstream.breaker.failures > 0 => format!("  {} failures in a row", upstream.breaker.failures),
        None => String::new(),
    };
    let pending = if upstream.pending > 0 { format!(", {} wait", upstream.pending) } else { String::new() };
    vec![
        Span::raw(" "),
        Span::styled(upstream.name.clone(), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw("  "),
        look.mark(upstream.verdict.level, &upstream.verdict.word),
        Span::styled(
            format!(
                "  {}  {}/{} in flight{pending}  {} conns  budget {}{breaker}",
                upstream.protocol,
                upstream.in_flight,
                upstream.max_in_flight,
                upstream.connections,
                percent(upstream.retry_budget_remaining)
            ),
            dim(),
        ),
    ]
}

/// Two rows of bars under their name, latest value and maximum.
fn plot(name: &str, told: fn(Option<f64>) -> String, values: &[f64], colour: Color, area: Rect, buffer: &mut Buffer) {
    let [title, inner] = Layout::vertical([Constraint::Length(1), Constraint::Length(2)]).areas(area);
    let most = values.iter().copied().fold(0.0, f64::max);
    let text = format!(" {name} {}  (max {})", told(values.last().copied()), told(Some(most)));
    Line::from(text).style(dim()).render(title, buffer);
    let room = usize::from(inner.width.saturating_sub(1));
    let latest = values.iter().skip(values.len().saturating_sub(room));
    // In thousandths: bars are whole numbers. The newest is at the right.
    let mut data = vec![0; room.saturating_sub(values.len())];
    data.extend(latest.map(|value| (value * 1e3) as u64));
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(1), ..inner };
    Sparkline::default().data(data).style(Style::new().fg(colour)).render(inner, buffer);
}

/// From this width on an endpoint's line has everything.
const WHOLE: u16 = 126;

/// Columns for an endpoint's id.
fn id_width(width: u16) -> usize {
    let others = if width < WHOLE { 60 } else { 106 };
    usize::from(width).saturating_sub(others).clamp(20, 44)
}

fn endpoints_head(upstream: Option<&str>, width: u16) -> Line<'static> {
    let (name, ids) = (upstream.unwrap_or("ENDPOINT"), id_width(width));
    let name = cut(name, ids - 1);
    let mut text = format!("   {name:<ids$}{:<22}{:<10}{:>8}{:>6}{:>8}", "ADDRESS", "STATE", "REQ/MIN", "FAIL", "P99");
    if width >= WHOLE {
        text += &format!("{:>8}{:>7}{:>5}{:>7}  LAST FAILURE", "P50", "SHARE", "FLY", "CONNS");
    }
    Line::from(text).style(dim())
}

fn endpoint_row(endpoint: &Endpoint, look: Look, width: u16) -> Line<'static> {
    let ids = id_width(width);
    let level = match endpoint.state.as_str() {
        "healthy" => Level::Good,
        "ejected" | "failing" => Level::Bad,
        _ => Level::Warn,
    };
    let (live, recent) = (endpoint.live.as_ref(), &endpoint.recent);
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let mut spans = vec![
        Span::raw(" "),
        look.mark(level, ""),
        Span::raw(format!("{:<ids$}{:<22}", cut(&endpoint.id, ids - 1), cut(&endpoint.address, 21))),
        Span::styled(format!("{:<10}", endpoint.state), look.of(level)),
        Span::raw(format!("{:>8}", recent.requests)),
        Span::styled(format!("{:>6}", recent.failures), look.bad_if(recent.failures > 0)),
        Span::raw(format!("{:>8}", time_of(recent.p99_ms))),
    ];
    if width >= WHOLE {
        let (fly, connections) = (live.map(|live| live.in_flight), live.map(|live| live.connections));
        let last = recent.last_failure.as_ref().map(|last| failure_of(&last.cause, last.ago_ms));
        spans.push(Span::raw(format!("{:>8}{:>7}", time_of(recent.p50_ms), percent(recent.share))));
        spans.push(Span::raw(format!("{:>5}{:>7}  ", number(fly), number(connections))));
        spans.push(Span::raw(last.unwrap_or_default()));
    }
    let left = live.and_then(|live| live.ejected_for_ms).map(|left| format!("  back in {}", millis(left as f64)));
    spans.push(Span::raw(left.unwrap_or_default()));
    Line::from(spans)
}

fn failures(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) {
    let rows = model.failures();
    let mut lines = vec![failures_head(model, true)];
    let chosen = model.chosen_failure().and_then(|chosen| rows.iter().position(|it| it.id == chosen.id)).unwrap_or(0);
    let from = window(chosen, rows.len(), usize::from(area.height.saturating_sub(1)));
    let has_focus = model.focus == Focus::Failures;
    for (index, failure) in rows.into_iter().enumerate().skip(from) {
        lines.push(marked(failure_row(failure, look, area.width), has_focus && index == chosen, has_focus));
    }
    Paragraph::new(lines).render(area, buffer);
}

fn failures_head(model: &Model, is_live: bool) -> Line<'static> {
    let kept = model.frame.as_ref().map_or(0, |frame| frame.failures.kept);
    let text = match (kept, is_live) {
        (0, _) => "   No failures: every request got an answer.".to_owned(),
        (kept, true) => format!("   RECENT FAILURES  {kept} kept; Tab comes here, Enter tells the story"),
        (kept, false) => format!("   RECENT FAILURES  {kept} kept; lictor explain ID tells the story"),
    };
    Line::from(text).style(dim())
}

fn failure_row(failure: &Failure, look: Look, width: u16) -> Line<'static> {
    let time = failure.timestamp.get(11..19).unwrap_or_default().to_owned();
    let what = format!("{} {}", failure.method, failure.path);
    let to = failure.upstream.as_deref().unwrap_or("no upstream");
    let reason = failure.reason.as_deref().unwrap_or("upstream's answer");
    let room = usize::from(width).saturating_sub(66).clamp(10, 60);
    Line::from(vec![
        Span::raw(" "),
        Span::styled(format!("  {time} "), dim()),
        Span::styled(format!("{} ", failure.status), look.of(Level::Bad)),
        Span::raw(format!("{:<room$} ", cut(&what, room))),
        Span::raw(format!("{:<16} ", cut(to, 16))),
        Span::raw(format!("{:<18}", cut(reason, 18))),
        Span::raw(format!("{:>7}", time_of(Some(failure.took_ms)))),
        Span::raw(format!("{:>6}", if failure.times > 1 { format!("x{}", failure.times) } else { String::new() })),
        Span::styled(if width >= 110 { format!("  {}", failure.id) } else { String::new() }, dim()),
    ])
}

fn rate(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 9.95 => format!("{value:.1}"),
        Some(value) if value < 99_999.5 => format!("{value:.0}"),
        Some(value) => format!("{:.0}k", value / 1e3),
    }
}

fn percent(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        Some(share) if share > 0.0 && share < 0.001 => "<0.1%".to_owned(),
        Some(share) if share > 0.0 && share < 0.0995 => format!("{:.1}%", share * 100.0),
        Some(share) => format!("{:.0}%", share * 100.0),
    }
}

fn time_of(ms: Option<f64>) -> String {
    ms.map_or("-".to_owned(), |ms| millis(ms).replace(' ', ""))
}

/// To this many characters, with a sign that it was cut. Control characters would move the terminal's cursor.
fn cut(text: &str, most: usize) -> String {
    let clean = text.chars().map(|letter| if letter.is_control() { '?' } else { letter });
    if text.chars().count() <= most {
        return clean.collect();
    }
    clean.take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    const QUIET: Look = Look { has_colour: false, is_live: true };

    fn upstream(name: &str, verdict: (&str, &str), traffic: Json) -> Json {
        json!({
            "name": name, "service": name, "protocol": "http1", "verdict": { "level": verdict.0, "word": verdict.1 },
            "traffic": traffic, "breaker": { "state": "closed", "failures": 0, "next_probe_ms": null },
            "retry_budget_remaining": 1.0, "in_flight": 3, "max_in_flight": 1024, "pending": 0, "connections": 4,
            "endpoints": [{
                "id": format!("{name}-1"), "address": "10.0.0.1:8001", "state": "healthy",
                "recent": { "requests": 60, "failures": 1, "share": 1.0, "p50_ms": 0.5, "p99_ms": 17.2,
                    "last_failure": { "ago_ms": 1200.0, "cause": "502" } },
                "live": { "in_flight": 3, "connections": 4, "ejected_for_ms": null },
            }],
        })
    }

    fn model(upstreams: &[Json]) -> Model {
        let frame = json!({
            "at": "2026-01-02T03:04:05.678Z", "interval_ms": 1000.0,
            "service": { "name": "orders", "instance": "orders-1", "state": "ready" },
            "lictor": { "version": "0.1.0", "resident_bytes": 20 << 20, "cpu": 0.025 }, "inbound": null,
            "upstreams": upstreams,
            "consul": { "address": "http://127.0.0.1:8500", "up": false, "registration": "registered", "watches": [{ "age_ms": 65_000.0 }] },
            "failures": { "kept": 12, "latest": [{
                "id": "one", "timestamp": "2026-01-02T03:04:04.000Z", "method": "GET", "path": "/a\u{1b}[31m/b", "upstream": "users",
                "status": 502, "reason": "connect_refused", "took_ms": 1.25, "times": 12,
            }] },
        });
        let mut model = Model::default();
        model.take(serde_json::from_value(frame).unwrap(), Instant::now());
        model
    }

    fn screen(model: &Model, look: Look, width: u16, height: u16) -> String {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        draw(model, look, Instant::now(), area, &mut buffer);
        let rows = buffer.content().chunks(width.into());
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned() + "\n")
            .collect()
    }

    fn two() -> Model {
        let traffic = json!({ "rate": 151.0, "errors": 1.0, "error_ratio": 0.0066, "retries": 2.0, "p50_ms": 0.5, "p99_ms": 17.2 });
        model(&[
            upstream("users", ("warn", "some errors"), traffic),
            upstream("carts", ("good", "well"), json!({ "rate": 0.0, "retries": 0.0 })),
        ])
    }

    #[test]
    fn everything_fits_into_80_by_24() {
        let text = screen(&two(), QUIET, 80, 24);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].trim_end(), " orders  ● ready   Consul ■ away, data 65.0 s old   03:04:05  ● live");
        assert_eq!(lines[3], " UPSTREAM             RATE    ERR     P50     P99 RETRY  FLY  BREAKER     EP");
        assert_eq!(lines[4], "▸▲ users               151   0.7%   0.5ms    17ms   2.0    3  closed     1/1");
        assert_eq!(lines[5], " ● carts               0.0      -       -       -   0.0    3  closed     1/1");
        assert!(text.contains("users-1") && text.contains("10.0.0.1:8001"), "{text}");
        assert!(text.contains("RECENT FAILURES  12 kept"), "{text}");
        assert!(lines[23].contains("q quit"), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn what_was_before_the_first_frame_is_drawn() {
        let mut model = Model::default();
        let rates: Vec<u64> = (0..300).collect();
        let none = vec![Json::Null; 300];
        let history = json!({ "upstreams": { "users": {
            "rate": rates, "errors": rates, "retries": rates, "p50_ms": none, "p99_ms": none,
        } } });
        model.remember(serde_json::from_value(history).unwrap());
        let rates: Vec<f64> = model.past("users").filter_map(|it| it.rate).collect();
        assert_eq!((rates.len(), rates[0], rates[239]), (240, 60.0, 299.0), "the latest of them");
    }

    #[test]
    fn the_worst_endpoint_comes_first_and_says_how_it_failed() {
        let mut users = upstream("users", ("warn", "1 of 60 failing"), json!({}));
        let one = users["endpoints"][0].clone();
        let named = |number: usize, state: &str, failures: u64| {
            let mut one = one.clone();
            (one["id"], one["state"]) = (format!("users-{number}").into(), state.into());
            one["recent"]["failures"] = failures.into();
            one
        };
        let all = (1..=60).map(|number| match number {
            7 => named(number, "failing", 2),
            9 => named(number, "failing", 5),
            50 => named(number, "slow", 0),
            _ => named(number, "healthy", 0),
        });
        users["endpoints"] = all.collect();
        for (width, last) in [(80, false), (160, true)] {
            let text = screen(&model(&[users.clone()]), QUIET, width, 24);
            let rows: Vec<&str> = text.lines().skip_while(|line| !line.contains("ENDPOINT ")).collect();
            assert!(rows[1].contains("users-9 ") && rows[1].contains("failing "), "{text}");
            assert!(rows[2].contains("users-7 ") && rows[3].contains("users-50 "), "{text}");
            assert_eq!(rows[1].contains("502, 1200 ms ago"), last, "{text}");
            assert!(rows.iter().all(|line| line.chars().count() <= width.into()), "{text}");
        }
    }

    #[test]
    fn what_opened_a_breaker_is_a_line() {
        let mut users = upstream("users", ("bad", "breaker open"), json!({}));
        users["breaker"]["last_opened"] = json!({
            "ago_ms": 12_000, "lasted_ms": null, "cause": "status", "probes_failed": 0, "last_probe": null,
            "failures": [
                { "request_id": "one", "endpoint": "users-1", "outcome": "500" },
                { "request_id": null, "endpoint": "users-2", "outcome": "connect_refused" },
            ],
        });
        let text = screen(&model(&[users]), QUIET, 120, 30);
        assert!(text.contains(" opened 12.0 s ago: connect_refused of users-2 500 of users-1 (one)"), "{text}");
        assert!(!screen(&two(), QUIET, 120, 30).contains("opened"));
    }

    #[test]
    fn any_size_is_drawn() {
        for (width, height) in [(1, 1), (20, 3), (60, 10), (79, 23), (200, 60), (500, 5)] {
            assert_eq!(screen(&two(), QUIET, width, height).lines().count(), usize::from(height));
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = screen(&two(), QUIET, 120, 30);
        assert!(text.contains("/a?[31m/b") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let coloured = |look| {
            let area = Rect::new(0, 0, 100, 24);
            let mut buffer = Buffer::empty(area);
            draw(&two(), look, Instant::now(), area, &mut buffer);
            buffer.content().iter().any(|cell| cell.fg != Color::Reset)
        };
        assert!(coloured(Look { has_colour: true, ..QUIET }));
        assert!(!coloured(QUIET));
    }

    #[test]
    fn the_choice_stays_with_its_upstream_when_the_order_changes() {
        let mut model = two();
        model.step(1);
        assert_eq!(model.chosen().unwrap().name, "carts");
        model.sort = model.sort.next();
        assert_eq!(model.upstreams()[0].name, "users", "the worst first");
        assert_eq!(model.chosen().unwrap().name, "carts");
        model.filter = "users".to_owned();
        assert_eq!(model.chosen().unwrap().name, "users", "what is not shown is not chosen");
    }
}
