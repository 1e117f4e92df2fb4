//! What an IP packet says of itself.
//!
//! Only headers are read, and of a packet only its beginning is there. Lengths are those that the headers state: one
//! that lies about it is dropped by the kernel further on.

use std::net::IpAddr;

use chadthrottle_common::wire::{IPV6_HEADER_LEN, UDP_HEADER_LEN, wire_len};
use pnet_packet::{
    ip::{IpNextHeaderProtocol, IpNextHeaderProtocols as Protocols},
    ipv4::{Ipv4Flags, Ipv4Packet},
    ipv6::{ExtensionPacket, FragmentPacket, Ipv6Packet},
    tcp::{TcpFlags, TcpPacket},
    udp::UdpPacket,
};

use crate::sys::socket_lookup::Protocol;

/// Extension headers that are looked behind. Nobody sends as many; a packet that is made of nothing else must not
/// keep us busy.
const MOST_EXTENSIONS: usize = 8;
/// Bytes of a fragment header (RFC 8200, section 4.5), and the unit of the lengths of most others.
const EIGHT: usize = 8;
/// The jumbo payload option (RFC 2675) as the kernel's BIG TCP writes it: a hop-by-hop header with nothing else, kind
/// 0xc2, four bytes long.
const JUMBO: [u8; 3] = [0, 0xc2, 4];
/// Bits of an IPv6 fragment's offset; the lowest three are flags.
const OFFSET: u16 = !7;

/// An IP packet, or a super-packet that the kernel handles as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IpPacket {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Its bytes, headers included.
    length: u32,
    /// Bytes of the headers that each segment of it has.
    header: u32,
    pub(super) transport: Transport,
    /// The number that the fragments of one packet share, where it is one.
    pub(super) fragment: Option<u32>,
}

/// What is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// The beginning of something that has ports.
    Ports {
        protocol: Protocol,
        source: u16,
        destination: u16,
        /// TCP: the first packet of a connection.
        opens: bool,
    },
    /// A fragment other than the first.
    Continued,
    /// Anything else.
    Other,
}

impl IpPacket {
    /// Reads the headers. `None` for what is no IP packet.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &[u8]) -> Option<Self> {
        let packet = Ipv4Packet::new(bytes)?;
        let header = usize::from(packet.get_header_length()) * 4;
        if header < Ipv4Packet::minimum_packet_size() {
            return None;
        }
        let length = match packet.get_total_length() {
            // Longer than the field can tell (BIG TCP); then all of it is here.
            0 => u32::try_from(bytes.len()).ok()?,
            length if usize::from(length) < header => return None,
            length => length.into(),
        };
        let offset = packet.get_fragment_offset();
        let is_fragment = offset != 0 || packet.get_flags() & Ipv4Flags::MoreFragments != 0;
        let rest = bytes.get(header..).unwrap_or_default();
        let (transport, transport_header) = if offset == 0 {
            Transport::parse(packet.get_next_level_protocol(), rest)
        } else {
            (Transport::Continued, 0)
        };
        Some(Self {
            source: packet.get_source().into(),
            destination: packet.get_destination().into(),
            length,
            header: u32::try_from(header).ok()?.saturating_add(transport_header),
            transport,
            fragment: is_fragment.then(|| packet.get_identification().into()),
        })
    }

    fn parse_v6(bytes: &[u8]) -> Option<Self> {
        let packet = Ipv6Packet::new(bytes)?;
        let extensions = Extensions::walk(packet.get_next_header(), bytes.get(IPV6_HEADER_LEN as usize..)?);
        let stated = packet.get_payload_length();
        let (length, ip_header) = match extensions.jumbo {
            // The hop-by-hop header only tells the length, and does not travel.
            Some(payload) if stated == 0 => {
                let travels = payload.saturating_sub(u32::try_from(EIGHT).ok()?);
                (IPV6_HEADER_LEN.saturating_add(travels), IPV6_HEADER_LEN)
            }
            _ => {
                let payload = match stated {
                    // Newer kernels' BIG TCP has no such header; then all of the packet is here.
                    0 if bytes.len() > usize::from(u16::MAX) => {
                        u32::try_from(bytes.len()).ok()?.saturating_sub(IPV6_HEADER_LEN)
                    }
                    stated => stated.into(),
                };
                let header = IPV6_HEADER_LEN.saturating_add(u32::try_from(extensions.length).ok()?);
                (IPV6_HEADER_LEN.saturating_add(payload), header)
            }
        };
        let (transport, transport_header) = match extensions.content {
            Some((protocol, rest)) => Transport::parse(protocol, rest),
            None => (Transport::Continued, 0),
        };
        Some(Self {
            source: packet.get_source().into(),
            destination: packet.get_destination().into(),
            length,
            header: ip_header.saturating_add(transport_header),
            transport,
            fragment: extensions.fragment,
        })
    }

    /// Its bytes as they travel, in segments with this much payload each.
    pub(super) fn wire_len(&self, segment: Option<u32>) -> u64 {
        let payload = self.length.saturating_sub(self.header);
        let segments = match segment {
            Some(size) if size > 0 => payload.div_ceil(size),
            _ => 1,
        };
        wire_len(self.length, segments, self.header)
    }

    /// The payload of a segment, where all that is known is how long a packet on the link may be.
    pub(super) fn estimate_segment(&self, mtu: u32) -> Option<u32> {
        let has_segments = matches!(self.transport, Transport::Ports { .. }) && self.fragment.is_none();
        let segment = mtu.saturating_sub(self.header);
        (has_segments && self.length > mtu && segment > 0).then_some(segment)
    }
}

impl Transport {
    /// What a protocol's header says, and how long it is.
    fn parse(protocol: IpNextHeaderProtocol, bytes: &[u8]) -> (Self, u32) {
        let parsed = match protocol {
            Protocols::Tcp => TcpPacket::new(bytes).map(|tcp| {
                let flags = tcp.get_flags() & (TcpFlags::SYN | TcpFlags::ACK);
                let transport = Self::Ports {
                    protocol: Protocol::Tcp,
                    source: tcp.get_source(),
                    destination: tcp.get_destination(),
                    opens: flags == TcpFlags::SYN,
                };
                (transport, u32::from(tcp.get_data_offset()) * 4)
            }),
            Protocols::Udp => UdpPacket::new(bytes).map(|udp| {
                let transport = Self::Ports {
                    protocol: Protocol::Udp,
                    source: udp.get_source(),
                    destination: udp.get_destination(),
                    opens: false,
                };
                (transport, UDP_HEADER_LEN)
            }),
            _ => None,
        };
        parsed.unwrap_or((Self::Other, 0))
    }
}

/// What stands between an IPv6 header and its content.
struct Extensions<'a> {
    length: usize,
    jumbo: Option<u32>,
    fragment: Option<u32>,
    /// `None` in a fragment other than the first: what stands there is the middle of something.
    content: Option<(IpNextHeaderProtocol, &'a [u8])>,
}

impl<'a> Extensions<'a> {
    fn walk(first: IpNextHeaderProtocol, bytes: &'a [u8]) -> Self {
        let mut found = Self { length: 0, jumbo: None, fragment: None, content: Some((first, bytes)) };
        let (mut protocol, mut rest) = (first, bytes);
        for _ in 0..MOST_EXTENSIONS {
            let (next, length) = match protocol {
                Protocols::Hopopt | Protocols::Ipv6Route | Protocols::Ipv6Opts => {
                    let Some(header) = ExtensionPacket::new(rest) else { break };
                    if protocol == Protocols::Hopopt && rest.get(1..4) == Some(&JUMBO) {
                        let length = rest.get(4..).and_then(|rest| rest.first_chunk());
                        found.jumbo = length.map(|&bytes| u32::from_be_bytes(bytes));
                    }
                    (header.get_next_header(), (usize::from(header.get_hdr_ext_len()) + 1) * EIGHT)
                }
                Protocols::Ah => {
                    let Some(header) = ExtensionPacket::new(rest) else { break };
                    // Counted in units of four, two of them left out (RFC 4302, section 2.2).
                    (header.get_next_header(), (usize::from(header.get_hdr_ext_len()) + 2) * 4)
                }
                Protocols::Ipv6Frag => {
                    let Some(header) = FragmentPacket::new(rest) else { break };
                    found.fragment = Some(header.get_id());
                    if header.get_fragment_offset_with_flags() & OFFSET != 0 {
                        found.content = None;
                        return found;
                    }
                    (header.get_next_header(), EIGHT)
                }
                _ => break,
            };
            found.length += length;
            protocol = next;
            // What is cut off has no ports to be read.
            rest = rest.get(length..).unwrap_or_default();
            found.content = Some((protocol, rest));
        }
        found
    }
}

/// What holds of any packet, whole or cut off, on a link that carries `mtu` bytes.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8], mtu: u32) {
    let Some(packet) = IpPacket::parse(bytes) else { return };
    let (length, payload) = (u64::from(packet.length), packet.length.saturating_sub(packet.header));
    assert_eq!(packet.wire_len(None), length);
    assert_eq!(packet.wire_len(Some(0)), length);
    assert!(packet.fragment.is_some() || packet.transport != Transport::Continued, "{packet:?}");
    // Each segment has the headers once more, and nothing else.
    let most = length + u64::from(packet.header) * u64::from(payload.div_ceil(mtu.max(1)).saturating_sub(1));
    let travels = packet.wire_len(Some(mtu));
    assert!((length..=most).contains(&travels) || mtu == 0, "{travels} of {packet:?}");
    if let Some(segment) = packet.estimate_segment(mtu) {
        assert!((1..mtu).contains(&segment), "{segment} of {mtu}");
        assert!(packet.wire_len(Some(segment)) >= length, "{packet:?}");
    }
    assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
}

#[cfg(test)]
mod tests;
