//! Whether a remote address is local or on the internet, by the address alone.
//!
//! Which public prefixes are on-link here, and which the user calls local, no address tells: whoever knows them looks
//! them up first and asks this for the rest.

use crate::layout::{TRAFFIC_TYPE_INTERNET, TRAFFIC_TYPE_LOCAL};

/// The address is on the internet. The same number as [`TRAFFIC_TYPE_INTERNET`], so that what a limit asks for and
/// what a packet is can be compared.
pub const SCOPE_INTERNET: u32 = TRAFFIC_TYPE_INTERNET as u32;
/// The address is local: this host, its network, or a network that the internet does not route to.
pub const SCOPE_LOCAL: u32 = TRAFFIC_TYPE_LOCAL as u32;

/// Scope of an IPv4 address in host order: `SCOPE_LOCAL` or `SCOPE_INTERNET`.
#[inline(always)]
#[must_use]
pub const fn scope_of_v4(address: u32) -> u32 {
    let is_local = has_prefix(address, 0x0000_0000, 8) // "this network", RFC 1122, and 0.0.0.0
        || has_prefix(address, 0x0a00_0000, 8) // 10/8, RFC 1918
        || has_prefix(address, 0x6440_0000, 10) // 100.64/10, the provider's side of carrier-grade NAT, RFC 6598
        || has_prefix(address, 0x7f00_0000, 8) // loopback
        || has_prefix(address, 0xa9fe_0000, 16) // 169.254/16, link-local, RFC 3927
        || has_prefix(address, 0xac10_0000, 12) // 172.16/12, RFC 1918
        || has_prefix(address, 0xc0a8_0000, 16) // 192.168/16, RFC 1918
        || has_prefix(address, 0xe000_0000, 4) // multicast
        || address == 0xffff_ffff; // limited broadcast
    scope(is_local)
}

/// Scope of an IPv6 address as four words in host order, the first one first: `SCOPE_LOCAL` or `SCOPE_INTERNET`.
///
/// An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) is what it is without them: the packet is IPv4. One behind NAT64
/// (`64:ff9b::/96`) is on the internet whatever is embedded: RFC 6052, section 3.1, forbids that prefix for addresses
/// that are not global, and what travels is IPv6 on its way to a gateway. The same for `64:ff9b:1::/48` (RFC 8215),
/// where nothing says which bits the address is in. `fec0::/10` (site-local) is local although it is deprecated: RFC
/// 3879, section 4, keeps it from being given to anybody else.
#[inline(always)]
#[must_use]
pub const fn scope_of_v6(address: [u32; 4]) -> u32 {
    let [first, second, third, fourth] = address;
    if first == 0 && second == 0 {
        if third == 0xffff {
            return scope_of_v4(fourth);
        }
        // `::` and `::1`.
        return scope(third == 0 && fourth <= 1);
    }
    let is_local = has_prefix(first, 0xfc00_0000, 7) // unique local, RFC 4193
        || has_prefix(first, 0xfe80_0000, 9) // fe80::/10, link-local, and fec0::/10 beside it
        || has_prefix(first, 0xff00_0000, 8); // multicast
    scope(is_local)
}

/// Whether the first `bits` of a word, 1 to 32 of them, are those of `prefix`.
#[inline(always)]
const fn has_prefix(word: u32, prefix: u32, bits: u32) -> bool {
    (word ^ prefix) >> (32 - bits) == 0
}

#[inline(always)]
const fn scope(is_local: bool) -> u32 {
    if is_local { SCOPE_LOCAL } else { SCOPE_INTERNET }
}

/// Addresses and what they are: both sides of every border. One table for whoever classifies, in userspace or in the
/// kernel.
pub const VECTORS: &[(&str, u32)] = &[
    ("0.0.0.0", SCOPE_LOCAL),
    ("0.255.255.255", SCOPE_LOCAL),
    ("1.0.0.0", SCOPE_INTERNET),
    ("1.1.1.1", SCOPE_INTERNET),
    ("8.8.8.8", SCOPE_INTERNET),
    ("9.255.255.255", SCOPE_INTERNET),
    ("10.0.0.0", SCOPE_LOCAL),
    ("10.255.255.255", SCOPE_LOCAL),
    ("11.0.0.0", SCOPE_INTERNET),
    ("100.63.255.255", SCOPE_INTERNET),
    ("100.64.0.0", SCOPE_LOCAL),
    ("100.127.255.255", SCOPE_LOCAL),
    ("100.128.0.0", SCOPE_INTERNET),
    ("126.255.255.255", SCOPE_INTERNET),
    ("127.0.0.0", SCOPE_LOCAL),
    ("127.0.0.1", SCOPE_LOCAL),
    ("127.255.255.255", SCOPE_LOCAL),
    ("128.0.0.0", SCOPE_INTERNET),
    ("169.253.255.255", SCOPE_INTERNET),
    ("169.254.0.0", SCOPE_LOCAL),
    ("169.254.169.254", SCOPE_LOCAL),
    ("169.254.255.255", SCOPE_LOCAL),
    ("169.255.0.0", SCOPE_INTERNET),
    ("172.15.255.255", SCOPE_INTERNET),
    ("172.16.0.0", SCOPE_LOCAL),
    ("172.31.255.255", SCOPE_LOCAL),
    ("172.32.0.0", SCOPE_INTERNET),
    ("192.167.255.255", SCOPE_INTERNET),
    ("192.168.0.0", SCOPE_LOCAL),
    ("192.168.255.255", SCOPE_LOCAL),
    ("192.169.0.0", SCOPE_INTERNET),
    ("203.0.113.7", SCOPE_INTERNET),
    ("223.255.255.255", SCOPE_INTERNET),
    ("224.0.0.0", SCOPE_LOCAL),
    ("239.255.255.255", SCOPE_LOCAL),
    ("240.0.0.0", SCOPE_INTERNET),
    ("255.255.255.254", SCOPE_INTERNET),
    ("255.255.255.255", SCOPE_LOCAL),
    ("::", SCOPE_LOCAL),
    ("::1", SCOPE_LOCAL),
    ("::2", SCOPE_INTERNET),
    ("::1:0:1", SCOPE_INTERNET),
    ("::8.8.8.8", SCOPE_INTERNET),
    ("::fffe:192.168.0.1", SCOPE_INTERNET),
    ("::ffff:0.0.0.0", SCOPE_LOCAL),
    ("::ffff:8.8.8.8", SCOPE_INTERNET),
    ("::ffff:127.0.0.1", SCOPE_LOCAL),
    ("::ffff:172.16.0.1", SCOPE_LOCAL),
    ("::ffff:172.32.0.1", SCOPE_INTERNET),
    ("::ffff:192.168.0.1", SCOPE_LOCAL),
    ("::ffff:255.255.255.255", SCOPE_LOCAL),
    ("::1:ffff:192.168.0.1", SCOPE_INTERNET),
    ("0:0:1::1", SCOPE_INTERNET),
    ("64:ff9b::8.8.8.8", SCOPE_INTERNET),
    ("64:ff9b::192.168.0.1", SCOPE_INTERNET),
    ("64:ff9b:1::192.168.0.1", SCOPE_INTERNET),
    ("2001:db8::1", SCOPE_INTERNET),
    ("2002:c0a8:1::1", SCOPE_INTERNET),
    ("2606:4700:4700::1111", SCOPE_INTERNET),
    ("fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_INTERNET),
    ("fc00::", SCOPE_LOCAL),
    ("fd12:3456:789a::1", SCOPE_LOCAL),
    ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_LOCAL),
    ("fe00::", SCOPE_INTERNET),
    ("fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_INTERNET),
    ("fe80::1", SCOPE_LOCAL),
    ("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_LOCAL),
    ("fec0::1", SCOPE_LOCAL),
    ("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_LOCAL),
    ("ff00::", SCOPE_LOCAL),
    ("ff02::fb", SCOPE_LOCAL),
    ("ff0e::1", SCOPE_LOCAL),
    ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SCOPE_LOCAL),
];

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::{IpAddr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn scope_of_text(text: &str) -> u32 {
        match text.parse().expect("an address") {
            IpAddr::V4(address) => scope_of_v4(address.to_bits()),
            IpAddr::V6(address) => scope_of_v6(words(address)),
        }
    }

    fn words(address: Ipv6Addr) -> [u32; 4] {
        let octets = address.octets();
        core::array::from_fn(|word| {
            u32::from_be_bytes(core::array::from_fn(|octet| octets[word * 4 + octet]))
        })
    }

    #[test]
    fn every_address_of_the_table_is_what_the_table_says() {
        for &(text, expected) in VECTORS {
            assert_eq!(scope_of_text(text), expected, "{text}");
        }
    }

    #[test]
    fn a_scope_can_be_compared_with_what_a_limit_counts() {
        assert_eq!(SCOPE_LOCAL, u32::from(TRAFFIC_TYPE_LOCAL));
        assert_eq!(SCOPE_INTERNET, u32::from(TRAFFIC_TYPE_INTERNET));
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_what_the_standard_library_says(bits: u32) {
            let address = core::net::Ipv4Addr::from_bits(bits);
            let [a, b, ..] = address.octets();
            let is_local = address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast()
                || a == 0
                || (a == 100 && (64..128).contains(&b));
            prop_assert_eq!(scope_of_v4(bits), scope(is_local));
        }

        #[test]
        fn an_ipv6_address_is_what_the_standard_library_says(
            start in prop_oneof![Just(0_u32), 0xfa00_0000..=u32::MAX, any::<u32>()], rest: (u32, u32, u32),
        ) {
            let words = [start, rest.0, rest.1, rest.2];
            let bits = words.iter().fold(0_u128, |bits, word| bits << 32 | u128::from(*word));
            let address = Ipv6Addr::from_bits(bits);
            let is_site_local = address.segments()[0] & 0xffc0 == 0xfec0;
            let is_local = address.is_unique_local()
                || address.is_unicast_link_local()
                || address.is_multicast()
                || address.is_loopback()
                || address.is_unspecified()
                || is_site_local;
            prop_assert_eq!(scope_of_v6(words), scope(is_local));
        }

        #[test]
        fn an_ipv4_address_in_ipv6_clothes_is_the_same(bits: u32) {
            prop_assert_eq!(scope_of_v6([0, 0, 0xffff, bits]), scope_of_v4(bits));
        }
    }
}
