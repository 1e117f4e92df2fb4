//! Which addresses are local: by the common rule, and by prefixes that only this host or its user knows of.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use chadthrottle_common::{scope_of_v4, scope_of_v6};

/// What a prefix may look like; part of every message about one that does not.
pub const PREFIX_FORMS: &str = "an address and the number of bits that count: 203.0.113.0/24, 2001:db8:1::/48, or an \
     address alone: 203.0.113.7";

/// A network: the addresses that begin with the same bits. IPv4-mapped IPv6 addresses are IPv4 in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u32,
}

/// A text that is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{typed:?} is not a network: {problem}; give {PREFIX_FORMS}")]
pub struct PrefixError {
    typed: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("{0:?} is not an IP address")]
    Address(String),
    #[error("{typed:?} is not a number of bits from 0 to {most}")]
    Length { typed: String, most: u32 },
    #[error("the address goes on after the bits that count, and the network that it is in is {0}")]
    HostBits(Prefix),
}

impl Prefix {
    /// The network that has the first `length` bits of `address`; the others do not matter. `None` when the address
    /// has not as many.
    #[must_use]
    pub fn around(address: IpAddr, length: u32) -> Option<Self> {
        let (address, length) = match (address.to_canonical(), length.checked_sub(128 - 32)) {
            (IpAddr::V4(inner), Some(length)) if address.is_ipv6() => (inner.into(), length),
            _ => (address, length),
        };
        (length <= width(address)).then(|| Self { address: masked(address, length), length })
    }

    /// Its first address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits its addresses have in common: 0 to 32 or 128.
    #[must_use]
    pub const fn length(self) -> u32 {
        self.length
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }
}

/// Bits of an address.
const fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with nothing but its first `length` bits.
fn masked(address: IpAddr, length: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)).into()
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// A prefix whose address goes on after its length is refused: it may be a slip in either of the two.
    fn from_str(typed: &str) -> Result<Self, PrefixError> {
        let error = |problem| PrefixError { typed: typed.to_owned(), problem };
        let text = typed.trim();
        let (address, length) =
            text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| error(Problem::Address(address.to_owned())))?;
        let most = width(address);
        let bits = match length {
            None => most,
            // Digits alone: `parse` would take a sign.
            Some(length) => Some(length)
                .filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|length| length.parse().ok())
                .filter(|bits| *bits <= most)
                .ok_or_else(|| error(Problem::Length { typed: length.to_owned(), most }))?,
        };
        let prefix = Self::around(address, bits)
            .ok_or_else(|| error(Problem::Length { typed: bits.to_string(), most }))?;
        if masked(address, bits) != address {
            return Err(error(Problem::HostBits(prefix)));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Scope of an address by the common rule: `SCOPE_LOCAL` or `SCOPE_INTERNET`.
#[must_use]
pub fn scope_of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => scope_of_v4(v4.to_bits()),
        IpAddr::V6(v6) => {
            let segments = v6.segments().map(u32::from);
            scope_of_v6(std::array::from_fn(|word| segments[word * 2] << 16 | segments[word * 2 + 1]))
        }
    }
}

#[cfg(test)]
mod tests {
    use chadthrottle_common::scope::VECTORS;
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn without_prefixes_the_common_rule_decides() {
        for &(text, expected) in VECTORS {
            assert_eq!(scope_of(address(text)), expected, "{text}");
        }
    }

    #[test]
    fn prefixes_contain_the_addresses_that_begin_as_they_do() {
        let local = ["203.0.113.0/24", "2001:db8:1::/48", "198.51.100.7"]
            .map(|text| text.parse::<Prefix>().expect("a prefix"));
        let is_in = |address| local.iter().any(|prefix| prefix.contains(address));
        let inside =
            ["203.0.113.0", "203.0.113.255", "::ffff:203.0.113.9", "2001:db8:1:ffff::1", "198.51.100.7"];
        for text in inside {
            assert!(is_in(address(text)), "{text}");
        }
        for text in ["203.0.112.255", "203.0.114.0", "2001:db8:2::", "198.51.100.6", "::203.0.113.9"] {
            assert!(!is_in(address(text)), "{text}");
        }
    }

    #[test]
    fn a_prefix_of_everything_is_one_of_its_own_family() {
        let all: Prefix = "0.0.0.0/0".parse().expect("a prefix");
        assert!(all.contains(address("255.255.255.255")) && !all.contains(address("::1")));
        let all: Prefix = "::/0".parse().expect("a prefix");
        assert!(all.contains(address("2001:db8::1")) && !all.contains(address("::ffff:1.1.1.1")));
    }

    #[test]
    fn an_ipv4_mapped_prefix_is_the_ipv4_one() {
        let mapped: Prefix = "::ffff:203.0.113.0/120".parse().expect("a prefix");
        assert_eq!(mapped.to_string(), "203.0.113.0/24");
    }

    #[test]
    fn a_slip_is_told_with_the_way_out() {
        let message = |typed: &str| typed.parse::<Prefix>().expect_err(typed).to_string();
        for (typed, part) in [
            ("203.0.113.7/24", "the network that it is in is 203.0.113.0/24"),
            ("2001:db8::1/32", "the network that it is in is 2001:db8::/32"),
            ("203.0.113.0/33", r#""33" is not a number of bits from 0 to 32"#),
            ("2001:db8::/129", "from 0 to 128"),
            ("203.0.113.0/", r#""" is not a number of bits"#),
            ("203.0.113.0/+8", r#""+8" is not a number of bits"#),
            ("203.0.113.0/24/8", r#""24/8" is not a number of bits"#),
            ("203.0.113/24", r#""203.0.113" is not an IP address"#),
            ("home", r#""home" is not an IP address"#),
        ] {
            let told = message(typed);
            assert!(told.contains(part) && told.contains(typed) && told.contains(PREFIX_FORMS), "{told}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_holds_whoever_begins_with_its_bits(bits: u32, other: u32, length in 0..=32_u32) {
            let prefix = Prefix::around(Ipv4Addr::from_bits(bits).into(), length).expect("at most 32 bits");
            let same = (bits ^ other).leading_zeros() >= length;
            prop_assert_eq!(prefix.contains(Ipv4Addr::from_bits(other).into()), same);
        }

        #[test]
        fn what_is_shown_is_read_back(bits: u128, is_v4: bool, length in 0..=128_u32) {
            let address = if is_v4 {
                Ipv4Addr::from_bits((bits >> 96) as u32).into()
            } else {
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            };
            if let Some(prefix) = Prefix::around(address, length) {
                prop_assert!(prefix.contains(address));
                prop_assert_eq!(prefix.to_string().parse::<Prefix>(), Ok(prefix));
            } else {
                prop_assert!(is_v4 && length > 32);
            }
        }

        #[test]
        fn no_text_is_too_odd_to_answer(text in ".{0,40}|[0-9a-f:./]{0,40}") {
            if let Ok(prefix) = text.parse::<Prefix>() {
                prop_assert!(prefix.contains(prefix.address()));
            }
        }
    }
}
