//! Trace context: W3C `traceparent` and `tracestate`, B3, and the `X-Trace-ID` / `X-Span-ID` pair of older services.
//! Owns what a caller's headers mean, what goes on to the upstream, and which traces are sampled; not the spans.

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3_SINGLE: HeaderName = HeaderName::from_static("b3");
const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const LEGACY_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const LEGACY_SPAN_ID: HeaderName = HeaderName::from_static("x-span-id");
const LEGACY_PARENT_ID: HeaderName = HeaderName::from_static("x-parent-id");

/// Trace headers and sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// W3C `traceparent` and `tracestate`. Always understood; sent unless this is false. Default true.
    pub w3c: bool,
    /// B3, single and multiple headers.
    pub b3: B3,
    /// `X-Trace-ID`, `X-Span-ID`, `X-Parent-ID` understood, sent and echoed. Default true.
    pub legacy: bool,
    /// Share of traces that are sampled, 0 to 1, where nobody has decided yet. Default 0.1.
    pub sample: f64,
    /// A caller's decision is kept. Default true; without, `sample` holds for every trace.
    pub parent_based: bool,
    /// Whether spans are exported at all. Where they are not, a caller's span stays the parent of what follows:
    /// the trace would have a hole otherwise.
    pub export: bool,
    /// A call without a context belongs to the request that is served, where that can be known. Default false.
    pub infer_parent: bool,
}

/// What is done about B3. Whatever a caller sends goes on in the form that it came in, but for `Off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum B3 {
    /// Neither understood nor sent.
    Off,
    /// Sent only when the caller did. The default.
    Echoed,
    /// Always sent; `b3` unless the caller sent several.
    Single,
    /// Always sent; `X-B3-*` unless the caller sent one.
    Multiple,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            w3c: true,
            b3: B3::Echoed,
            legacy: true,
            sample: 0.1,
            parent_based: true,
            export: false,
            infer_parent: false,
        }
    }
}

/// Where a request stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Never 0.
    pub trace_id: u128,
    /// Our own span, new for each request; the caller's where spans are not exported. Never 0.
    pub span_id: u64,
    /// The span that caused it.
    pub parent: Option<u64>,
    /// Whether spans of this trace are kept.
    pub is_sampled: bool,
    /// The caller says that its trace id is random (W3C Trace Context Level 2, 3.2.2.5.2).
    is_random: bool,
    b3: B3Form,
    keeps_state: bool,
    kept: Kept,
}

/// What passes byte for byte: without spans of our own nothing about the caller's context changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    traceparent: bool,
    b3: bool,
}

/// How B3 is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum B3Form {
    None,
    Single,
    Multiple,
}

/// What a caller's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remote {
    trace_id: u128,
    span_id: Option<u64>,
    is_sampled: Option<bool>,
    is_random: bool,
}

impl TraceContext {
    /// A trace of our own.
    pub fn start(settings: &TraceSettings, random: &mut impl FnMut() -> u64) -> Self {
        let trace_id = u128::from(random() | 1) << 64 | u128::from(random());
        Self {
            trace_id,
            span_id: random() | 1,
            parent: None,
            is_sampled: is_sampled(trace_id, settings.sample),
            is_random: false,
            b3: match settings.b3 {
                B3::Off | B3::Echoed => B3Form::None,
                B3::Single => B3Form::Single,
                B3::Multiple => B3Form::Multiple,
            },
            keeps_state: false,
            kept: Kept::default(),
        }
    }

    /// Where a request stands that this one caused: in the same trace, below this one's span. B3 goes on as it came here.
    #[must_use]
    pub fn causes(self, settings: &TraceSettings, random: &mut impl FnMut() -> u64) -> Self {
        Self { keeps_state: false, ..self.asks(settings, random) }
    }

    /// The same, of a request that has what this one's caller says of the trace: its `tracestate` goes on too.
    #[must_use]
    pub fn asks(self, settings: &TraceSettings, random: &mut impl FnMut() -> u64) -> Self {
        let own = Self { kept: Kept::default(), ..self };
        if settings.export { Self { span_id: random() | 1, parent: Some(self.span_id), ..own } } else { own }
    }

    /// The caller's `tracestate` as one list; `None` where it does not go on.
    pub fn state(&self, headers: &HeaderMap) -> Option<Box<str>> {
        let lists = || headers.get_all(TRACESTATE).iter().filter_map(|list| list.to_str().ok());
        let members = || lists().flat_map(|list| list.split(',')).map(str::trim).filter(|member| !member.is_empty());
        self.keeps_state.then(|| members().collect::<Vec<_>>().join(",").into())
    }

    /// Goes on with the caller's trace, `traceparent` before B3 before the older pair, or starts one. `has_others`: there
    /// may be more than a `traceparent`.
    pub fn extract(
        headers: &HeaderMap,
        has_others: bool,
        settings: &TraceSettings,
        random: &mut impl FnMut() -> u64,
    ) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let mut lines = headers.get_all(TRACEPARENT).iter();
        let w3c = match (lines.next(), lines.next()) {
            (Some(line), None) => parse_traceparent(line.as_bytes()),
            _ => None, // two are as good as none (W3C Trace Context, 3.2)
        };
        let b3 = if has_others && settings.b3 != B3::Off { parse_b3(text) } else { Heard::default() };
        let standard = w3c.or(b3.remote);
        let own = Self::start(settings, random);
        let own = Self {
            b3: if b3.form == B3Form::None { own.b3 } else { b3.form },
            keeps_state: has_others && w3c.is_some() && is_tracestate(headers),
            ..own
        };
        let legacy = || if has_others && settings.legacy { parse_legacy(text) } else { None };
        let callers = |decision: Option<bool>| decision.filter(|_| settings.parent_based);
        let Some(remote) = standard.or_else(legacy) else {
            return Self { is_sampled: callers(b3.decision).unwrap_or(own.is_sampled), ..own };
        };
        let trace_id = remote.trace_id;
        let context = Self {
            trace_id,
            parent: remote.span_id,
            is_sampled: callers(remote.is_sampled).unwrap_or_else(|| is_sampled(trace_id, settings.sample)),
            is_random: remote.is_random,
            ..own
        };
        match standard.and_then(|remote| remote.span_id) {
            Some(span_id) if !settings.export => {
                let is_same = remote.is_sampled.is_none_or(|decision| decision == context.is_sampled);
                let kept = Kept { traceparent: is_same && w3c.is_some(), b3: is_same && b3.remote.is_some() };
                Self { span_id, parent: None, kept, ..context }
            }
            _ => context,
        }
    }

    /// The same trace from an attempt's span, a child of ours. Numbers count from 1.
    #[must_use]
    pub fn attempt(self, number: usize) -> Self {
        Self { span_id: self.attempt_span(number), parent: Some(self.span_id), kept: Kept::default(), ..self }
    }

    /// An attempt's span: made of ours, so that whoever needs it finds the same.
    pub fn attempt_span(&self, number: usize) -> u64 {
        // Multiplying by an odd number keeps different numbers different (Knuth's multiplicative hashing).
        self.span_id.wrapping_add((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
    }

    /// Whether [`TraceContext::fields`] stands in place of a field that the caller sent.
    pub fn replaces(&self, name: &str, settings: &TraceSettings) -> bool {
        match name {
            "traceparent" => settings.w3c && !self.kept.traceparent,
            "tracestate" => !self.keeps_state,
            _ if self.kept.b3 && (name == "b3" || name.starts_with("x-b3-")) => false,
            "b3" => self.b3 == B3Form::Single,
            "x-b3-traceid" | "x-b3-spanid" | "x-b3-sampled" | "x-b3-parentspanid" | "x-b3-flags" => {
                self.b3 == B3Form::Multiple
            }
            "x-trace-id" | "x-span-id" | "x-parent-id" => settings.legacy,
            _ => false,
        }
    }

    /// Our span as the parent of whatever the upstream does. B3 goes on in the form that it came in.
    pub fn fields(&self, settings: &TraceSettings, mut write: impl FnMut(&HeaderName, &[u8])) {
        let (trace_id, span_id) = (self.trace_id_digits(), self.span_id_digits());
        let parent = self.parent.map(|parent| hex_digits::<16>(u128::from(parent)));
        if settings.w3c && !self.kept.traceparent {
            write(&TRACEPARENT, &self.traceparent());
        }
        let sampled: &[u8] = if self.is_sampled { b"1" } else { b"0" };
        match self.b3 {
            _ if self.kept.b3 => (),
            B3Form::None => (),
            B3Form::Single => write(&B3_SINGLE, &[&trace_id, &b"-"[..], &span_id, b"-", sampled].concat()),
            B3Form::Multiple => {
                write(&B3_TRACE_ID, &trace_id);
                write(&B3_SPAN_ID, &span_id);
                write(&B3_SAMPLED, sampled);
                if let Some(parent) = &parent {
                    write(&B3_PARENT_ID, parent);
                }
            }
        }
        if settings.legacy {
            write(&LEGACY_TRACE_ID, &trace_id);
            write(&LEGACY_SPAN_ID, &span_id);
            if let Some(parent) = &parent {
                write(&LEGACY_PARENT_ID, parent);
            }
        }
    }

    /// `00-<trace>-<span>-<flags>`.
    pub fn traceparent(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&self.trace_id_digits());
        text[36..52].copy_from_slice(&self.span_id_digits());
        text[54] = b'0' + u8::from(self.is_sampled) + 2 * u8::from(self.is_random);
        text
    }

    /// As hexadecimal digits.
    pub fn trace_id_digits(&self) -> [u8; 32] {
        hex_digits(self.trace_id)
    }

    /// As hexadecimal digits.
    pub fn span_id_digits(&self) -> [u8; 16] {
        hex_digits(u128::from(self.span_id))
    }
}

/// Decided by the trace's id, so that all who ask alike decide alike (OpenTelemetry's TraceIdRatioBased).
fn is_sampled(trace_id: u128, share: f64) -> bool {
    ((trace_id as u64) >> 1) as f64 <= share * i64::MAX as f64 && share > 0.0
}

/// Each byte's two digits.
static HEX: [[u8; 2]; 256] = {
    let mut hex = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        hex[byte] = [b"0123456789abcdef"[byte >> 4], b"0123456789abcdef"[byte & 0xf]];
        byte += 1;
    }
    hex
};

/// The lowest `N` digits, of which there is an even number.
fn hex_digits<const N: usize>(number: u128) -> [u8; N] {
    let mut digits = [b'0'; N];
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().rev().zip(number.to_le_bytes()) {
        *pair = HEX[usize::from(byte)];
    }
    digits
}

/// W3C Trace Context, 3.2: lower-case digits, no zero ids, version ff invalid, later versions may be longer.
fn parse_traceparent(line: &[u8]) -> Option<Remote> {
    let text = line.trim_ascii(); // of white space a field has only that which is optional
    let (byte, part) = (|at| text.get(at), |from, to| lower_hex(text.get(from..to)?));
    let version = part(0, 2)?;
    let is_divided = [2, 35, 52].into_iter().all(|at| byte(at) == Some(&b'-'));
    let is_whole = text.len() == 55 || (version > 0 && byte(55) == Some(&b'-'));
    if version == 0xff || !is_divided || !is_whole || !text.is_ascii() {
        return None;
    }
    let trace_id = u128::from(part(3, 19)?) << 64 | u128::from(part(19, 35)?);
    let (span_id, flags) = (part(36, 52)?, part(53, 55)?);
    (trace_id != 0 && span_id != 0).then_some(Remote {
        trace_id,
        span_id: Some(span_id),
        is_sampled: Some(flags & 1 == 1),
        is_random: flags & 2 == 2,
    })
}

/// Whether `tracestate` may go on: all of it, or none (W3C Trace Context, 3.3). At most 32 members; longer lists than
/// 512 characters go on whole, as they came.
fn is_tracestate(headers: &HeaderMap) -> bool {
    let mut members = 0;
    headers.get_all(TRACESTATE).iter().all(|value| {
        let Ok(text) = value.to_str() else { return false };
        text.split(',').map(trim).filter(|member| !member.is_empty()).all(|member| {
            members += 1;
            members <= 32
                && member.split_once('=').is_some_and(|(key, value)| is_state_key(key) && is_state_value(value))
        })
    })
}

/// A lower-case letter or a digit, and more of those, `_`, `-`, `*`, `/` and `@`, where what is before the last `@` is a
/// tenant's (W3C Trace Context Level 2, 3.3.1.3.1).
fn is_state_key(key: &str) -> bool {
    let is_first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_other = |byte: &u8| is_first(byte) || b"_-*/@".contains(byte);
    key.len() <= 256
        && key.as_bytes().split_first().is_some_and(|(first, rest)| is_first(first) && rest.iter().all(is_other))
}

/// Printable, without `,` and `=`, at most 256, and at least one.
fn is_state_value(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

/// Without optional white space (RFC 9110, section 5.6.3).
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// What was said in B3. A decision may come without a trace.
#[derive(Clone, Copy, Debug)]
struct Heard {
    remote: Option<Remote>,
    form: B3Form,
    decision: Option<bool>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { remote: None, form: B3Form::None, decision: None }
    }
}

/// B3's single header, `trace-span[-sampled[-parent]]` or just a decision, or its several.
fn parse_b3<'a>(text: impl Fn(&HeaderName) -> Option<&'a str>) -> Heard {
    if let Some(single) = text(&B3_SINGLE) {
        let mut parts = single.split('-');
        let ids = parts.next().and_then(any_hex).zip(parts.next().and_then(any_hex));
        let decision = if ids.is_some() { parts.next().and_then(decision) } else { decision(single) };
        let remote = ids.filter(|(trace, span)| *trace != 0 && *span != 0).map(|(trace_id, span)| Remote {
            trace_id,
            span_id: Some(span as u64),
            is_sampled: decision,
            is_random: false,
        });
        return Heard { remote, form: B3Form::Single, decision };
    }
    let is_debug = text(&B3_FLAGS) == Some("1");
    let decision = if is_debug { Some(true) } else { text(&B3_SAMPLED).and_then(decision) };
    let span_id = text(&B3_SPAN_ID).and_then(any_hex).map(|id| id as u64).filter(|id| *id != 0);
    let trace_id = text(&B3_TRACE_ID).and_then(any_hex).filter(|id| *id != 0);
    let remote = trace_id.map(|trace_id| Remote { trace_id, span_id, is_sampled: decision, is_random: false });
    let is_there = remote.is_some() || decision.is_some();
    Heard { remote, form: if is_there { B3Form::Multiple } else { B3Form::None }, decision }
}

fn decision(text: &str) -> Option<bool> {
    match text {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// A UUID with or without dashes; the span likewise, of which the last 16 digits count.
fn parse_legacy<'a>(text: impl Fn(&HeaderName) -> Option<&'a str>) -> Option<Remote> {
    let id = |name: HeaderName| {
        let digits: String = text(&name)?.chars().filter(|c| *c != '-').collect();
        any_hex(&digits).filter(|id| *id != 0)
    };
    let span_id = id(LEGACY_SPAN_ID).map(|span| span as u64).filter(|span| *span != 0);
    Some(Remote { trace_id: id(LEGACY_TRACE_ID)?, span_id, is_sampled: None, is_random: false })
}

/// Each lower-case digit's value; others have one that no digit has.
static DIGITS: [u8; 256] = {
    let mut values = [0x10; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

/// Up to 16 digits.
fn lower_hex(digits: &[u8]) -> Option<u64> {
    let (number, seen) = digits.iter().fold((0, 0), |(number, seen), byte| {
        let value = DIGITS[usize::from(*byte)];
        (number << 4 | u64::from(value & 0xf), seen | value)
    });
    (seen < 0x10).then_some(number)
}

fn any_hex(text: &str) -> Option<u128> {
    let is_id = matches!(text.len(), 16 | 32) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { u128::from_str_radix(text, 16).ok() } else { None }
}

/// A new request id: a UUID of version 7 (RFC 9562, section 5.7).
pub fn request_id(mut random: impl FnMut() -> u64, unix_millis: u64) -> [u8; 36] {
    let (a, b) = (random() & 0xfff, random() & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000);
    let number = u128::from(unix_millis & 0xffff_ffff_ffff) << 80 | 7 << 76 | u128::from(a) << 64 | u128::from(b);
    let digits = hex_digits::<32>(number);
    let mut text = [b'-'; 36];
    for (to, from) in [(0..8, 0..8), (9..13, 8..12), (14..18, 12..16), (19..23, 16..20), (24..36, 20..32)] {
        text[to].copy_from_slice(&digits[from]);
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    impl TraceContext {
        fn inject(&self, headers: &mut HeaderMap, settings: &TraceSettings) {
            let replaced: Vec<_> =
                headers.keys().filter(|name| self.replaces(name.as_str(), settings)).cloned().collect();
            for name in replaced {
                headers.remove(name);
            }
            self.fields(settings, |name, value| {
                headers.append(name.clone(), HeaderValue::from_bytes(value).unwrap());
            });
        }
    }

    fn exporting() -> TraceSettings {
        TraceSettings { export: true, ..TraceSettings::default() }
    }

    fn extract(headers: &HeaderMap) -> TraceContext {
        let mut next = 0;
        TraceContext::extract(headers, true, &exporting(), &mut || {
            next += 0x1234_5678_9abc_def1_u64;
            next
        })
    }

    #[test]
    fn a_callers_trace_goes_on_with_our_span_as_its_child() {
        let mut map = headers(&[("traceparent", PARENT), ("tracestate", "a=b")]);
        let context = extract(&map);
        assert_eq!((context.trace_id, context.parent, context.is_sampled), (TRACE, Some(0x00f0_67aa_0ba9_02b7), true));
        context.inject(&mut map, &TraceSettings::default());
        let expected = format!("00-{TRACE:032x}-{:016x}-01", context.span_id);
        assert_eq!(map["traceparent"], expected.as_str());
        assert_eq!(map["tracestate"], "a=b");
        assert_eq!(map["x-trace-id"], format!("{TRACE:032x}").as_str());
        assert_eq!(map["x-parent-id"], "00f067aa0ba902b7");
    }

    #[test]
    fn invalid_parents_start_a_new_trace_and_drop_the_state() {
        let zero_trace = format!("00-{:032}-00f067aa0ba902b7-01", 0);
        let zero_span = format!("00-{TRACE:032x}-{:016}-01", 0);
        let long = format!("{PARENT}-extra");
        let upper = PARENT.to_uppercase();
        let version_ff = PARENT.replacen("00", "ff", 1);
        for wrong in [&zero_trace, &zero_span, &long, &upper, &version_ff, "", "00", "00-1-2-3"] {
            let mut map = headers(&[("traceparent", wrong), ("tracestate", "a=b")]);
            let context = extract(&map);
            assert_ne!(context.trace_id, TRACE, "{wrong}");
            assert_eq!(context.parent, None, "{wrong}");
            context.inject(&mut map, &TraceSettings::default());
            assert!(!map.contains_key("tracestate"), "{wrong}");
        }
    }

    #[test]
    fn later_versions_may_be_longer() {
        let later = PARENT.replacen("00", "01", 1);
        assert_eq!(extract(&headers(&[("traceparent", &later)])).trace_id, TRACE);
        assert_eq!(extract(&headers(&[("traceparent", &format!("{later}-more"))])).trace_id, TRACE);
        assert_ne!(extract(&headers(&[("traceparent", &format!("{later}more"))])).trace_id, TRACE);
    }

    #[test]
    fn b3_comes_out_in_the_form_that_it_came_in() {
        let mut single = headers(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")]);
        let context = extract(&single);
        assert_eq!(context.parent, Some(0xe457_b5a2_e4d8_6bd1));
        context.inject(&mut single, &TraceSettings::default());
        assert!(single["b3"].to_str().unwrap().starts_with("80f198ee56343ba864fe8b2a57d3eff7-"));
        let multiple =
            [("x-b3-traceid", "e457b5a2e4d86bd1"), ("x-b3-spanid", "e457b5a2e4d86bd1"), ("x-b3-sampled", "0")];
        let mut map = headers(&multiple);
        let context = extract(&map);
        assert_eq!((context.trace_id, context.is_sampled), (0xe457_b5a2_e4d8_6bd1, false));
        context.inject(&mut map, &TraceSettings::default());
        assert_eq!(map["x-b3-parentspanid"], "e457b5a2e4d86bd1");
        assert!(!map.contains_key("b3"));
    }

    #[test]
    fn what_a_request_causes_is_its_child_in_the_form_that_it_came_in() {
        let quiet = TraceSettings::default();
        let b3 = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1";
        for came in [&[("traceparent", PARENT), ("tracestate", "a=b")][..], &[("b3", b3)], &[]] {
            for settings in [&quiet, &exporting()] {
                let cause = TraceContext::extract(&headers(came), true, settings, &mut || 7);
                let caused = cause.causes(settings, &mut || 11);
                let mut sent = headers(&[("tracestate", "of=another")]);
                caused.inject(&mut sent, settings);
                assert_eq!(caused.trace_id, cause.trace_id, "{came:?}");
                assert_eq!(caused.is_sampled, cause.is_sampled, "{came:?}");
                let expected = if settings.export { (11, Some(cause.span_id)) } else { (cause.span_id, cause.parent) };
                assert_eq!((caused.span_id, caused.parent), expected, "no span that nobody sends: {came:?}");
                let forms = ["traceparent", "b3"].map(|form| sent.contains_key(form));
                assert_eq!(forms, [true, came == [("b3", b3)]], "{came:?}");
                assert!(!sent.contains_key("tracestate"), "{came:?}");
                // With the caller's fields, in the same place.
                let asked = cause.asks(settings, &mut || 11);
                let mut sent = headers(came);
                asked.inject(&mut sent, settings);
                assert_eq!((asked.trace_id, asked.span_id, asked.parent), (cause.trace_id, expected.0, expected.1));
                assert_eq!(["traceparent", "b3"].map(|form| sent.contains_key(form)), forms, "{came:?}");
                assert_eq!(sent.contains_key("tracestate"), came.len() == 2, "{came:?}");
            }
        }
    }

    #[test]
    fn a_decision_without_a_trace_stands() {
        let always = TraceSettings { sample: 1.0, ..exporting() };
        let heard = |map: &HeaderMap, settings: &TraceSettings| {
            TraceContext::extract(map, true, settings, &mut || 7).is_sampled
        };
        assert!(!heard(&headers(&[("b3", "0")]), &always));
        assert!(!heard(&headers(&[("x-b3-sampled", "0")]), &always));
        let own = TraceSettings { sample: 1.0, parent_based: false, ..exporting() };
        assert!(heard(&headers(&[("b3", "0")]), &own));
        assert!(heard(&headers(&[("b3", "d")]), &TraceSettings { sample: 0.0, ..always }));
    }

    #[test]
    fn samplers_ask_the_caller_or_the_trace_id() {
        let (low, high) = (format!("00-{:032x}-{:016x}-00", 1, 1), format!("00-{}-{:016x}-01", "f".repeat(32), 1));
        let sampled = |text: &str, parent_based, sample| {
            let settings = TraceSettings { sample, parent_based, ..exporting() };
            let map = headers(&[("traceparent", text)]);
            TraceContext::extract(&map, true, &settings, &mut || 7).is_sampled
        };
        for sample in [0.0, 0.5, 1.0] {
            assert!(!sampled(&low, true, sample) && sampled(&high, true, sample), "the caller decides");
        }
        assert!(sampled(&low, false, 0.5) && !sampled(&high, false, 0.5), "half the ids");
        assert!(!sampled(&low, false, 0.0) && !sampled(&high, false, 0.0), "none");
        assert!(sampled(&low, false, 1.0) && sampled(&high, false, 1.0), "all");
    }

    /// As a proxy writes it: what is replaced is taken off, and what is ours is added.
    fn passed(came: &[(&str, &str)], settings: &TraceSettings) -> HeaderMap {
        let mut map = headers(came);
        TraceContext::extract(&map, true, settings, &mut || 7).inject(&mut map, settings);
        map
    }

    #[test]
    fn without_spans_of_our_own_what_came_goes_on_byte_for_byte() {
        let later = PARENT.replacen("00", "cc", 1) + "-what-the-future";
        let flags = PARENT.replace("-01", "-ff");
        let b3 = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d-05e3ac9a4f6e3b90";
        let multiple = [
            ("x-b3-traceid", "0af7651916cd43dd8448eb211c80319c"),
            ("x-b3-spanid", "b7ad6b7169203331"),
            ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
            ("x-b3-flags", "1"),
        ];
        let states =
            [("traceparent", PARENT), ("tracestate", "b=1 , a=2"), ("tracestate", ""), ("tracestate", "1@x@y=1")];
        let rows: [&[(&str, &str)]; 8] = [
            &[("traceparent", PARENT)],
            &[("traceparent", &later)],
            &[("traceparent", &flags)],
            &[("traceparent", PARENT), ("baggage", " a=1;p , b=%20")],
            &[("b3", b3)],
            &multiple,
            &states,
            &[("traceparent", PARENT), ("b3", b3)],
        ];
        let settings = TraceSettings { legacy: false, ..TraceSettings::default() };
        for came in rows {
            let mut went = passed(came, &settings);
            if !came.iter().any(|(name, _)| *name == "traceparent") {
                assert!(went.remove("traceparent").is_some(), "{came:?}: derived");
            }
            assert_eq!(went, headers(came), "{came:?}");
        }
        for touched in [exporting(), TraceSettings { parent_based: false, sample: 0.0, ..settings }] {
            let went = passed(&[("traceparent", PARENT)], &touched);
            assert_ne!(went["traceparent"], PARENT, "{touched:?}");
            assert_eq!(went.get_all("traceparent").iter().count(), 1);
        }
    }

    #[test]
    fn keys_of_a_state_are_those_of_the_second_edition() {
        let long = "a".repeat(256);
        for key in ["a", "1", "foo@", "foo@@bar", "foo@bar@baz", "0a_-*/@1", long.as_str()] {
            assert!(is_state_key(key), "{key}");
        }
        let longer = "a".repeat(257);
        for key in ["", "@foo", "_a", "-a", "A", "aB", "a b", "a,", "a=", "\u{e4}", longer.as_str()] {
            assert!(!is_state_key(key), "{key}");
        }
    }

    #[test]
    fn without_spans_of_our_own_the_callers_stays_the_parent() {
        let mut map = headers(&[("traceparent", PARENT)]);
        let context = TraceContext::extract(&map, true, &TraceSettings::default(), &mut || 7);
        context.inject(&mut map, &TraceSettings::default());
        assert_eq!(map["traceparent"], PARENT);
    }

    #[test]
    fn attempts_have_spans_of_their_own() {
        let context = extract(&headers(&[("traceparent", PARENT)]));
        let (first, second) = (context.attempt(1), context.attempt(2));
        assert_eq!((first.trace_id, first.parent), (TRACE, Some(context.span_id)));
        assert!(first.span_id != second.span_id && first.span_id != context.span_id);
        assert_eq!(first.span_id, context.attempt_span(1));
    }

    #[test]
    fn b3_is_sent_to_all_where_that_is_asked_for() {
        for (b3, name) in [(B3::Single, "b3"), (B3::Multiple, "x-b3-traceid")] {
            let settings = TraceSettings { b3, ..exporting() };
            let mut map = HeaderMap::new();
            TraceContext::start(&settings, &mut || 7).inject(&mut map, &settings);
            assert!(map.contains_key(name), "{map:?}");
        }
    }

    #[test]
    fn an_older_services_uuid_is_the_trace() {
        let context = extract(&headers(&[("x-trace-id", "0192f3c1-5d2e-7abc-8def-0123456789ab")]));
        assert_eq!(context.trace_id, 0x0192_f3c1_5d2e_7abc_8def_0123_4567_89ab);
        assert_ne!(extract(&headers(&[("x-trace-id", "req_17")])).trace_id, 0);
    }

    #[test]
    fn request_ids_are_version_7_uuids() {
        let id = request_id(|| u64::MAX, 0x0192_f3c1_5d2e);
        assert_eq!(&id, b"0192f3c1-5d2e-7fff-bfff-ffffffffffff");
    }
}
