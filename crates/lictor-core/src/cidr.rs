//! Ranges of IP addresses (RFC 4632; RFC 4291, section 2.3), and sets of them. An IPv4 address that is written as one of
//! IPv6 (`::ffff:192.0.2.1`; RFC 4291, section 2.5.5.2) is the IPv4 address, on both sides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The first and the last address of a range, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    first: IpAddr,
    last: IpAddr,
}

/// Any of these: ranges that do not overlap, in order, so that a look-up is a binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cidrs(Box<[Cidr]>);

impl FromStr for Cidr {
    type Err = String;

    /// `192.0.2.0/24`, `2001:db8::/32`, or an address alone; in words why not.
    fn from_str(text: &str) -> Result<Self, String> {
        let not_one = || format!("`{text}` is not a range of addresses: write `192.0.2.0/24`, or an address");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| not_one())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(digits) if !digits.starts_with('0') || digits == "0" => digits
                .bytes()
                .all(|digit| digit.is_ascii_digit())
                .then(|| digits.parse().ok())
                .flatten()
                .ok_or_else(not_one)?,
            Some(_) => return Err(not_one()),
        };
        if bits > most {
            return Err(format!("`{text}`: an address has {most} bits"));
        }
        let (address, bits) = match address.to_canonical() {
            folded @ IpAddr::V4(_) if address.is_ipv6() && bits >= 96 => (folded, bits - 96),
            _ => (address, bits),
        };
        let range = Self::of(address, bits);
        if range.first == address {
            return Ok(range);
        }
        Err(format!("`{text}` has bits behind the first {bits}: did you mean `{}/{bits}`?", range.first))
    }
}

impl Cidr {
    fn of(address: IpAddr, bits: u8) -> Self {
        match address {
            IpAddr::V4(address) => {
                let rest = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
                let first = u32::from(address) & !rest;
                Self { first: Ipv4Addr::from(first).into(), last: Ipv4Addr::from(first | rest).into() }
            }
            IpAddr::V6(address) => {
                let rest = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
                let first = u128::from(address) & !rest;
                Self { first: Ipv6Addr::from(first).into(), last: Ipv6Addr::from(first | rest).into() }
            }
        }
    }
}

impl FromIterator<Cidr> for Cidrs {
    fn from_iter<I: IntoIterator<Item = Cidr>>(ranges: I) -> Self {
        let mut sorted: Vec<Cidr> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<Cidr> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.first <= last.last => last.last = last.last.max(range.last),
                _ => merged.push(range),
            }
        }
        Self(merged.into())
    }
}

impl Cidrs {
    /// Whether the address is in one of them.
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let after = self.0.partition_point(|range| range.first <= address);
        after.checked_sub(1).is_some_and(|at| address <= self.0[at].last)
    }

    /// Whether all that is in the others is in these.
    pub fn covers(&self, others: &Self) -> bool {
        others.0.iter().all(|other| self.0.iter().any(|own| own.first <= other.first && other.last <= own.last))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(texts: &[&str]) -> Cidrs {
        texts.iter().map(|text| text.parse::<Cidr>().unwrap()).collect()
    }

    #[test]
    fn an_address_is_within_a_range_or_not() {
        let rows: [(&[&str], &[&str], &[&str]); 7] = [
            (&[], &[], &["127.0.0.1", "::1"]),
            (&["192.0.2.0/24"], &["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.7"], &["192.0.1.255", "192.0.3.0", "::"]),
            (&["192.0.2.7"], &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]),
            (&["::ffff:192.0.2.0/120"], &["192.0.2.9", "::ffff:192.0.2.9"], &["192.0.3.0"]),
            (&["0.0.0.0/0"], &["0.0.0.0", "255.255.255.255"], &["::", "::1"]),
            (&["::/0"], &["::", "2001:db8::1"], &["192.0.2.1", "::ffff:192.0.2.1"]),
            (
                &["198.51.100.0/25", "192.0.2.0/24", "198.51.100.64/26", "2001:db8::/32", "192.0.2.8/32"],
                &["192.0.2.200", "198.51.100.127", "2001:db8:ffff::"],
                &["198.51.100.128", "2001:db9::", "10.0.0.1"],
            ),
        ];
        for (ranges, within, without) in rows {
            let set = cidrs(ranges);
            for address in within {
                assert!(set.has(address.parse().unwrap()), "{address} in {ranges:?}");
            }
            for address in without {
                assert!(!set.has(address.parse().unwrap()), "{address} not in {ranges:?}");
            }
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/8/8",
            "10.0.0",
            "10.0.0.1/8",
            "010.0.0.0/8",
            "2001:db8::1/32",
            "::/129",
            "[::1]",
            "localhost",
            "*",
            " 10.0.0.0/8",
            "fe80::1%eth0",
            "::ffff:192.0.2.1/120",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        assert!("10.0.0.1/8".parse::<Cidr>().unwrap_err().contains("`10.0.0.0/8`"));
    }

    #[test]
    fn more_ranges_cover_fewer() {
        let rows: [(&[&str], &[&str], bool); 5] = [
            (&["10.0.0.0/8"], &["10.1.0.0/16", "10.2.0.0/16"], true),
            (&["10.1.0.0/16"], &["10.0.0.0/8"], false),
            (&["10.0.0.0/9", "10.64.0.0/10"], &["10.0.0.0/9"], true),
            (&[], &[], true),
            (&["::/0"], &["10.0.0.0/8"], false),
        ];
        for (own, others, expected) in rows {
            assert_eq!(cidrs(own).covers(&cidrs(others)), expected, "{own:?} {others:?}");
        }
    }
}
