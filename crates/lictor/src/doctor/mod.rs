//! `lictor doctor`: would this configuration work, here, now, with this Consul?
//!
//! Everything is asked, and nothing changed: no registration, no key. [`Code`] is the closed set of what can be found;
//! [`machine`] looks around here, [`consul`] asks the agent about itself, [`registration`] about us, [`services`] about
//! what we call.

mod certificates;
mod code;
mod consul;
mod machine;
mod registration;
mod services;

use lictor_config::{Environment, Loaded, Report, Severity as Gravity};
use lictor_consul::Agent;
use serde::Serialize;

pub(crate) use code::{Code, Severity};

/// Something that was found.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    /// The key, address, file or service that it is about.
    pub(crate) subject: String,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do.
    pub(crate) fix: String,
}

/// What was found, worst first, and of which Consul.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    pub(crate) consul: Option<Seen>,
}

/// The Consul that answered.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    pub(crate) address: String,
    /// `None` where the token may not ask.
    pub(crate) version: Option<String>,
    pub(crate) leader: String,
}

impl Findings {
    fn add(&mut self, code: Code, subject: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) {
        self.list.push(Finding { code, subject: subject.into(), what: what.into(), fix: fix.into() });
    }

    /// Worst first; within that by number.
    pub(crate) fn sorted(&self) -> Vec<&Finding> {
        let mut list: Vec<&Finding> = self.list.iter().collect();
        list.sort_by_key(|finding| (finding.code.severity(), finding.code.number()));
        list
    }

    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|finding| finding.code.severity() == severity).count()
    }
}

/// Looks at everything.
pub(crate) async fn examine(loaded: &Loaded, env: &Environment) -> Findings {
    let mut found = Findings::default();
    let config = &loaded.config;
    told(&mut found, &loaded.warnings);
    machine::examine(&mut found, config, env).await;
    match Agent::new(&config.consul) {
        Ok(None) => (),
        Ok(Some(mut agent)) => {
            if let Some(granted) = consul::examine(&mut found, &mut agent, config).await {
                registration::examine(&mut found, &mut agent, config).await;
                services::examine(&mut found, &mut agent, config, &granted).await;
            }
        }
        Err(error) => found.add(Code::TlsUnusable, "consul", error.to_string(), "name files that lictor can read"),
    }
    services::resolve(&mut found, config).await;
    found
}

/// A configuration that is not good enough to be looked at.
pub(crate) fn refused(report: &Report) -> Findings {
    let mut found = Findings::default();
    told(&mut found, report);
    found
}

fn told(found: &mut Findings, report: &Report) {
    for diagnostic in &report.0 {
        let code = match diagnostic.severity {
            Gravity::Error => Code::ConfigRefused,
            Gravity::Warning if diagnostic.message.contains(Code::ShortDeregister.number()) => Code::ShortDeregister,
            Gravity::Warning => Code::ConfigWarns,
        };
        let help = diagnostic.help.clone().unwrap_or_else(|| "`lictor check` shows the place".to_owned());
        found.add(code, diagnostic.path.clone(), format!("{}: {}", diagnostic.place, diagnostic.message), help);
    }
}
