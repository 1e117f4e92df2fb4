//! What a packet hook needs to know of a packet.

use aya_ebpf::{
    bindings::{BPF_TCP_LISTEN, bpf_sock},
    helpers::{bpf_probe_read_kernel, bpf_sk_fullsock, generated::bpf_skc_to_tcp_sock},
    programs::SkBuffContext,
};
use chadthrottle_common::{
    DIRECTION_UPLOAD, LOOPBACK_IFINDEX, SocketOwner,
    wire::{
        IPPROTO_TCP, IPPROTO_UDP, IPV6_HEADER_LEN, UDP_HEADER_LEN, ipv4_header_len, tcp_header_len, wire_len,
    },
};

use crate::{maps, owner};

/// One packet, or a super-packet that stands for several.
pub(crate) struct Packet {
    /// IP bytes as they travel.
    pub(crate) wire_len: u64,
    /// The storage of the socket that it belongs to.
    pub(crate) socket: Option<*mut SocketOwner>,
    /// Whether that socket listens: the packet is part of somebody's handshake.
    pub(crate) is_listener: bool,
    /// Whether any limit is in force.
    pub(crate) limits_active: bool,
}

impl Packet {
    /// Looks at a packet, unless it is on an interface that does not count.
    #[inline(always)]
    pub(crate) fn counted(ctx: &SkBuffContext, direction: u32) -> Option<Self> {
        let skb = ctx.skb.skb;
        let control = maps::control();
        // SAFETY: the hook's own context.
        let (ifindex, segments) = unsafe { ((*skb).ifindex, (*skb).gso_segs) };
        if ifindex == LOOPBACK_IFINDEX && control.include_loopback == 0 {
            return None;
        }
        let header_len = if segments > 1 { header_len(ctx).unwrap_or(0) } else { 0 };
        let mut packet = Self {
            wire_len: wire_len(ctx.len(), segments, header_len),
            socket: None,
            is_listener: false,
            limits_active: control.limits != 0,
        };
        packet.find_socket(ctx, direction);
        Some(packet)
    }

    /// Looks at the packet's socket. The hook has already gone from a request or time-wait socket to the full one where
    /// there is one (`BPF_CGROUP_RUN_PROG_INET_EGRESS`, include/linux/bpf-cgroup.h).
    #[inline(always)]
    fn find_socket(&mut self, ctx: &SkBuffContext, direction: u32) {
        // SAFETY: the hook's own context; every pointer is checked before it is used.
        unsafe {
            let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
            if sk.is_null() {
                return;
            }
            let sk = bpf_sk_fullsock(sk);
            if sk.is_null() {
                return;
            }
            let Some(socket) = owner::of_socket(sk.cast()) else { return };
            self.socket = Some(socket);
            if (*sk).protocol != u32::from(IPPROTO_TCP) {
                // What is no TCP leaves within the call that sends it.
                if direction == DIRECTION_UPLOAD {
                    owner::claim(ctx, socket);
                }
                return;
            }
            self.is_listener = (*sk).state == BPF_TCP_LISTEN;
            if self.is_listener {
                // Whatever is accepted from here on takes the mark along.
                (*socket).is_presumed = 1;
            } else if direction == DIRECTION_UPLOAD && is_in_use(sk) {
                owner::claim(ctx, socket);
            }
        }
    }
}

/// Whether a process is inside a call on a TCP socket right now (`sock_owned_by_user`, include/net/sock.h). Then a
/// packet that leaves does so in that process's context; at other times timers and incoming acknowledgements make
/// packets leave, in anybody's.
///
/// # Safety
/// `sk` is a full socket.
#[inline(always)]
unsafe fn is_in_use(sk: *mut bpf_sock) -> bool {
    // SAFETY: as promised by the caller; the result is checked.
    unsafe {
        let tcp: *const u8 = bpf_skc_to_tcp_sock(sk.cast()).cast();
        if tcp.is_null() {
            return false;
        }
        // A TCP socket begins with the general one.
        let owned = tcp.add(maps::sock_lock_owned()).cast();
        bpf_probe_read_kernel::<i32>(owned).is_ok_and(|owned| owned != 0)
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
