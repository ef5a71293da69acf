//! A saga: steps of services in their order, and when one fails, the compensations of those before it in reverse order. This is what it
//! is and what comes next; who calls, and where it is kept, is elsewhere.
//!
//! There is one action at a time. It is begun before it is called and ends with what was heard of it, so that whoever finds a saga that
//! another process has left knows which action may have had its effect: it does that one again, with the same idempotency key.

mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::plan::Step;
pub use self::plan::{BODY_MAX, Plan, check_id};

/// A compensation is tried for so many times a step's own time: what is not undone is work for people.
const UNDO_TIMES: u32 = 10;
/// Of a reason that is kept, in bytes.
const REASON_MAX: usize = 400;

/// A saga as it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saga {
    id: String,
    status: Status,
    /// Of the steps that were asked for: whoever asks for the same id means the same.
    digest: String,
    started_ms: u64,
    changed_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    steps: Vec<Standing>,
}

/// What a list says of one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Headline {
    /// Its id.
    pub id: String,
    /// How it stands.
    pub status: Status,
    /// When it became so, in milliseconds since 1970.
    pub changed_ms: u64,
}

/// How a saga stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its steps are being done.
    Running,
    /// One has failed, and those before it are being undone.
    Compensating,
    /// All steps are done.
    Completed,
    /// One has failed, and all that can be undone is.
    Failed,
    /// A compensation has failed: people have to look.
    Manual,
}

impl Status {
    /// As pages have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Manual => "manual",
        }
    }

    /// Nothing happens by itself any more.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Running | Self::Compensating => false,
            Self::Completed | Self::Failed | Self::Manual => true,
        }
    }
}

/// A step, and how far it has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Standing {
    what: Named,
    /// As it came, until nothing is left to do; nothing is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Payload>,
    timeout_ms: u64,
    did: Did,
    undid: Undid,
}

/// What of a step everybody may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name among the steps.
    pub name: String,
    /// The upstream that it is of.
    pub service: String,
    /// Below `/api/`.
    pub action: String,
    /// The same, for what undoes it.
    pub compensation: Option<String>,
}

/// How far the step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Did {
    Waiting,
    /// It may have been called.
    Doing,
    Done,
    /// It had no effect.
    Refused,
    /// It may have had its effect.
    Unknown,
}

/// How far its compensation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Undid {
    No,
    /// It may have been called.
    Doing,
    Done,
    /// There is none.
    Skipped,
    Stuck,
}

impl Standing {
    fn new(step: Step) -> Self {
        let Step { what, payload, timeout } = step;
        let timeout_ms = timeout.as_millis() as u64;
        Self { what, payload: Some(payload), timeout_ms, did: Did::Waiting, undid: Undid::No }
    }

    /// Something of it may be there that is to be undone.
    fn is_there(&self) -> bool {
        matches!(self.did, Did::Done | Did::Unknown) && !matches!(self.undid, Undid::Done | Undid::Skipped)
    }
}

/// What is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// Which step.
    pub step: usize,
    /// Its compensation.
    pub is_undo: bool,
}

/// A call of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Of which saga.
    pub saga: String,
    /// The upstream.
    pub service: String,
    /// Its path.
    pub path: String,
    /// The same for each try of the same action, and for no other.
    pub key: String,
    /// The payload, as it came.
    pub body: String,
    /// For all tries together.
    pub within: Duration,
}

/// What was heard of an action in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is done.
    Done,
    /// It is not, and had no effect; in words.
    Refused(String),
    /// Nobody knows; in words.
    Unknown(String),
}

/// What one answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It is not, and had no effect.
    Refused,
    /// It may be, or not: the same again.
    Again,
}

/// What an answer of this status says. `is_repeat`: the same may have been asked before.
pub fn judge(status: u16, is_repeat: bool) -> Verdict {
    match status {
        200..=299 => Verdict::Done,
        // 421 is lictor's own: nothing was sent. The others ask for another try (RFC 9110, 15.5.9; RFC 8470; RFC 6585).
        408 | 421 | 425 | 429 => Verdict::Again,
        // Whoever still works on the first one says so of the second (draft-ietf-httpapi-idempotency-key-header, 2.6).
        409 if is_repeat => Verdict::Again,
        400..=499 => Verdict::Refused,
        _ => Verdict::Again,
    }
}

impl Saga {
    /// One of which nothing is done yet; the time is in milliseconds since 1970.
    pub fn new(id: String, plan: Plan, now_ms: u64) -> Self {
        let (digest, steps) = (plan.digest(), plan.steps.into_iter().map(Standing::new).collect());
        Self { id, status: Status::Running, digest, started_ms: now_ms, changed_ms: now_ms, reason: None, steps }
    }

    /// As it is kept. The words say why it is none.
    pub fn read(kept: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(kept).map_err(|error| error.to_string())
    }

    /// What is kept of it.
    pub fn kept(&self) -> String {
        serde_json::to_string(self).expect("it is text, numbers and names")
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.status
    }

    /// When it began, and when it became what it is.
    pub fn times_ms(&self) -> [u64; 2] {
        [self.started_ms, self.changed_ms]
    }

    /// Why it is not what it should be.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether these steps are its own.
    pub fn is_of(&self, plan: &Plan) -> bool {
        self.digest == plan.digest()
    }

    /// Something may have been called already.
    pub fn is_begun(&self) -> bool {
        self.steps.iter().any(|step| step.did != Did::Waiting)
    }

    /// Its steps.
    pub fn steps(&self) -> impl Iterator<Item = &Named> {
        self.steps.iter().map(|step| &step.what)
    }

    /// How many steps are done, from the first on.
    pub fn current(&self) -> usize {
        self.steps.iter().take_while(|step| step.did == Did::Done).count()
    }

    /// Steps that were done, whatever became of them.
    pub fn completed(&self) -> Vec<&str> {
        self.named(|step| step.did == Did::Done)
    }

    /// The step that was not done, or of which nobody knows.
    pub fn failed(&self) -> Vec<&str> {
        self.named(|step| matches!(step.did, Did::Refused | Did::Unknown))
    }

    /// Steps that are undone, in the order of that.
    pub fn compensated(&self) -> Vec<&str> {
        let mut names = self.named(|step| step.undid == Undid::Done);
        names.reverse();
        names
    }

    /// Steps that have to be undone, in the order of that.
    pub fn remaining(&self) -> Vec<&str> {
        let is_undone = matches!(self.status, Status::Compensating | Status::Manual);
        let mut names = self.named(|step| is_undone && step.is_there() && step.what.compensation.is_some());
        names.reverse();
        names
    }

    fn named(&self, claim: impl Fn(&Standing) -> bool) -> Vec<&str> {
        self.steps.iter().filter(|step| claim(step)).map(|step| step.what.name.as_str()).collect()
    }

    /// What comes next; `None`: it has ended.
    pub fn next(&self) -> Option<Action> {
        match self.status {
            Status::Running => {
                let step = self.steps.iter().position(|step| step.did != Did::Done)?;
                Some(Action { step, is_undo: false })
            }
            Status::Compensating => {
                let step = self.steps.iter().rposition(Standing::is_there)?;
                Some(Action { step, is_undo: true })
            }
            Status::Completed | Status::Failed | Status::Manual => None,
        }
    }

    /// Whether the next action may have been called already, by us or by whoever had it before.
    pub fn is_repeat(&self) -> bool {
        self.next().is_some_and(|Action { step, is_undo }| {
            let step = &self.steps[step];
            if is_undo { step.undid == Undid::Doing } else { step.did == Did::Doing }
        })
    }

    /// The next action is about to be called. Whatever happens from now on, it may have had its effect.
    pub fn begin(&mut self, now_ms: u64) {
        let Some(Action { step, is_undo }) = self.next() else { return };
        let step = &mut self.steps[step];
        if is_undo {
            step.undid = Undid::Doing;
        } else {
            step.did = Did::Doing;
        }
        self.changed(now_ms);
    }

    /// How an action is called.
    pub fn call(&self, action: Action) -> Option<Call> {
        let step = self.steps.get(action.step)?;
        let Named { name, service, action: path, compensation } = &step.what;
        let (path, word) = if action.is_undo { (compensation.as_ref()?, "undo") } else { (path, "do") };
        let timeout = Duration::from_millis(step.timeout_ms);
        Some(Call {
            saga: self.id.clone(),
            service: service.clone(),
            path: format!("/api/{path}"),
            key: format!("{}:{name}:{word}", self.id),
            body: step.payload.as_ref().map_or("null", |payload| payload.get()).to_owned(),
            within: if action.is_undo { timeout * UNDO_TIMES } else { timeout },
        })
    }

    /// What has become of the action that was begun. Of any other nothing is heard.
    pub fn heard(&mut self, action: Action, heard: Heard, now_ms: u64) {
        if self.next() != Some(action) || !self.is_repeat() {
            return;
        }
        let step = &mut self.steps[action.step];
        let words = match (action.is_undo, heard) {
            (false, Heard::Done) => {
                step.did = Did::Done;
                None
            }
            (false, Heard::Refused(why)) => {
                (step.did, self.status) = (Did::Refused, Status::Compensating);
                Some(format!("step `{}`: {why}", step.what.name))
            }
            (false, Heard::Unknown(why)) => {
                (step.did, self.status) = (Did::Unknown, Status::Compensating);
                let ending = if step.what.compensation.is_some() { "" } else { "; it has no compensation" };
                Some(format!("step `{}`: {why}; it may have had its effect{ending}", step.what.name))
            }
            (true, Heard::Done) => {
                step.undid = Undid::Done;
                None
            }
            (true, Heard::Refused(why) | Heard::Unknown(why)) => {
                (step.undid, self.status) = (Undid::Stuck, Status::Manual);
                Some(format!("compensation of `{}`: {why}", step.what.name))
            }
        };
        if let Some(words) = words {
            self.explain(&words);
        }
        self.settle();
        self.changed(now_ms);
    }

    /// What a compensation has refused is tried again; whether there is anything of that kind.
    pub fn again(&mut self, now_ms: u64) -> bool {
        if self.status != Status::Manual {
            return false;
        }
        self.status = Status::Compensating;
        for step in self.steps.iter_mut().filter(|step| step.undid == Undid::Stuck) {
            step.undid = Undid::Doing; // it was called
        }
        self.settle();
        self.changed(now_ms);
        true
    }

    /// Passes over what has no compensation, and ends where nothing is left.
    fn settle(&mut self) {
        while let Some(Action { step, is_undo: true }) = self.next() {
            let step = &mut self.steps[step];
            if step.what.compensation.is_some() {
                break;
            }
            step.undid = Undid::Skipped;
        }
        if self.next().is_none() {
            self.status = match self.status {
                Status::Running => Status::Completed,
                Status::Compensating => Status::Failed,
                ended => ended,
            };
        }
        // What nobody sends any more is not kept for a day.
        if matches!(self.status, Status::Completed | Status::Failed) {
            self.steps.iter_mut().for_each(|step| step.payload = None);
        }
    }

    /// The first reason stays: it is the cause of what follows.
    fn explain(&mut self, words: &str) {
        let mut reason = match &self.reason {
            Some(before) if !before.contains(words) => format!("{before}; {words}"),
            Some(before) => before.clone(),
            None => words.to_owned(),
        };
        reason.truncate(reason.floor_char_boundary(REASON_MAX));
        self.reason = Some(reason);
    }

    /// Clocks of two processes differ, and time does not go back.
    fn changed(&mut self, now_ms: u64) {
        self.changed_ms = self.changed_ms.max(now_ms);
    }
}

/// What a list says of what is kept, without reading all of it. The words say why it is none.
pub fn headline(kept: &[u8]) -> Result<Headline, String> {
    serde_json::from_slice(kept).map_err(|error| error.to_string())
}

/// Text of JSON that is kept as it came.
type Payload = Box<RawValue>;
