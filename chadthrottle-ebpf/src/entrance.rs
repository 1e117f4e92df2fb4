//! What arrives by an interface, before anything else has seen it: whose is it going to be, and may it pass?
//!
//! A packet has no socket yet here. It is looked up as the kernel will do it a moment later, and the target stands in the
//! socket's storage, as for the hooks behind. What those have not found out yet (the cgroup or user of a socket, since
//! memberships have changed) they find out with this packet, which passes. Of a datagram in fragments the first one is
//! looked at, and the others share its fate (`fragments`).

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_TCP_LISTEN, bpf_sock},
    helpers::{
        bpf_ktime_get_ns, bpf_redirect,
        generated::{
            bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_change_head, bpf_skb_pull_data,
            bpf_tcp_sock,
        },
    },
    programs::TcContext,
};
use chadthrottle_common::{
    DIRECTION_DOWNLOAD, LIMIT_AT_ENTRANCE, LimitSettings, LimitState, SocketOwner, TRAFFIC_TYPE_ALL,
    limit_index, wire::flow,
};

use crate::{
    fragments::{self, FragmentKey},
    headers::{Headers, Peer},
    limit::{self, Offered, Verdict, in_nanoseconds},
    maps::{CLOCKS, Control, INTERFACES, LIMITS},
    membership, owner, peer,
    transport::{Part, Transport},
};

/// The next program on the interface, or the packet's way on; and the end of it (`TCX_NEXT` and `TCX_DROP`,
/// include/uapi/linux/bpf.h; the same for filters of a queue, `TC_ACT_UNSPEC` and `TC_ACT_SHOT`).
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// `PACKET_OTHERHOST` (`include/uapi/linux/if_packet.h`): it is a macvlan's, or nobody's here.
const OF_ANOTHER_HOST: u32 = 3;
/// Bytes of the longest link-layer header that there may be: Ethernet with two VLAN tags is 22.
const LONGEST_LINK_HEADER: u32 = 64;
/// Bytes of an Ethernet header, without which the kernel sends nothing to an IFB.
const ETHERNET_HEADER: u32 = 14;
/// As many bytes behind the link's header are looked at: IPv6 with a jumbo option, and TCP.
const HEADERS: u32 = 40 + 8 + 20;
/// `BPF_F_CURRENT_NETNS`: the network namespace of the interface.
const OWN_NETNS: u64 = u64::MAX;

/// The socket that a packet will go to.
struct Receiver {
    socket: *mut SocketOwner,
    is_stream: bool,
    round_trip_ns: Option<u64>,
}

/// What becomes of a packet that arrives.
#[inline(always)]
pub(crate) fn verdict(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(control) = Control::get() else { return NEXT };
    if !control.has_limits() {
        return NEXT;
    }
    // SAFETY: the program's own context.
    let (interface, of_whom, has_tag) =
        unsafe { ((*skb).ifindex, (*skb).pkt_type, (*skb).vlan_present != 0) };
    // What has a tag is seen again on the VLAN's own interface.
    if of_whom == OF_ANOTHER_HOST || has_tag {
        return NEXT;
    }
    // SAFETY: copied out at once.
    let Some(interface) = (unsafe { INTERFACES.get(interface) }).copied() else { return NEXT };
    let link_header_len = interface.link_header_len;
    if link_header_len > LONGEST_LINK_HEADER {
        return NEXT;
    }
    let headers = linear_headers(skb, link_header_len);
    let Some(transport) = Transport::of(skb, &headers, link_header_len) else { return NEXT };
    if let Part::Later(key) = transport.part {
        return follow(skb, &key, link_header_len);
    }
    let Some(receiver) = receiver(skb, &headers, &transport, link_header_len) else { return NEXT };
    // SAFETY: the storage of a socket that was there a moment ago, which stays until the program has ended.
    let target = unsafe { membership::target_at_entrance(receiver.socket) };
    let Some((settings, used)) = limit_of(skb, target) else { return NEXT };
    let traffic = settings.config.traffic_type;
    if traffic != TRAFFIC_TYPE_ALL && u32::from(traffic) != peer::scope(&headers, Peer::Source, &control) {
        return NEXT;
    }
    let bytes = ip_bytes(skb, &headers, link_header_len);
    let verdict = if settings.queue == 0 {
        let offered = Offered {
            bytes,
            is_stream: receiver.is_stream,
            // SAFETY: as above.
            tgid: unsafe { owner::process(receiver.socket) }.tgid(),
            direction: DIRECTION_DOWNLOAD,
            target,
            ifindex: 0,
        };
        // SAFETY: a live map value, whose fields are used atomically, and the program's own context.
        unsafe { limit::offer(ctx, skb, settings, used, &offered, || receiver.round_trip_ns) }
    } else {
        // What was promised before there was a limit would not find room.
        let is_let_off = || {
            // SAFETY: the helper has no arguments.
            unsafe { bpf_ktime_get_ns() < settings.grace_until_ns }
        };
        if receiver.is_stream && settings.grace_until_ns != 0 && is_let_off() {
            // SAFETY: a live map value, whose fields are used atomically.
            unsafe { limit::count(used, bytes) };
            return NEXT;
        }
        match transport.part {
            // SAFETY: as above.
            Part::First(_) => unsafe { fragments::may_queue(settings, used, bytes) },
            _ => Verdict::Pass,
        }
    };
    if let Part::First(key) = transport.part {
        key.decide(target, verdict, receiver.is_stream);
    }
    match verdict {
        Verdict::Drop => DROP,
        Verdict::Pass if settings.queue == 0 => NEXT,
        Verdict::Pass => to_queue(skb, settings, link_header_len),
    }
}

/// The limit of a target, where it is held here and the packet has not come from its queue: it is seen again where an
/// interface hands it on to another one.
#[inline(always)]
fn limit_of(skb: *mut __sk_buff, target: u32) -> Option<(&'static LimitSettings, *mut LimitState)> {
    let index = limit_index(target, DIRECTION_DOWNLOAD);
    let settings = LIMITS.get(index)?;
    if target == 0 || settings.flags & LIMIT_AT_ENTRANCE == 0 {
        return None;
    }
    // SAFETY: the program's own context.
    if settings.queue != 0 && unsafe { (*skb).priority } == settings.priority {
        return None;
    }
    Some((settings, CLOCKS.get_ptr_mut(index)?))
}

/// A fragment has the fate of its datagram's first one.
#[inline(always)]
fn follow(skb: *mut __sk_buff, key: &FragmentKey, link_header_len: u32) -> i32 {
    let Some(decided) = key.decided() else { return NEXT };
    let Some((settings, used)) = limit_of(skb, decided.target) else { return NEXT };
    // SAFETY: the program's own context, and a live map value, whose fields are used atomically.
    unsafe {
        let bytes = u64::from((*skb).len.saturating_sub(link_header_len));
        if decided.is_dropped != 0 {
            fragments::drop_with_the_first(used, bytes);
            return DROP;
        }
        fragments::follow_the_first(settings, used, bytes, decided.is_stream != 0);
    }
    if settings.queue == 0 { NEXT } else { to_queue(skb, settings, link_header_len) }
}

/// Sends a packet on by the queue of an IFB, which hands it back to the interface that it came by.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the helper returns a verdict, which is a small number")]
fn to_queue(skb: *mut __sk_buff, settings: &LimitSettings, link_header_len: u32) -> i32 {
    // SAFETY: the program's own context.
    unsafe {
        if link_header_len == 0 && bpf_skb_change_head(skb, ETHERNET_HEADER, 0) != 0 {
            return NEXT;
        }
        (*skb).priority = settings.priority;
        bpf_redirect(settings.queue, 0) as i32
    }
}

/// The headers of a packet, which a driver may have left in pages.
#[inline(always)]
fn linear_headers(skb: *mut __sk_buff, link_header_len: u32) -> Headers {
    // SAFETY: the program's own context; pointers into the packet are taken afterwards.
    unsafe {
        let linear = (*skb).data_end.wrapping_sub((*skb).data);
        let wanted = link_header_len + HEADERS;
        if linear < wanted {
            let len = (*skb).len;
            // Where it fails there is less to be looked at.
            let _ = bpf_skb_pull_data(skb, if len < wanted { len } else { wanted });
        }
    }
    // The compiler knows already that it is so short, and does without the mask; Linux 6.1 does not know it any more, after
    // moves and shifts. What is read like this is new to both.
    // SAFETY: a local variable.
    let at = unsafe { ptr::read_volatile(&raw const link_header_len) } & (2 * LONGEST_LINK_HEADER - 1);
    Headers::of(skb, at as usize)
}

#[inline(always)]
fn ip_bytes(skb: *mut __sk_buff, headers: &Headers, link_header_len: u32) -> u64 {
    // SAFETY: the program's own context.
    let (len, segments) = unsafe { ((*skb).len, (*skb).gso_segs) };
    let len = len.saturating_sub(link_header_len);
    if segments > 1 {
        flow(len, segments, headers.merged_len(), headers.not_travelling()).bytes
    } else {
        len.into()
    }
}

/// Who will have a packet, if that is a socket with an owner.
#[inline(always)]
fn receiver(skb: *mut __sk_buff, headers: &Headers, transport: &Transport, ip_at: u32) -> Option<Receiver> {
    // Addresses first: what follows from the place of the ports the verifier would not know.
    if headers.is_v6() {
        let at: [u32; 8] = headers.load(8)?;
        let ports = transport.ports_v6(skb, headers, ip_at)?;
        let connection = [at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], ports];
        return look_up(skb, connection, transport.is_stream);
    }
    let at: [u32; 2] = headers.load(12)?;
    let ports = transport.ports_v4(headers)?;
    look_up(skb, [at[0], at[1], ports], transport.is_stream)
}

/// The socket of a connection (`struct bpf_sock_tuple`: both addresses and both ports, as they stand in the packet).
#[inline(always)]
fn look_up<const WORDS: usize>(
    skb: *mut __sk_buff,
    mut connection: [u32; WORDS],
    is_stream: bool,
) -> Option<Receiver> {
    let tuple = connection.as_mut_ptr().cast();
    #[expect(clippy::cast_possible_truncation, reason = "three words, or nine")]
    let (ctx, length): (*mut c_void, u32) = (skb.cast(), WORDS as u32 * 4);
    // SAFETY: the program's own context, and a tuple of that length; what is found is released, and its storage is freed
    // after the program has ended.
    unsafe {
        let sk = if is_stream {
            bpf_sk_lookup_tcp(ctx, tuple, length, OWN_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(ctx, tuple, length, OWN_NETNS, 0)
        };
        if sk.is_null() {
            return None;
        }
        let is_listening = is_stream && (*sk).state == BPF_TCP_LISTEN;
        let round_trip_ns = if is_stream && !is_listening { round_trip(sk) } else { None };
        let socket = owner::of_socket(sk.cast());
        bpf_sk_release(sk.cast());
        // Who wants to connect may.
        if is_listening { None } else { Some(Receiver { socket: socket?, is_stream, round_trip_ns }) }
    }
}

/// # Safety
/// `sk` is a socket that is held.
#[inline(always)]
unsafe fn round_trip(sk: *mut bpf_sock) -> Option<u64> {
    // SAFETY: as promised by the caller; the result is checked.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() { None } else { Some(in_nanoseconds((*tcp).srtt_us)) }
    }
}
