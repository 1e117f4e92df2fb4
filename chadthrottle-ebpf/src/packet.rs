//! What a packet hook needs to know of a packet.

use core::{ffi::c_void, intrinsics::cold_path};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_TCP_LISTEN, bpf_sock},
    helpers::generated::bpf_skc_to_tcp_sock,
    programs::SkBuffContext,
};
use chadthrottle_common::{
    DIRECTION_UPLOAD, FlowCounters, LOOPBACK_IFINDEX, ProcessKey, SocketOwner, wire::flow,
};

use crate::{
    headers::{Headers, Peer},
    maps::{self, Control},
    nobody, offsets, owner, peer,
    process::current_tgid,
};

/// One packet, or a super-packet that stands for several.
pub(crate) struct Packet {
    /// What it adds to the counters of its direction.
    pub(crate) flow: FlowCounters,
    /// Whose it is, or which bucket's.
    pub(crate) owner: ProcessKey,
    /// The interface, or 0 where that is in another network namespace.
    pub(crate) ifindex: u32,
    /// Where the peer is: one of the `SCOPE_…` constants.
    pub(crate) scope: u32,
    /// The storage of its socket, where the socket has an owner.
    pub(crate) socket: Option<*mut SocketOwner>,
    /// Whether it has to wait in there until it is known who uses the socket.
    pub(crate) is_held: bool,
    /// Whether it is TCP's.
    pub(crate) is_stream: bool,
    /// The switches.
    pub(crate) control: Control,
}

impl Packet {
    /// Looks at a packet, unless it is on an interface that does not count.
    #[inline(always)]
    pub(crate) fn counted(ctx: &SkBuffContext, direction: u32) -> Option<Self> {
        let skb = ctx.skb.skb;
        let control = Control::get()?;
        // SAFETY: the hook's own context.
        let (ifindex, segments, len) = unsafe { ((*skb).ifindex, (*skb).gso_segs, (*skb).len) };
        if ifindex == LOOPBACK_IFINDEX && !control.includes_loopback() {
            return None;
        }
        let headers = Headers::of(skb, 0);
        let mut packet = Self {
            flow: flow(len, segments, 0, 0),
            owner: ProcessKey::UNKNOWN,
            ifindex,
            scope: 0,
            socket: None,
            is_held: false,
            is_stream: true,
            control,
        };
        if segments > 1 {
            packet.flow = flow(len, segments, headers.merged_len(), headers.not_travelling());
        }
        packet.find_owner(ctx, &headers, direction, &control);
        if control.has_chosen_interfaces() {
            cold_path();
            if !maps::is_chosen(packet.ifindex) {
                return None;
            }
        }
        Some(packet)
    }

    /// Looks at the packet's socket. The hook has already gone from a request or time-wait socket to the full one where
    /// there is one (`BPF_CGROUP_RUN_PROG_INET_EGRESS`, include/linux/bpf-cgroup.h).
    #[inline(always)]
    fn find_owner(&mut self, ctx: &SkBuffContext, headers: &Headers, direction: u32, control: &Control) {
        let skb = ctx.skb.skb;
        let peer = Peer::from_direction(direction);
        // SAFETY: the hook's own context; every pointer is checked before it is used.
        unsafe {
            let sk = (*skb).__bindgen_anon_2.sk;
            if sk.is_null() {
                cold_path();
                self.is_of_nobody(skb, headers, peer, control);
                return;
            }
            let Some(socket) = owner::of_socket(sk.cast()) else {
                cold_path();
                self.is_of_nobody(skb, headers, peer, control);
                return;
            };
            self.socket = Some(socket);
            if (*socket).is_elsewhere != 0 {
                cold_path();
                self.ifindex = 0;
            }
            if (*socket).is_stream == 0 {
                self.is_stream = false;
                // What is no TCP leaves within the call that sends it.
                if direction == DIRECTION_UPLOAD {
                    owner::claim(ctx, socket);
                }
                self.scope = peer::scope(headers, peer, control);
                self.owner = owner::process(socket);
                self.is_held = (*socket).is_presumed != 0;
                return;
            }
            if (*sk).state == BPF_TCP_LISTEN {
                cold_path();
                // Whatever is accepted from here on takes the mark along.
                (*socket).is_presumed = 1;
                self.scope = peer::scope(headers, peer, control);
                self.owner = owner::process(socket);
                return;
            }
            if direction == DIRECTION_UPLOAD && !is_known_user(socket) && is_in_use(sk) {
                owner::claim(ctx, socket);
            }
            self.scope = peer::scope_of_stream(socket, headers, peer, control);
            self.is_held = (*socket).is_presumed != 0;
            self.owner = if direction == DIRECTION_UPLOAD {
                owner::writer_of(socket, headers)
            } else {
                owner::process(socket)
            };
        }
    }

    /// No socket of a process: less frequent, so that it may take longer.
    #[inline(always)]
    fn is_of_nobody(&mut self, skb: *mut __sk_buff, headers: &Headers, peer: Peer, control: &Control) {
        self.owner = nobody::bucket(skb);
        if nobody::is_elsewhere(skb) {
            self.ifindex = 0;
        }
        self.scope = peer::scope(headers, peer, control);
    }
}

/// Whether the current process is the owner already, and known to be. Then nothing can change.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
unsafe fn is_known_user(socket: *mut SocketOwner) -> bool {
    // SAFETY: as promised by the caller.
    unsafe { (*socket).is_presumed == 0 && owner::process(socket).tgid() == current_tgid() }
}

/// Whether a process is inside a call on a TCP socket right now (`sock_owned_by_user`, include/net/sock.h). Then a
/// packet that leaves does so in that process's context; at other times timers and incoming acknowledgements make
/// packets leave, in anybody's.
///
/// # Safety
/// `sk` is the packet's own socket.
#[inline(always)]
unsafe fn is_in_use(sk: *mut bpf_sock) -> bool {
    // SAFETY: as promised by the caller; the helper tells whether this is TCP, and the result is checked.
    unsafe {
        let tcp: *const c_void = bpf_skc_to_tcp_sock(sk.cast()).cast();
        !tcp.is_null() && offsets::is_owned_by_user(tcp)
    }
}
