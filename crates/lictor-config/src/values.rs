//! Durations, sizes, shares and addresses as people write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

/// `host:port`, the host a name or an address, of IPv6 with brackets or without; as it stands in a URL.
pub(crate) fn host_port(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not `host:port`");
    let (written, port) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    Ok(authority(host(written).ok_or_else(wrong)?, port))
}

/// `host`, or `host:port`. An address of IPv6 without brackets may be followed by a port, as `http://$(HOST_IP):8500`
/// becomes where hosts have such addresses; what could be meant in two ways is refused, unless it ends as Consul's
/// addresses do.
pub(crate) fn host_and_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let wrong = || format!("`{text}` is not a host, nor `host:port`");
    let Some((before, last)) = text.rsplit_once(':') else {
        return Ok((host(text).ok_or_else(wrong)?, None));
    };
    if text.ends_with(']') {
        return Ok((host(text).ok_or_else(wrong)?, None));
    }
    let is_digits = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let port = last.parse::<u16>().ok().filter(|port| is_digits && *port != 0);
    let is_whole = text.parse::<Ipv6Addr>().is_ok();
    match port.filter(|_| host(before).is_some()) {
        Some(port) if !is_whole || CONSUL_PORTS.contains(&port) => Ok((host(before).ok_or_else(wrong)?, Some(port))),
        Some(port) => Err(format!("`{text}` could mean port {port} or not: write `[{before}]:{port}` or `[{text}]`")),
        None if is_whole => Ok((text, None)),
        None if host(before).is_some() => Err(format!("`{last}` is not a port")),
        None => Err(wrong()),
    }
}

/// Those that an agent's HTTP and HTTPS have where nobody says otherwise.
const CONSUL_PORTS: [u16; 2] = [8500, 8501];

/// A name or an address, without brackets if it had some.
pub(crate) fn host(text: &str) -> Option<&str> {
    if let Some(inside) = text.strip_prefix('[') {
        let inside = inside.strip_suffix(']')?;
        return inside.parse::<IpAddr>().is_ok().then_some(inside);
    }
    let is_ipv6 = text.parse::<Ipv6Addr>().is_ok();
    let is_wrong = |c: char| c.is_whitespace() || c.is_control() || "/@,:[]?#%\\".contains(c);
    (is_ipv6 || (!text.is_empty() && !text.contains(is_wrong))).then_some(text)
}

/// Host and port as they stand in a URL: an address of IPv6 has brackets (RFC 3986, section 3.2.2).
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether a URL has `user:password@` (RFC 3986, section 3.2.1). Such a one is not repeated in a message.
pub(crate) fn names_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// `%20` is a space (RFC 3986, section 2.1; W3C Baggage). What is not valid that way is taken as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
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

    #[test]
    fn hosts_of_both_families_with_ports_and_without() {
        for (text, expected) in [
            ("consul", Some(("consul", None))),
            ("consul:8510", Some(("consul", Some(8510)))),
            ("10.0.0.1:80", Some(("10.0.0.1", Some(80)))),
            ("[10.0.0.1]:80", Some(("10.0.0.1", Some(80)))),
            ("[fd00::5]", Some(("fd00::5", None))),
            ("[fd00::5]:80", Some(("fd00::5", Some(80)))),
            ("[fd00::5:8500]", Some(("fd00::5:8500", None))),
            ("fd00::5", Some(("fd00::5", None))),
            ("::1", Some(("::1", None))),
            ("::ffff:10.0.0.1", Some(("::ffff:10.0.0.1", None))),
            ("fd00::5:8500", Some(("fd00::5", Some(8500)))),
            ("fd00::5:8501", Some(("fd00::5", Some(8501)))),
            ("fd00:1:2:3:4:5:6:7", Some(("fd00:1:2:3:4:5:6:7", None))),
            ("fd00:1:2:3:4:5:6:7:80", Some(("fd00:1:2:3:4:5:6:7", Some(80)))),
            ("fd00::5:abc", Some(("fd00::5:abc", None))),
            ("fd00::5:80", None), // either
            ("fd00::5:99999", None),
            ("consul:", None),
            ("consul:0", None),
            ("consul:+80", None),
            ("a:b:80", None),
            ("[consul]:80", None),
            ("[fd00::5", None),
            ("fd00::5]", None),
            ("fe80::1%eth0", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(host_and_port(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("::1:80", Some("[::1]:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("fd00::5:81", Some("[fd00::5]:81")), // a port there has to be
            ("a.example:80", Some("a.example:80")),
            ("[::1]", None),
            ("::1", None),
            ("a:b:80", None),
        ] {
            assert_eq!(host_port(text).ok().as_deref(), expected, "{text}");
        }
    }
}
