//! What stands behind an IP header and its extensions, where nobody has looked at the packet yet.

use core::intrinsics::cold_path;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use chadthrottle_common::wire::{IPPROTO_HOP_BY_HOP, IPPROTO_TCP, IPPROTO_UDP, IPV6_HEADER_LEN};

use crate::{fragments::FragmentKey, headers::Headers};

/// IPv6 next-header numbers (RFC 8200, section 4.1).
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// As many extension headers are walked along: each of the four kinds once, and destination options twice, as RFC 8200
/// has it. Who sends more is not held.
const MOST_EXTENSIONS: u32 = 5;
/// Of the field with an IPv4 fragment's place: its offset, and that more follow.
const OFFSET_V4: u16 = 0x1fff;
const MORE_V4: u16 = 0x2000;
/// The same of IPv6.
const OFFSET_V6: u16 = 0xfff8;
const MORE_V6: u16 = 0x0001;

/// Where the transport header of a packet is.
pub(crate) struct Transport {
    /// Bytes from the IP header on.
    at: u32,
    /// Whether it is TCP. Else it is UDP, or a later fragment of anything.
    pub(crate) is_stream: bool,
    /// Which fragment of a datagram this is.
    pub(crate) part: Part,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The first fragment, with the transport header.
    First(FragmentKey),
    /// Another fragment, without.
    Later(FragmentKey),
}

impl Transport {
    /// Of TCP and UDP, and of fragments of anything. `ip_at` is where the IP header starts.
    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff, headers: &Headers, ip_at: u32) -> Option<Self> {
        if headers.is_v6() { Self::of_v6(skb, headers, ip_at) } else { Self::of_v4(headers) }
    }

    #[inline(always)]
    fn of_v4(headers: &Headers) -> Option<Self> {
        let (at, protocol) = headers.transport()?;
        let place = u16::from_be(headers.load(6)?);
        let mut part = Part::Whole;
        if place & (OFFSET_V4 | MORE_V4) != 0 {
            cold_path();
            let [source, destination]: [u32; 2] = headers.load(12)?;
            let id: u16 = headers.load(4)?;
            let key = FragmentKey::of_v4(source, destination, id, protocol);
            if place & OFFSET_V4 != 0 {
                return Some(Self { at, is_stream: false, part: Part::Later(key) });
            }
            part = Part::First(key);
        }
        Self::known(at, protocol, part)
    }

    #[inline(always)]
    fn of_v6(skb: *mut __sk_buff, headers: &Headers, ip_at: u32) -> Option<Self> {
        let mut next: u8 = headers.load(6)?;
        if next == IPPROTO_TCP || next == IPPROTO_UDP {
            return Self::known(IPV6_HEADER_LEN, next, Part::Whole);
        }
        cold_path();
        let mut at = IPV6_HEADER_LEN;
        let mut part = Part::Whole;
        for _ in 0..MOST_EXTENSIONS {
            match next {
                IPPROTO_HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    // Its length is told in units of eight bytes, beyond the first.
                    let [following, length]: [u8; 2] = load(skb, ip_at + at)?;
                    next = following;
                    at += (u32::from(length) + 1) * 8;
                }
                FRAGMENT => {
                    let [first, id]: [u32; 2] = load(skb, ip_at + at)?;
                    let [following, _, high, low] = first.to_ne_bytes();
                    let place = u16::from_be_bytes([high, low]);
                    if place & (OFFSET_V6 | MORE_V6) != 0 {
                        let key = FragmentKey::of_v6(headers.load(8)?, headers.load(24)?, id);
                        if place & OFFSET_V6 != 0 {
                            return Some(Self { at, is_stream: false, part: Part::Later(key) });
                        }
                        part = Part::First(key);
                    }
                    next = following;
                    at += 8;
                }
                _ => break,
            }
        }
        Self::known(at, next, part)
    }

    #[inline(always)]
    const fn known(at: u32, protocol: u8, part: Part) -> Option<Self> {
        match protocol {
            IPPROTO_TCP => Some(Self { at, is_stream: true, part }),
            IPPROTO_UDP => Some(Self { at, is_stream: false, part }),
            _ => None,
        }
    }

    /// Both ports, as they stand in an IPv4 packet.
    #[inline(always)]
    pub(crate) fn ports_v4(&self, headers: &Headers) -> Option<u32> {
        headers.load(self.at as usize)
    }

    /// The same of IPv6. Behind extensions by the helper: the verifier of Linux 6.1 does not follow how far they reach.
    #[inline(always)]
    pub(crate) fn ports_v6(&self, skb: *mut __sk_buff, headers: &Headers, ip_at: u32) -> Option<u32> {
        if self.at == IPV6_HEADER_LEN {
            return headers.load(IPV6_HEADER_LEN as usize);
        }
        cold_path();
        load(skb, ip_at + self.at)
    }
}

/// What stands in a packet, wherever the driver has left it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "some bytes")]
fn load<T: Copy + Default>(skb: *mut __sk_buff, at: u32) -> Option<T> {
    let mut value = T::default();
    let to = (&raw mut value).cast();
    // SAFETY: the program's own context, and room for as many bytes; the helper tells whether the packet has them.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), at, to, size_of::<T>() as u32) };
    if result == 0 { Some(value) } else { None }
}
