//! Durations, sizes, shares and addresses as people write them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lictor_core::Address;
use lictor_core::address::AddressError;

/// `500ms`, `10s`, `1m30s`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let Ok(number) = number.parse::<f64>() else { return Err(format!("`{text}` is not a duration")) };
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "" => return Err(format!("`{text}` has no unit: write `{text}s` or `{text}ms`")),
            _ => return Err(format!("`{unit}` is not a unit of time: ms, s, m or h")),
        };
        total += number * seconds;
        rest = after;
    }
    if text.is_empty() || total > 1e9 {
        return Err(format!("`{text}` is not a duration"));
    }
    Ok(Duration::from_micros((total * 1e6).round() as u64))
}

pub(crate) fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    for (unit, size) in [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)] {
        if micros >= size && micros.is_multiple_of(size) {
            return format!("{}{unit}", micros / size);
        }
    }
    if micros == 0 { "0s".to_owned() } else { format!("{micros}us") }
}

/// `64KiB`, `10MB`, `512`: bytes.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        unit => return Err(format!("`{unit}` is not a unit of size: KiB, MiB, KB or MB")),
    };
    let number: usize = number.parse().map_err(|_| format!("`{text}` is not a size: write `64KiB`"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"))
}

pub(crate) fn show_size(bytes: usize) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

/// `20%`, or `0.2`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let percent = text.strip_suffix('%').map(str::trim);
    let (number, scale) = percent.map_or((text, 1.0), |number| (number, 100.0));
    let value: f64 = number.parse().map_err(|_| format!("`{text}` is not a percentage: write `20%`"))?;
    let share = value / scale;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else if percent.is_none() && (1.0..=100.0).contains(&value) {
        Err(format!("`{text}` is more than everything: write `{text}%`"))
    } else {
        Err(format!("`{text}` is not between 0% and 100%"))
    }
}

pub(crate) fn show_share(share: f64) -> String {
    format!("{}%", (share * 1e4).round() / 100.0)
}

/// `3001`, `0.0.0.0:3001`, `[::1]:3001`, `localhost:3001`; a port alone is on `host`.
pub(crate) fn socket(text: &str, host: IpAddr) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(port) = text.parse::<u32>() {
        let port = u16::try_from(port).map_err(|_| format!("`{text}` is not a port: they end at 65535"))?;
        return Ok((host, port).into());
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok()) {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    text.parse().map_err(|_| format!("`{text}` is not an address: write `3001` or `127.0.0.1:3001`"))
}

/// The same, or `unix:/path`.
pub(crate) fn address(text: &str, host: IpAddr) -> Result<Address, String> {
    if text.trim().starts_with("unix:") {
        return text.trim().parse().map_err(|error: AddressError| error.to_string());
    }
    socket(text, host).map(Address::Tcp)
}

/// `host:port`, the host a name or an address.
pub(crate) fn host_port(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not `host:port`");
    let (host, port) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | ','));
    if is_port && is_host { Ok(text.trim().to_owned()) } else { Err(wrong()) }
}

/// Whether a URL has `user:password@` (RFC 3986, section 3.2.1). Such a one is not repeated in a message.
pub(crate) fn names_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("1m30s", 90_000), ("1.5s", 1_500), ("0s", 0)] {
            assert_eq!(duration(text).unwrap().as_millis(), millis, "{text}");
        }
        for wrong in ["", "10", "s", "10 parsecs", "-1s", "1e9s", "9999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for shown in ["500ms", "10s", "90s", "1h", "0s"] {
            assert_eq!(duration(&show_duration(duration(shown).unwrap())), duration(shown));
        }
    }

    #[test]
    fn sizes_and_shares() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(show_size(65_536), "64KiB");
        assert!(size("64XB").is_err() && size("").is_err());
        assert_eq!(share("20%"), Ok(0.2));
        assert_eq!(share("0.2"), Ok(0.2));
        assert!(share("20").unwrap_err().contains("20%"));
        assert!(share("120%").is_err() && share("-1%").is_err() && share("NaN").is_err());
    }

    #[test]
    fn addresses() {
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(socket("3001", local).unwrap().to_string(), "127.0.0.1:3001");
        assert_eq!(socket("[::1]:3001", local).unwrap().to_string(), "[::1]:3001");
        assert!(socket("99999", local).is_err() && socket("user-service", local).is_err());
        assert_eq!(address("unix:/run/a.sock", local).unwrap().to_string(), "unix:/run/a.sock");
        assert!(address("unix:a.sock", local).is_err());
        assert!(host_port("a.example:80").is_ok() && host_port("a.example").is_err() && host_port("a:0").is_err());
    }
}
