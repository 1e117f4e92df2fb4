//! Which order the bytes are in of what crosses the map boundary: the host's everywhere, but for the prefixes that are
//! looked up bit by bit. The same must come out on machines of either order.

use std::net::{Ipv4Addr, Ipv6Addr};

use chadthrottle_common::{
    CgroupThrottleConfig, ControlFlags, FileId, LimitSettings, Membership, ProcessKey, SocketOwner,
    TrafficKey,
    scope::{SCOPE_LOCAL, VECTORS},
    scope_of_v4, scope_of_v6,
};
use proptest::prelude::*;

/// What the kernel copies.
fn bytes<T>(value: &T) -> &[u8] {
    // SAFETY: used with structures that have no padding (asserted where they are defined); the slice is as long as the
    // value and borrows it.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

#[test]
fn fields_are_in_host_order() {
    let config =
        CgroupThrottleConfig { rate_bps: 0x0102_0304_0506_0708, pid: 0x1112_1314, ..Default::default() };
    assert_eq!(bytes(&config)[16..24], 0x0102_0304_0506_0708_u64.to_ne_bytes());
    assert_eq!(bytes(&config)[8..12], 0x1112_1314_u32.to_ne_bytes());
    let settings = LimitSettings { config, flags: 0x2122_2324, mark: 0x3132_3334, ..Default::default() };
    assert_eq!(bytes(&settings)[..32], *bytes(&config));
    assert_eq!(bytes(&settings)[64..68], 0x2122_2324_u32.to_ne_bytes());
    // A mark is a number, also where nftables compares it as bytes.
    assert_eq!(bytes(&settings)[72..76], 0x3132_3334_u32.to_ne_bytes());
    let flags = ControlFlags { scope_generation: 0x4142_4344, ..Default::default() };
    assert_eq!(bytes(&flags)[16..20], 0x4142_4344_u32.to_ne_bytes());
    let membership = Membership { inherited: 7, ..Default::default() };
    assert_eq!(bytes(&membership)[4..8], 7_u32.to_ne_bytes());
}

#[test]
fn keys_are_in_host_order() {
    let process = ProcessKey::new(0x12_3456, 0x789a_bcde);
    assert_eq!(bytes(&process), (0x789a_bcde_u64 << 22 | 0x12_3456).to_ne_bytes());
    let key = TrafficKey { owner: process, ifindex: 0x0102_0304, scope: SCOPE_LOCAL };
    assert_eq!(bytes(&key)[..8], *bytes(&process));
    assert_eq!(bytes(&key)[8..12], 0x0102_0304_u32.to_ne_bytes());
    let file = FileId { inode: 0x0102_0304_0506_0708, device: 0x0800_0001, generation: 3 };
    assert_eq!(bytes(&file)[..8], 0x0102_0304_0506_0708_u64.to_ne_bytes());
    assert_eq!(bytes(&file)[8..12], 0x0800_0001_u32.to_ne_bytes());
}

#[test]
fn sequence_numbers_are_kept_in_host_order() {
    // As `u32::from_be` has them of a header.
    let seen = u32::from_be(u32::from_ne_bytes([0x01, 0x02, 0x03, 0x04]));
    let owner = SocketOwner { written_seq: seen, ..Default::default() };
    assert_eq!(owner.written_seq, 0x0102_0304);
    assert_eq!(bytes(&owner)[64..68], 0x0102_0304_u32.to_ne_bytes());
}

/// What the programs do with four bytes of a header.
fn of_header(bytes: [u8; 4]) -> u32 {
    u32::from_be(u32::from_ne_bytes(bytes))
}

#[test]
fn addresses_of_headers_have_the_scopes_of_the_table() {
    let words = |octets: [u8; 16]| {
        std::array::from_fn(|word| {
            of_header([octets[word * 4], octets[word * 4 + 1], octets[word * 4 + 2], octets[word * 4 + 3]])
        })
    };
    for (address, scope) in VECTORS {
        let found = match address.parse::<Ipv4Addr>() {
            Ok(v4) => scope_of_v4(of_header(v4.octets())),
            Err(_) => scope_of_v6(words(address.parse::<Ipv6Addr>().expect("an address").octets())),
        };
        assert_eq!(found, *scope, "{address}");
    }
}

proptest! {
    /// The program has host order of a header and turns it round; userspace has the octets.
    #[test]
    fn prefixes_are_in_network_order(octets: [u8; 4]) {
        prop_assert_eq!(of_header(octets).to_be().to_ne_bytes(), octets);
        prop_assert_eq!(of_header(octets).to_be(), u32::from_ne_bytes(octets));
    }
}
