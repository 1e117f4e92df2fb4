//! How many bytes travel for a packet that the kernel handles as one.
//!
//! With segmentation and receive offload the kernel passes super-packets up and down its stack: one header and
//! the payload of many packets. What travels, and what an interface counts, has the header once a segment.

use crate::FlowCounters;

/// IPv6 next-header number of hop-by-hop options (RFC 8200, section 4.3).
pub const IPPROTO_HOP_BY_HOP: u8 = 0;
/// IPv4 protocol number of ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// IPv6 next-header number of `ICMPv6`.
pub const IPPROTO_ICMPV6: u8 = 58;
/// IPv4 protocol and IPv6 next-header number of TCP.
pub const IPPROTO_TCP: u8 = 6;
/// IPv4 protocol and IPv6 next-header number of UDP.
pub const IPPROTO_UDP: u8 = 17;

/// Bytes of an IPv6 header without extensions (RFC 8200, section 3).
pub const IPV6_HEADER_LEN: u32 = 40;
/// Bytes of a UDP header (RFC 768).
pub const UDP_HEADER_LEN: u32 = 8;
/// Bytes of a hop-by-hop header that holds nothing but the jumbo payload option (`struct hop_jumbo_hdr`,
/// include/net/ipv6.h).
pub const JUMBO_OPTION_LEN: u32 = 8;

/// What a packet of `len` bytes (from the IP header on) adds to the counters of its direction. A super-packet stands for
/// `segments` packets, each with `header_len` bytes of IP and transport headers, and has `not_travelling` bytes that
/// none of them has.
#[inline(always)]
#[must_use]
pub const fn flow(len: u32, segments: u32, header_len: u32, not_travelling: u32) -> FlowCounters {
    let bytes = wire_len(len.saturating_sub(not_travelling), segments, header_len);
    FlowCounters {
        bytes,
        packets: 1,
        merged_packets: segments.saturating_sub(1) as u64,
        merged_bytes: bytes.saturating_sub(len as u64),
    }
}

/// IP bytes as they travel for a packet of `len` bytes (from the IP header on) that stands for `segments`
/// packets, each with `header_len` bytes of IP and transport headers.
#[inline(always)]
#[must_use]
pub const fn wire_len(len: u32, segments: u32, header_len: u32) -> u64 {
    len as u64 + segments.saturating_sub(1) as u64 * header_len as u64
}

/// Bytes of an IPv4 header, from its first byte (version and header length, RFC 791, section 3.1).
#[inline(always)]
#[must_use]
pub const fn ipv4_header_len(version_ihl: u8) -> u32 {
    (version_ihl & 0x0f) as u32 * 4
}

/// Bytes of a TCP header, from its thirteenth byte (data offset, RFC 9293, section 3.1).
#[inline(always)]
#[must_use]
pub const fn tcp_header_len(data_offset: u8) -> u32 {
    (data_offset >> 4) as u32 * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lengths_are_those_of_the_formats() {
        assert_eq!(ipv4_header_len(0x45), 20);
        assert_eq!(ipv4_header_len(0x4f), 60);
        assert_eq!(tcp_header_len(0x50), 20);
        // With timestamps.
        assert_eq!(tcp_header_len(0x80), 32);
    }

    #[test]
    fn a_super_packet_stands_for_its_segments() {
        // 10 segments of 1448 bytes of payload, 52 bytes of headers each.
        assert_eq!(wire_len(14_480 + 52, 10, 52), 15_000);
        assert_eq!(wire_len(1500, 1, 52), 1500);
        // 0: the kernel did not segment at all.
        assert_eq!(wire_len(1500, 0, 52), 1500);
        let one = FlowCounters { bytes: 1500, packets: 1, ..FlowCounters::default() };
        assert_eq!((flow(1500, 0, 0, 0), flow(1500, 1, 0, 0)), (one, one));
    }

    #[test]
    fn an_option_that_tells_the_length_of_a_super_packet_does_not_travel() {
        // BIG TCP: 100 segments of 1428 bytes of payload, 72 bytes of headers each.
        let counted = flow(142_800 + 72 + 8, 100, 72, 8);
        let merged_bytes = 99 * 72 - 8;
        assert_eq!(counted, FlowCounters { bytes: 150_000, packets: 1, merged_packets: 99, merged_bytes });
    }
}
