//! What Consul refuses in a registration, however often it is asked, and what it takes and cannot give back: told
//! before it is asked. Pure; each rule is Consul's own (CONSUL: agent/structs, ValidateServiceMetadata, ValidateWeights,
//! CheckType.Validate; agent/agent_endpoint.go, AgentRegisterService), and `tests/registrations.rs` of lictor-consul
//! puts many registrations both to these and to a real agent.

use std::collections::BTreeMap;
use std::time::Duration;

/// CONSUL: agent/structs/catalog.go, metaMaxKeyPairs.
pub const META_PAIRS: usize = 64;
/// Bytes of a value; CONSUL: metaValueMaxLength.
pub const META_VALUE: usize = 512;
/// Bytes of a key; CONSUL: metaKeyMaxLength.
const META_KEY: usize = 128;
/// CONSUL: metaKeyReservedPrefix.
const RESERVED: &str = "consul-";
/// Bytes of a key of KV; Consul has no bound of its own, its URLs have.
const KV_KEY: usize = 512;
/// DNS has no more room for a weight (RFC 2782).
pub(crate) const WEIGHT_MAX: u32 = 65_535;

/// Why a key of Meta is refused.
pub(crate) fn meta_key(key: &str) -> Result<(), String> {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(format!("`{key}` is no key of Consul's Meta: letters, digits, `-` and `_`"));
    }
    if key.len() > META_KEY {
        return Err(format!("Consul refuses keys of Meta that are longer than {META_KEY} bytes"));
    }
    if key.starts_with(RESERVED) {
        return Err(format!("`{key}` is refused: `{RESERVED}` is Consul's own"));
    }
    Ok(())
}

/// Why a value of Meta is refused.
pub(crate) fn meta_value(value: &str) -> Result<(), String> {
    if value.len() > META_VALUE {
        return Err(format!(
            "Consul refuses values of Meta that are longer than {META_VALUE} bytes: this has {}",
            value.len()
        ));
    }
    Ok(())
}

/// Why so many pairs of Meta are refused.
pub(crate) fn meta_pairs(count: usize) -> Result<(), String> {
    if count > META_PAIRS {
        Err(format!("Consul refuses more than {META_PAIRS} pairs of Meta: these are {count}"))
    } else {
        Ok(())
    }
}

/// Why these pairs of Meta are refused.
pub fn check_meta(pairs: &BTreeMap<String, String>) -> Result<(), String> {
    pairs.iter().try_for_each(|(key, value)| meta_key(key).and_then(|()| meta_value(value)))?;
    meta_pairs(pairs.len())
}

/// Why a key of KV is refused. Consul's paths are cleaned as files' are: what is not clean would be another key.
pub fn kv_key(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > KV_KEY {
        return Err(format!("a key of KV has 1 to {KV_KEY} bytes"));
    }
    if key.chars().any(char::is_control) {
        return Err("a key of KV has no control characters".to_owned());
    }
    if key.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("`{key}` is no key of KV: between two `/` stands a name, and none is `.` or `..`"));
    }
    Ok(())
}

/// Why an interval between checks is refused. Consul is told whole milliseconds.
pub(crate) fn interval(interval: Duration) -> Result<(), String> {
    if interval.as_millis() == 0 { Err("Consul refuses checks without an interval".to_owned()) } else { Ok(()) }
}

/// Why an instance's id is refused. Consul takes any, and then finds some of them no more: its paths are cleaned as files'
/// are (Go: net/http, ServeMux), and some lead elsewhere.
pub(crate) fn id(id: &str) -> Result<(), String> {
    let is_clean = !id.starts_with('/') && !id.contains("//") && !id.split('/').any(|part| matches!(part, "." | ".."));
    let is_elsewhere = id == "register" || id.starts_with("deregister/") || id.starts_with("maintenance/");
    if !is_clean || is_elsewhere {
        return Err(format!(
            "Consul takes the id `{id}` and can then neither find nor deregister it: it reads it as a path"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_consuls() {
        let key = |length: usize| meta_key(&"k".repeat(length)).is_ok();
        assert!(key(1) && key(128) && !key(0) && !key(129));
        for (name, is_fine) in [
            ("version", true),
            ("a_B-9", true),
            ("a.b", false),
            ("a b", false),
            ("é", false),
            ("consul-x", false),
            ("Consul-x", true),
        ] {
            assert_eq!(meta_key(name).is_ok(), is_fine, "{name}");
        }
        // Bytes, not characters.
        assert!(meta_value(&"é".repeat(256)).is_ok() && meta_value(&"é".repeat(257)).is_err());
        assert!(meta_pairs(64).is_ok() && meta_pairs(65).is_err());
        let pairs = |pairs: &[(&str, &str)]| {
            check_meta(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()).is_ok()
        };
        assert!(pairs(&[("a", "b")]) && !pairs(&[("a.b", "c")]) && !pairs(&[("a", &"v".repeat(513))]));
        for (key, is_fine) in [
            ("a", true),
            ("a/b c/é", true),
            ("a..b", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("a//b", false),
            ("a/../b", false),
            ("./a", false),
            ("a\nb", false),
        ] {
            assert_eq!(kv_key(key).is_ok(), is_fine, "{key:?}");
        }
        assert!(kv_key(&"k".repeat(512)).is_ok() && kv_key(&"k".repeat(513)).is_err());
        assert!(interval(Duration::from_millis(1)).is_ok() && interval(Duration::from_micros(999)).is_err());
        for (text, is_fine) in [
            ("web-1", true),
            ("a/b", true),
            ("a/", true),
            ("a..b", true),
            ("é b", true),
            ("..", false),
            ("a/./b", false),
            ("a//b", false),
            ("/a", false),
            ("register", false),
            ("maintenance/a", false),
            ("maintenance", true),
        ] {
            assert_eq!(id(text).is_ok(), is_fine, "{text}");
        }
    }
}
