//! IP and transport headers at the start of a packet's data.
//!
//! Read by direct access, which costs a comparison and no call. What is not in the linear part of the packet is taken
//! for not there; IP and TCP headers are, as the kernel itself has just read or written them.

use core::ptr;

use aya_ebpf::bindings::__sk_buff;
use chadthrottle_common::{
    DIRECTION_UPLOAD,
    wire::{
        IPPROTO_HOP_BY_HOP, IPPROTO_TCP, IPPROTO_UDP, IPV6_HEADER_LEN, JUMBO_OPTION_LEN, UDP_HEADER_LEN,
        ipv4_header_len, tcp_header_len,
    },
};

/// Which of the two addresses is the peer's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// What leaves goes to it.
    Destination,
    /// What arrives comes from it.
    Source,
}

impl Peer {
    /// The peer of a packet that goes this way.
    #[inline(always)]
    pub(crate) const fn from_direction(direction: u32) -> Self {
        if direction == DIRECTION_UPLOAD { Self::Destination } else { Self::Source }
    }
}

/// The linear part of a packet, from its IP header on.
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    start: usize,
    end: usize,
}

impl Headers {
    /// The headers of a packet whose data starts so many bytes before the IP header.
    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff, ip_at: usize) -> Self {
        // SAFETY: the program's own context; the verifier knows these two for the packet's pointers.
        unsafe { Self { start: (*skb).data as usize + ip_at, end: (*skb).data_end as usize } }
    }

    #[inline(always)]
    pub(crate) fn load<T: Copy>(&self, at: usize) -> Option<T> {
        let from = self.start + at;
        if from + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: inside the packet, which the verifier checks again. Fields of IP and TCP headers stand on multiples
        // of their size.
        Some(unsafe { ptr::read(from as *const T) })
    }

    /// Version and header length.
    #[inline(always)]
    fn first_byte(&self) -> u8 {
        // With the byte behind it: of a comparison for a single byte at the start the verifier learns nothing
        // (`find_good_pkt_pointers`, kernel/bpf/verifier.c).
        self.load::<[u8; 2]>(0).map_or(0, |bytes| bytes[0])
    }

    /// Address of the peer where this is IPv4, in host byte order.
    #[inline(always)]
    pub(crate) fn peer_v4(&self, peer: Peer) -> Option<u32> {
        if self.first_byte() >> 4 != 4 {
            return None;
        }
        self.load(if peer == Peer::Destination { 16 } else { 12 }).map(u32::from_be)
    }

    /// Address of the peer where this is IPv6, as four words in host byte order.
    #[inline(always)]
    pub(crate) fn peer_v6(&self, peer: Peer) -> Option<[u32; 4]> {
        if self.first_byte() >> 4 != 6 {
            return None;
        }
        let words: [u32; 4] = self.load(if peer == Peer::Destination { 24 } else { 8 })?;
        Some([u32::from_be(words[0]), u32::from_be(words[1]), u32::from_be(words[2]), u32::from_be(words[3])])
    }

    /// Whether this is IPv6.
    #[inline(always)]
    pub(crate) fn is_v6(&self) -> bool {
        self.first_byte() >> 4 == 6
    }

    /// Where the transport header starts, and whose it is. The kernel makes super-packets of TCP and UDP without
    /// extension headers alone (`inet_gro_receive`, `ipv6_gro_receive`; `dev_gro_receive` flushes the others), apart
    /// from the hop-by-hop header of BIG TCP.
    #[inline(always)]
    pub(crate) fn transport(&self) -> Option<(u32, u8)> {
        let first = self.first_byte();
        match first >> 4 {
            4 => Some((ipv4_header_len(first), self.load(9)?)),
            6 => match self.load(6)? {
                IPPROTO_HOP_BY_HOP => {
                    Some((IPV6_HEADER_LEN + JUMBO_OPTION_LEN, self.load(IPV6_HEADER_LEN as usize)?))
                }
                protocol => Some((IPV6_HEADER_LEN, protocol)),
            },
            _ => None,
        }
    }

    /// Bytes of IP and transport header that each segment of a super-packet travels with.
    #[inline(always)]
    pub(crate) fn merged_len(&self) -> u32 {
        let Some((ip_len, protocol)) = self.transport() else { return 0 };
        let transport_len = match protocol {
            IPPROTO_TCP => match self.load(ip_len as usize + 12) {
                Some(data_offset) => tcp_header_len(data_offset),
                None => 0,
            },
            IPPROTO_UDP => UDP_HEADER_LEN,
            _ => 0,
        };
        ip_len - self.not_travelling() + transport_len
    }

    /// Bytes of a super-packet that no segment travels with: the option that says how long it is, in BIG TCP over IPv6
    /// (`ipv6_hopopt_jumbo_remove`, include/net/ipv6.h).
    #[inline(always)]
    pub(crate) fn not_travelling(&self) -> u32 {
        let is_jumbo = self.first_byte() >> 4 == 6 && self.load(6) == Some(IPPROTO_HOP_BY_HOP);
        if is_jumbo { JUMBO_OPTION_LEN } else { 0 }
    }

    /// The sequence number of a TCP segment without extension headers.
    #[inline(always)]
    pub(crate) fn tcp_seq(&self) -> Option<u32> {
        let (ip_len, protocol) = self.transport()?;
        if protocol != IPPROTO_TCP {
            return None;
        }
        self.load(ip_len as usize + 4).map(u32::from_be)
    }
}
