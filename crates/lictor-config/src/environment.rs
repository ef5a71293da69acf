//! What a configuration may see of its surroundings, captured once. What the variables mean is for others to say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Which environment a process runs in, as other programs are told.
pub(crate) const STAGES: [&str; 3] = ["ENVIRONMENT", "APP_ENV", "NODE_ENV"];

/// What a configuration may see of its surroundings, captured once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Variables.
    pub vars: BTreeMap<String, String>,
    /// This machine's name.
    pub hostname: String,
}

impl Environment {
    /// This process's. A value that is not UTF-8 has [U+FFFD](char::REPLACEMENT_CHARACTER) where it is not, so that
    /// whoever reads it can tell; a name that is not is nobody's.
    pub fn process() -> Self {
        let vars: BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let hostname = hostname(vars.get("HOSTNAME").map(String::as_str), kernel.as_deref());
        Self { vars, hostname }
    }

    /// The environment that this process runs in, such as `production`, with the variable that says so: the first of those
    /// that older services have ([`STAGES`]) whose value may be part of a file's name.
    pub fn stage(&self) -> Option<(&'static str, &str)> {
        let mut said = STAGES.iter().filter_map(|name| Some((*name, self.var(name)?.trim())));
        said.find(|(_, value)| is_plain_word(value))
    }

    /// Those that come before it, and say no such thing.
    pub(crate) fn not_stages(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let said = STAGES.iter().filter_map(|name| Some((*name, self.var(name)?.trim())));
        said.take_while(|(_, value)| !is_plain_word(value)).filter(|(_, value)| !value.is_empty())
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.var(name).is_some_and(|value| matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes"))
    }

    /// Fills `${VAR}` and `${VAR:-default}` in, and notes the names; `$${` is a plain `${`. Names in lower case are left for
    /// their key.
    pub(crate) fn fill(&self, text: &str, named: &mut BTreeSet<String>) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            let end = after.find('}').ok_or_else(|| "`${` without `}`".to_owned())?;
            let (expression, tail) = (&after[..end], &after[end + 1..]);
            let (name, default) = match expression.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (expression, None),
            };
            if let Some(before) = before.strip_suffix('$') {
                filled.push_str(before);
                filled.push_str(&format!("${{{expression}}}"));
            } else if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
                filled.push_str(before);
                filled.push_str(&format!("${{{expression}}}"));
            } else {
                filled.push_str(before);
                named.insert(name.to_owned());
                let value = self.var(name);
                if value.is_some_and(|value| !is_unicode(value)) {
                    return Err(format!("{name} in the environment is not UTF-8"));
                }
                let value = value.or(default);
                filled.push_str(value.ok_or_else(|| format!("the environment has no {name}"))?);
            }
            rest = tail;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// This machine's name: the variable's, or the kernel's where the variable says none of a machine. Images set it to where
/// their server is to listen, such as `0.0.0.0`, and then all their instances would have one id.
fn hostname(variable: Option<&str>, kernel: Option<&str>) -> String {
    let mut names = [variable, kernel].into_iter().flatten().map(str::trim);
    names.find(|name| is_name_of_machine(name)).unwrap_or("localhost").to_owned()
}

fn is_name_of_machine(name: &str) -> bool {
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    let is_loopback = |ip: IpAddr| ip.is_unspecified() || ip.to_canonical().is_loopback();
    let is_nobody = matches!(lower.as_str(), "" | "localhost" | "localhost.localdomain" | "(none)" | "none" | "*")
        || lower.trim_matches(['[', ']']).parse().is_ok_and(is_loopback);
    !is_nobody && is_unicode(name) && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
}

/// Letters, digits, `-` and `_`, and not many.
fn is_plain_word(value: &str) -> bool {
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !value.is_empty() && value.len() <= 64 && value.bytes().all(is_of_word)
}

/// Whether a variable is a secret of lictor's, which the application beside it gets only where that is said (`app.inherit`):
/// whoever has it commands the sidecar, or has what this service may do in Consul.
pub fn is_withheld(name: &str) -> bool {
    let is_secret = ["_TOKEN", "_TOKEN_FILE", "_AUTH"].iter().any(|end| name.ends_with(end));
    is_secret && (name.starts_with("LICTOR_") || name.starts_with("CONSUL_HTTP_"))
}

/// Whether it was UTF-8.
pub(crate) fn is_unicode(value: &str) -> bool {
    !value.contains(char::REPLACEMENT_CHARACTER)
}

/// Variables of older services lie under the file; all others over it.
pub(crate) fn is_under(name: &str) -> bool {
    OLDER.contains(&name)
}

/// Those that are read.
pub(crate) const OLDER: [&str; 19] = [
    "APP_NAME",
    "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
    "CIRCUIT_BREAKER_RECOVERY_TIMEOUT",
    "CONSUL_HOST",
    "CONSUL_PORT",
    "INTERNAL_SERVICE_TOKEN",
    "LOG_LEVEL",
    "PORT",
    "RATE_LIMIT_AUTH_REQUESTS",
    "RATE_LIMIT_AUTH_WINDOW",
    "RATE_LIMIT_DEFAULT_REQUESTS",
    "RATE_LIMIT_DEFAULT_WINDOW",
    "RETRY_MAX_ATTEMPTS",
    "SERVICE_DISCOVERY_CACHE_TTL",
    "SERVICE_HOST",
    "SERVICE_NAME",
    "SERVICE_PORT",
    "SERVICE_TOKEN",
    "SERVICE_VERSION",
];

/// Whether a variable's name is not lictor's alone.
pub(crate) fn is_others(name: &str) -> bool {
    // Not to heed a token would open what it keeps shut.
    !name.starts_with("LICTOR_") && name != "INTERNAL_SERVICE_TOKEN"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_names_no_machine_is_not_its_name() {
        let useless =
            ["", " ", "0.0.0.0", "::", "[::]", "localhost", "LOCALHOST.", "127.0.0.1", "::1", "(none)", "*", "a b"];
        for useless in useless.into_iter().chain(["localhost.localdomain", "a/b", "\u{FFFD}"]) {
            assert_eq!(hostname(Some(useless), Some("kernel\n")), "kernel", "{useless:?}");
            assert_eq!(hostname(Some(useless), Some(useless)), "localhost", "{useless:?}");
        }
        for name in ["web-1", "10.0.0.1", "web.example", "fd00::5", "0"] {
            assert_eq!(hostname(Some(&format!(" {name}\n")), Some("kernel")), name);
        }
        assert_eq!(hostname(None, Some("kernel\n")), "kernel");
        assert_eq!(hostname(None, None), "localhost");
    }

    #[test]
    fn variables_are_filled_in() {
        let env = Environment { vars: [("PORT".to_owned(), "3001".to_owned())].into(), hostname: "host".to_owned() };
        let fill = |text: &str| {
            let mut named = BTreeSet::new();
            env.fill(text, &mut named).map(|filled| (filled, named.into_iter().collect::<Vec<_>>().join(" ")))
        };
        let filled = |text: &str, named: &str| Ok((text.to_owned(), named.to_owned()));
        assert_eq!(fill("a ${PORT} b"), filled("a 3001 b", "PORT"));
        assert_eq!(fill("${NONE:-x}${PORT:-y}"), filled("x3001", "NONE PORT"));
        assert_eq!(fill("$${PORT} ${service}"), filled("${PORT} ${service}", ""));
        assert!(fill("${NONE}").unwrap_err().contains("NONE"));
        assert!(fill("${PORT").is_err());
    }
}
