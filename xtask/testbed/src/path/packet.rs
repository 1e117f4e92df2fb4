//! An IP packet as a TUN device gives it, with what it says about segmentation before it.

use std::ops::Range;

/// `struct virtio_net_hdr` (`include/uapi/linux/virtio_net.h`): flags, kind, and four numbers in the host's order.
pub(super) const HEADER: usize = 10;
/// Where one of the numbers is in it.
const SEGMENT_SIZE: usize = 4;
/// `VIRTIO_NET_HDR_GSO_TCPV4`, `…_TCPV6`, and the flag `…_ECN` for either.
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const ECN: u8 = 0x80;

const PROTOCOL_TCP: u8 = 6;
/// In byte 13 of a TCP header.
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// A packet, or a super-packet that stands for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    bytes: Vec<u8>,
    /// Of a super-packet.
    segments: Option<Segments>,
}

/// Where a super-packet is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segments {
    /// Bytes of the IP header.
    ip: usize,
    /// Bytes of the IP and the TCP header.
    headers: usize,
    /// Payload of each segment but the last.
    size: usize,
}

impl Packet {
    /// Takes what was read from the device. None where it is too short to be anything.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        (bytes.len() > HEADER).then(|| Self { segments: segments(bytes), bytes: bytes.to_vec() })
    }

    /// What is to be written to a device.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many packets it stands for.
    pub(super) fn segments(&self) -> usize {
        self.segments.map_or(1, |cut| (self.bytes.len() - HEADER - cut.headers).div_ceil(cut.size).max(1))
    }

    /// IP bytes of all of them.
    pub(super) fn length(&self) -> u64 {
        let headers = self.segments.map_or(0, |cut| cut.headers * (self.segments() - 1));
        (self.bytes.len() - HEADER + headers) as u64
    }

    /// IP bytes of the longest of them.
    pub(super) fn longest(&self) -> u64 {
        let whole = self.bytes.len() - HEADER;
        self.segments.map_or(whole, |cut| (cut.headers + cut.size).min(whole)) as u64
    }

    /// The packets of this range, as one.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let count = self.segments();
        let Some(cut) = self.segments.filter(|_| range != (0..count)) else { return self.clone() };
        let payload = &self.bytes[HEADER + cut.headers..];
        let part = range.start * cut.size..(range.end * cut.size).min(payload.len());
        let offset = part.start;
        let mut bytes = self.bytes[..HEADER + cut.headers].to_vec();
        bytes.extend_from_slice(&payload[part]);
        let is_one = range.len() == 1;
        if is_one {
            bytes[1] = 0;
            bytes[SEGMENT_SIZE..SEGMENT_SIZE + 2].fill(0);
        } else if range.start > 0 {
            bytes[1] &= !ECN;
        }
        let (first, last) = (range.start == 0, range.end == count);
        let (ip, tcp) = bytes[HEADER..].split_at_mut(cut.ip);
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        // A super-packet is at most 64 KB long, and stands for fewer packets than it has bytes.
        tcp[4..8].copy_from_slice(&sequence.wrapping_add(short(offset).into()).to_be_bytes());
        if !last {
            tcp[13] &= !FIN_PSH;
        }
        if !first {
            tcp[13] &= !CWR;
        }
        let sum = set_lengths(ip, tcp.len(), short(range.start));
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let segments = (!is_one).then_some(cut);
        Self { bytes, segments }
    }
}

fn segments(bytes: &[u8]) -> Option<Segments> {
    let kind = bytes[1] & !ECN;
    let size = usize::from(number(bytes, SEGMENT_SIZE));
    let ip = match kind {
        TCP_V4 => usize::from(bytes[HEADER] & 0xf) * 4,
        TCP_V6 => 40,
        _ => return None,
    };
    let protocol = bytes.get(HEADER + if kind == TCP_V4 { 9 } else { 6 })?;
    let tcp = usize::from(bytes.get(HEADER + ip + 12)? >> 4) * 4;
    let headers = ip + tcp;
    // With an extension header it is left whole.
    (*protocol == PROTOCOL_TCP && size > 0 && tcp >= 20 && bytes.len() > HEADER + headers + size)
        .then_some(Segments { ip, headers, size })
}

/// Writes the length and, for IPv4, the number and the checksum into an IP header. Returns what the TCP checksum is to
/// begin with: the sum over the pseudo-header, not complemented, as for every packet whose checksum is left to the
/// device.
fn set_lengths(ip: &mut [u8], tcp: usize, part: u16) -> u16 {
    let addresses = if ip[0] >> 4 == 4 {
        let total = short(ip.len() + tcp);
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(part);
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[10..12].fill(0);
        let checksum = !folded(sum(ip));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        12..20
    } else {
        ip[4..6].copy_from_slice(&short(tcp).to_be_bytes());
        8..40
    };
    folded(sum(&ip[addresses]) + u32::from(PROTOCOL_TCP) + u32::from(short(tcp)))
}

/// The sum of the Internet checksum (RFC 1071), over an even number of bytes.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    short(((once & 0xffff) + (once >> 16)) as usize)
}

fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// Nothing here is longer than an IP packet.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A super-packet over IPv4 of so much payload, in segments of 1,000 bytes.
    pub(in super::super) fn packet(payload: usize) -> Packet {
        let mut bytes = vec![0; HEADER + 40 + payload];
        bytes[0] = 1;
        bytes[1] = TCP_V4;
        bytes[SEGMENT_SIZE..SEGMENT_SIZE + 2].copy_from_slice(&1000_u16.to_ne_bytes());
        let ip = &mut bytes[HEADER..];
        ip[0] = 0x45;
        ip[9] = PROTOCOL_TCP;
        ip[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        // Sequence number, length of the header, and all flags.
        ip[24..28].copy_from_slice(&(u32::MAX - 500).to_be_bytes());
        ip[32..34].copy_from_slice(&[0x50, 0xff]);
        for (number, byte) in ip[40..].iter_mut().enumerate() {
            *byte = u8::try_from(number / 1000).unwrap_or(u8::MAX);
        }
        Packet::read(&bytes).expect("long enough")
    }

    #[test]
    fn a_super_packet_counts_the_headers_of_every_segment() {
        let whole = packet(2500);
        assert_eq!((whole.segments(), whole.length(), whole.longest()), (3, 2500 + 3 * 40, 1040));
        let small = packet(1000);
        assert_eq!((small.segments(), small.length(), small.longest()), (1, 1040, 1040));
    }

    #[test]
    fn parts_are_what_the_device_would_have_made_of_it() {
        let whole = packet(2500);
        assert_eq!(whole.part(0..3), whole);
        let first = whole.part(0..2);
        assert_eq!((first.segments(), first.length()), (2, 2080));
        let last = whole.part(2..3);
        assert_eq!((last.segments(), last.length()), (1, 540));
        assert_eq!(last.bytes()[1], 0, "no super-packet any more");

        let (first, last) = (&first.bytes()[HEADER..], &last.bytes()[HEADER..]);
        assert_eq!(first[33], !FIN_PSH);
        assert_eq!(last[33], !CWR);
        assert_eq!(u32::from_be_bytes([last[24], last[25], last[26], last[27]]), 1499, "it wraps");
        assert_eq!(u16::from_be_bytes([last[4], last[5]]), 2, "the number of the packet");
        assert!(last[40..].iter().all(|byte| *byte == 2));
        for ip in [first, last] {
            assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len());
            assert_eq!(folded(sum(&ip[..20])), u16::MAX, "the header's checksum is right");
            let pseudo = sum(&ip[12..20]) + 6 + u32::try_from(ip.len() - 20).expect("short");
            assert_eq!(u16::from_be_bytes([ip[36], ip[37]]), folded(pseudo));
        }
    }
}
