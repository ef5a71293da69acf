//! What is asked for: a saga's steps, as they come from an application.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::{Named, Payload};
use crate::hash::hash_bytes;

/// Of what is asked for, in bytes. Consul keeps at most 512 KiB in a key, and is sent it in base64.
pub const BODY_MAX: usize = 256 << 10;
const STEPS_MAX: usize = 32;
const NAME_MAX: usize = 64;
const PATH_MAX: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_LEAST: Duration = Duration::from_millis(100);
const TIMEOUT_MOST: Duration = Duration::from_secs(300);

/// Steps, in their order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is to be named; `None`: that is left to us.
    pub id: Option<String>,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) what: Named,
    pub(super) payload: Payload,
    pub(super) timeout: Duration,
}

/// As it is written, also with the names that a Go structure without tags has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, alias = "ID")]
    id: Option<String>,
    #[serde(alias = "Steps")]
    steps: Vec<WrittenStep>,
    /// Such a structure has these too, and nothing in them yet.
    #[serde(default, rename = "Current")]
    current: Json,
    #[serde(default, rename = "Status")]
    status: Json,
    #[serde(default, rename = "Completed")]
    completed: Json,
    #[serde(default, rename = "Failed")]
    failed: Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    #[serde(alias = "Name")]
    name: String,
    #[serde(alias = "Service")]
    service: String,
    #[serde(alias = "Action")]
    action: String,
    #[serde(default, alias = "Compensation")]
    compensation: Option<String>,
    #[serde(default, alias = "Payload")]
    payload: Option<Payload>,
    #[serde(default, alias = "Timeout")]
    timeout: Option<String>,
}

impl Plan {
    /// Reads it; the words say what is wrong with it.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err("a saga is a JSON object".to_owned()); // serde would take a list of its values, too
        }
        let written: Written = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let Written { id, steps, current, status, completed, failed } = written;
        for (name, value) in [("Current", current), ("Status", status), ("Completed", completed), ("Failed", failed)] {
            if !is_nothing(&value) {
                return Err(format!("`{name}` says that something was done already: that is not for who asks"));
            }
        }
        let id = id.filter(|id| !id.is_empty()); // as Go has one that is not set
        id.as_deref().map_or(Ok(()), check_id)?;
        if steps.is_empty() || steps.len() > STEPS_MAX {
            return Err(format!("there are 1 to {STEPS_MAX} steps, not {}", steps.len()));
        }
        let steps = steps
            .into_iter()
            .enumerate()
            .map(|(index, step)| step.checked().map_err(|why| format!("step {}: {why}", index + 1)));
        let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = steps.iter().find(|step| !names.insert(&step.what.name)) {
            return Err(format!("two steps are named `{}`", twice.what.name));
        }
        Ok(Self { id, steps })
    }

    /// The services that its steps are of.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| step.what.service.as_str())
    }

    /// Equal for equal steps, in every process.
    pub(super) fn digest(&self) -> String {
        let mut text = Vec::new();
        for Step { what: Named { name, service, action, compensation }, payload, timeout } in &self.steps {
            let compensation = compensation.as_deref().unwrap_or_default();
            for part in [name, service, action, compensation, payload.get(), &timeout.as_millis().to_string()] {
                text.extend_from_slice(&(part.len() as u64).to_le_bytes());
                text.extend_from_slice(part.as_bytes());
            }
        }
        format!("{:016x}", hash_bytes(&text))
    }
}

impl WrittenStep {
    fn checked(self) -> Result<Step, String> {
        let Self { name, service, action, compensation, payload, timeout } = self;
        check_name("`name`", &name)?;
        if service.is_empty() {
            return Err("`service` is empty".to_owned());
        }
        check_path("`action`", &action)?;
        let compensation = compensation.filter(|path| !path.is_empty());
        compensation.as_deref().map_or(Ok(()), |path| check_path("`compensation`", path))?;
        let timeout = timeout.as_deref().map_or(Ok(TIMEOUT), read_timeout)?;
        let payload = payload.unwrap_or_else(|| RawValue::NULL.to_owned());
        Ok(Step { what: Named { name, service, action, compensation }, payload, timeout })
    }
}

/// Whether a saga may be named so; the words say why not.
pub fn check_id(id: &str) -> Result<(), String> {
    check_name("an id", id)
}

/// It is part of a key of KV, of a path and of a header.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_named = (1..=NAME_MAX).contains(&name.len()) && name.chars().all(is_good) && name.chars().any(|c| c != '.');
    if is_named {
        Ok(())
    } else {
        Err(format!("{what} has 1 to {NAME_MAX} characters of A-Z a-z 0-9 . _ - and is not only dots"))
    }
}

/// What may follow `/api/`: nothing that leads elsewhere (RFC 3986, section 3.3).
fn check_path(what: &str, path: &str) -> Result<(), String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/".contains(c);
    if path.len() > PATH_MAX || !path.chars().all(is_good) {
        return Err(format!(
            "{what} is a path below /api/ of at most {PATH_MAX} characters, without `?`, `#`, `%` and spaces"
        ));
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(format!(
            "{what} is a path below /api/ such as inventory/deduct, without empty segments, `.` and `..`"
        ));
    }
    Ok(())
}

fn read_timeout(text: &str) -> Result<Duration, String> {
    let timeout =
        humantime::parse_duration(text).ok().filter(|timeout| (TIMEOUT_LEAST..=TIMEOUT_MOST).contains(timeout));
    timeout.ok_or_else(|| format!("`timeout` is a duration of 100ms to 5m such as 30s, not `{text}`"))
}

/// What Go has in a field that nobody has set.
fn is_nothing(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Number(number) => number.as_f64() == Some(0.0),
        Json::String(text) => text.is_empty(),
        Json::Array(list) => list.is_empty(),
        Json::Bool(_) | Json::Object(_) => false,
    }
}
