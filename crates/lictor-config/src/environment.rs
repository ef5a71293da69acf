//! What a configuration may see of its surroundings, captured once. What the variables mean is for others to say.

use std::collections::BTreeMap;

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
        let from_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let hostname = vars.get("HOSTNAME").filter(|name| !name.trim().is_empty() && is_unicode(name)).cloned();
        let hostname = hostname.or_else(from_kernel).unwrap_or_else(|| "localhost".to_owned());
        Self { vars, hostname: hostname.trim().to_owned() }
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.var(name).is_some_and(|value| matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes"))
    }

    /// Fills `${VAR}` and `${VAR:-default}` in; `$${` is a plain `${`. Names in lower case are left for their key.
    pub(crate) fn fill(&self, text: &str) -> Result<String, String> {
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

/// Whether it was UTF-8.
pub(crate) fn is_unicode(value: &str) -> bool {
    !value.contains(char::REPLACEMENT_CHARACTER)
}

/// Whether a variable's name is not lictor's alone.
pub(crate) fn is_others(name: &str) -> bool {
    // Not to heed a token would open what it keeps shut.
    !name.starts_with("LICTOR_") && name != "INTERNAL_SERVICE_TOKEN"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let env = Environment { vars: [("PORT".to_owned(), "3001".to_owned())].into(), hostname: "host".to_owned() };
        assert_eq!(env.fill("a ${PORT} b").unwrap(), "a 3001 b");
        assert_eq!(env.fill("${NONE:-x}${PORT:-y}").unwrap(), "x3001");
        assert_eq!(env.fill("$${PORT} ${service}").unwrap(), "${PORT} ${service}");
        assert!(env.fill("${NONE}").unwrap_err().contains("NONE"));
        assert!(env.fill("${PORT").is_err());
    }
}
