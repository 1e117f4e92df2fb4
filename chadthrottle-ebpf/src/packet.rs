//! What a packet hook needs to know of a packet.

use aya_ebpf::{helpers::bpf_sk_fullsock, programs::SkBuffContext};
use chadthrottle_common::{
    LOOPBACK_IFINDEX, ProcessKey,
    wire::{
        IPPROTO_TCP, IPPROTO_UDP, IPV6_HEADER_LEN, UDP_HEADER_LEN, ipv4_header_len, tcp_header_len, wire_len,
    },
};

use crate::{maps, owner};

/// One packet, or a super-packet that stands for several.
pub(crate) struct Packet {
    /// IP bytes as they travel.
    pub(crate) wire_len: u64,
    /// The process whose socket it is.
    pub(crate) owner: Option<ProcessKey>,
    /// Whether any limit is in force.
    pub(crate) limits_active: bool,
}

impl Packet {
    /// Looks at a packet, unless it is on an interface that does not count.
    #[inline(always)]
    pub(crate) fn counted(ctx: &SkBuffContext) -> Option<Self> {
        let skb = ctx.skb.skb;
        let control = maps::control();
        // SAFETY: the hook's own context.
        let (ifindex, segments) = unsafe { ((*skb).ifindex, (*skb).gso_segs) };
        if ifindex == LOOPBACK_IFINDEX && control.include_loopback == 0 {
            return None;
        }
        let header_len = if segments > 1 { header_len(ctx).unwrap_or(0) } else { 0 };
        Some(Self {
            wire_len: wire_len(ctx.len(), segments, header_len),
            owner: socket_owner(ctx),
            limits_active: control.limits != 0,
        })
    }
}

/// The owner of the packet's socket. The hook has already gone from a request or time-wait socket to the full one
/// where there is one (`BPF_CGROUP_RUN_PROG_INET_EGRESS`, include/linux/bpf-cgroup.h).
#[inline(always)]
fn socket_owner(ctx: &SkBuffContext) -> Option<ProcessKey> {
    // SAFETY: the hook's own context; both pointers are checked before they are used.
    unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() {
            return None;
        }
        owner::of_socket(sk)
    }
}

/// Bytes of IP and transport header at the start of a super-packet. Data starts at the IP header in
/// `cgroup_skb`.
///
/// The kernel makes super-packets of TCP and UDP without extension headers alone (`inet_gro_receive`,
/// `ipv6_gro_receive`; `dev_gro_receive` flushes the others), apart from the hop-by-hop header of BIG TCP, which
/// does not travel.
#[inline(always)]
fn header_len(ctx: &SkBuffContext) -> Option<u32> {
    let first: u8 = ctx.load(0).ok()?;
    let (ip_len, protocol): (u32, u8) = match first >> 4 {
        4 => (ipv4_header_len(first), ctx.load(9).ok()?),
        6 => (IPV6_HEADER_LEN, ctx.load(6).ok()?),
        _ => return None,
    };
    match protocol {
        IPPROTO_TCP => Some(ip_len + tcp_header_len(ctx.load(ip_len as usize + 12).ok()?)),
        IPPROTO_UDP => Some(ip_len + UDP_HEADER_LEN),
        _ => Some(ip_len),
    }
}
