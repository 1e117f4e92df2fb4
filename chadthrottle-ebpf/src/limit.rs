//! May it pass?

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, cold_path};
use core::ptr;

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::{
        bpf_ktime_get_ns, bpf_sk_fullsock,
        generated::{bpf_skb_cgroup_id, bpf_skb_ecn_set_ce, bpf_tcp_sock},
    },
    programs::SkBuffContext,
};
use aya_log_ebpf::trace;
use chadthrottle_common::{
    DIRECTION_DOWNLOAD, DIRECTION_UPLOAD, LIMIT_IN_FORCE, LimitSettings, LimitState, ThrottleStats,
    clock::{Admission, NS_PER_SEC, admit, cost_ns},
    limit_index,
};

use crate::{
    maps::{CLOCKS, LIMITS},
    membership,
    packet::Packet,
    waiting,
};

/// How far the clock may be ahead when a packet is marked instead of dropped: whoever has agreed to be told of congestion
/// by a mark (RFC 3168) slows down within a round trip.
const MARKED_DEBT_NS: u64 = NS_PER_SEC / 5;

/// How many round trips flow control may take to even out what was too much.
const DEBT_TRIPS: u64 = 25;

/// A round trip of less is too short for any window that the kernel allows, where the limit is not high. Then a sender
/// that has lost a segment is silent until its retransmission timer, 200 ms at least (`TCP_RTO_MIN`, include/net/tcp.h):
/// the limit stays closed for most of that, instead of letting single segments through whose followers are lost again.
const SHORT_TRIP_NS: u64 = 1_000_000;
const CLOSED_NS: u64 = 150_000_000;

/// What opens a connection may be so far ahead. Lost, it is sent again after a second, two, four and so on (RFC 6298,
/// section 5.5), and where many connections keep a limit used up it may never find a gap.
const OPENING_DEBT_NS: u64 = NS_PER_SEC;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passes.
    Pass,
    /// It is over the limit.
    Drop,
}

/// Whether the packet's target, if it has one, may have it now.
#[inline(always)]
pub(crate) fn verdict(ctx: &SkBuffContext, packet: &Packet, direction: u32) -> Verdict {
    if !packet.control.has_limits() {
        return Verdict::Pass;
    }
    let Some(socket) = packet.socket else { return Verdict::Pass };
    let skb = ctx.skb.skb;
    // SAFETY: the packet's own socket, and the hook's own context.
    let target = unsafe { membership::target_of(skb, socket, &packet.control) };
    if target == 0 {
        return Verdict::Pass;
    }
    let index = limit_index(target, direction);
    let (Some(settings), Some(used)) = (LIMITS.get(index), CLOCKS.get_ptr_mut(index)) else {
        return Verdict::Pass;
    };
    let traffic = u32::from(settings.config.traffic_type);
    // 0 for all traffic, and for that of the packet's scope. A comparison of the scope itself would tell the verifier
    // more of it, and have it look three times as long at what comes after.
    let is_other = traffic.wrapping_mul(traffic ^ packet.scope);
    if is_other != 0 {
        return Verdict::Pass;
    }
    if direction == DIRECTION_UPLOAD {
        tag(skb, settings);
    }
    if settings.flags & LIMIT_IN_FORCE == 0 {
        return Verdict::Pass;
    }
    let offered = Offered {
        bytes: packet.flow.bytes,
        is_stream: packet.is_stream,
        tgid: packet.owner.tgid(),
        direction,
        target,
        ifindex: packet.ifindex,
    };
    // SAFETY: a live map value, whose fields are used atomically, and the hook's own context.
    unsafe { offer(ctx, skb, settings, used, &offered, || round_trip_of(skb)) }
}

/// What is offered to a limit.
pub(crate) struct Offered {
    /// As it travels, in IP bytes.
    pub(crate) bytes: u64,
    /// Whether it is TCP's.
    pub(crate) is_stream: bool,
    /// Whose it is, for messages.
    pub(crate) tgid: u32,
    /// One of the `DIRECTION_…` constants.
    pub(crate) direction: u32,
    /// The number of the target.
    pub(crate) target: u32,
    /// The interface that it leaves by, or 0 where that is in another network namespace.
    pub(crate) ifindex: u32,
}

/// Tells queueing disciplines and firewalls whose packet it is.
#[inline(always)]
fn tag(skb: *mut __sk_buff, settings: &LimitSettings) {
    // SAFETY: the hook's own context.
    unsafe {
        if settings.priority != 0 {
            (*skb).priority = settings.priority;
        }
        if settings.mark != 0 {
            (*skb).mark = settings.mark;
        }
    }
}

/// [`LimitState::offer`] for a clock that other CPUs move as well, and what is gentler than to drop. `round_trip` tells that
/// of the connection in nanoseconds, where it is known, and is asked only if that matters.
///
/// # Safety
/// `used` points to a live map value, and `skb` is the hook's own context.
#[inline(always)]
pub(crate) unsafe fn offer(
    ctx: &impl EbpfContext,
    skb: *mut __sk_buff,
    settings: &LimitSettings,
    used: *mut LimitState,
    offered: &Offered,
    round_trip: impl FnOnce() -> Option<u64>,
) -> Verdict {
    let Offered { bytes, is_stream, tgid, direction, .. } = *offered;
    // SAFETY: as promised by the caller.
    unsafe {
        let stats = &raw mut (*used).stats;
        add(&raw mut (*stats).packets_total, 1);
        add(&raw mut (*stats).bytes_total, bytes);
        let (clock, datagram_clock) = (&raw mut (*used).clock_ns, &raw mut (*used).datagram_clock_ns);
        let now = bpf_ktime_get_ns();
        let may_pass = if is_stream {
            (now >= ptr::read_volatile(&raw const (*used).closed_until_ns) && admits(settings, 0, clock, now))
                || may_owe(round_trip(), settings, used, direction, now)
        } else {
            admits(settings, settings.debt_ns, clock, now) && admits(settings, 0, datagram_clock, now)
        };
        if !may_pass {
            cold_path();
            if direction == DIRECTION_DOWNLOAD && is_stream && now < settings.grace_until_ns {
                // Promised before there was a limit, and not charged to what comes after.
                return Verdict::Pass;
            }
            if direction == DIRECTION_UPLOAD && !is_stream && waiting::may_wait(skb, settings, used, offered)
            {
                mark(skb, stats, bytes);
            } else if is_beyond_marking(settings, used, is_stream, now) || !mark(skb, stats, bytes) {
                add(&raw mut (*stats).packets_dropped, 1);
                add(&raw mut (*stats).bytes_dropped, bytes);
                (*stats).cgroup_id_seen = bpf_skb_cgroup_id(skb);
                trace!(ctx, "{} bytes of {} over the limit", bytes, tgid);
                return Verdict::Drop;
            }
        }
        let cost_ns = cost_ns(bytes, settings.config.rate_bps);
        add(clock, cost_ns);
        if !is_stream {
            add(datagram_clock, cost_ns);
            add(&raw mut (*used).datagram_bytes, bytes);
        }
    }
    Verdict::Pass
}

/// Whether a packet that is over the limit is more than a mark can even out, or would overtake packets that wait.
///
/// # Safety
/// `used` points to a live map value.
#[inline(always)]
unsafe fn is_beyond_marking(
    settings: &LimitSettings,
    used: *mut LimitState,
    is_stream: bool,
    now: u64,
) -> bool {
    // SAFETY: as promised by the caller.
    unsafe {
        let ahead = waiting::ahead(used, now);
        settings.config.rate_bps == 0
            || (!is_stream && ahead != 0)
            || ptr::read_volatile(&raw const (*used).clock_ns)
                > now + settings.debt_ns + MARKED_DEBT_NS + ahead
    }
}

/// Tells the receiver of congestion, where that is agreed on. Whether it is.
///
/// # Safety
/// `skb` is the hook's own context, and `stats` points into a live map value.
#[inline(always)]
unsafe fn mark(skb: *mut __sk_buff, stats: *mut ThrottleStats, bytes: u64) -> bool {
    // SAFETY: as promised by the caller.
    unsafe {
        if bpf_skb_ecn_set_ce(skb) == 0 {
            return false;
        }
        add(&raw mut (*stats).packets_marked, 1);
        add(&raw mut (*stats).bytes_marked, bytes);
    }
    true
}

/// The round trip of the packet's connection, in nanoseconds.
///
/// # Safety
/// `skb` is the hook's own context.
#[inline(always)]
unsafe fn round_trip_of(skb: *mut __sk_buff) -> Option<u64> {
    cold_path();
    // SAFETY: as promised by the caller; every pointer is checked before it is used.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        let sk = if sk.is_null() { sk } else { bpf_sk_fullsock(sk) };
        let tcp = if sk.is_null() { ptr::null_mut() } else { bpf_tcp_sock(sk) };
        if tcp.is_null() { None } else { Some(in_nanoseconds((*tcp).srtt_us)) }
    }
}

/// A smoothed round trip, which TCP keeps in eighths of microseconds (`srtt_us`, include/linux/tcp.h).
#[inline(always)]
pub(crate) fn in_nanoseconds(srtt_us: u32) -> u64 {
    u64::from(srtt_us) * 1000 / 8
}

/// Whether a TCP connection may go on although the limit is used up: flow control evens that out within some round trips.
/// Where they are so short that no window is small enough, it may not.
///
/// # Safety
/// `used` points to a live map value.
#[inline(always)]
unsafe fn may_owe(
    round_trip: Option<u64>,
    settings: &LimitSettings,
    used: *mut LimitState,
    direction: u32,
    now: u64,
) -> bool {
    cold_path();
    // SAFETY: as promised by the caller.
    unsafe {
        let clock = &raw mut (*used).clock_ns;
        // What waits is charged already, and leaves later.
        let ahead = waiting::ahead(used, now);
        let Some(trip_ns) = round_trip else { return ahead != 0 && admits(settings, ahead, clock, now) };
        // There is none before the answer to the first segment.
        if trip_ns == 0 {
            return admits(settings, OPENING_DEBT_NS + ahead, clock, now);
        }
        let closed_until = &raw mut (*used).closed_until_ns;
        if direction == DIRECTION_DOWNLOAD && trip_ns < SHORT_TRIP_NS {
            if now >= ptr::read_volatile(closed_until) {
                ptr::write_volatile(closed_until, now + CLOSED_NS);
            }
            return false;
        }
        let debt_ns = trip_ns * DEBT_TRIPS;
        let debt_ns = if debt_ns < settings.debt_ns { debt_ns } else { settings.debt_ns };
        let debt_ns = debt_ns + ahead;
        debt_ns != 0 && admits(settings, debt_ns, clock, now)
    }
}

/// [`admit`] by a clock that other CPUs move as well. One that lags behind is set to its floor.
///
/// # Safety
/// `clock` points to a live map value.
#[inline(always)]
unsafe fn admits(settings: &LimitSettings, debt_ns: u64, clock: *mut u64, now: u64) -> bool {
    // SAFETY: as promised by the caller.
    unsafe {
        let seen = ptr::read_volatile(clock);
        match admit(settings, debt_ns, seen, now) {
            Admission::Over => false,
            Admission::Pass => true,
            Admission::PassFrom(floor) => {
                // Where it fails, another CPU has just moved the clock, from the same floor.
                atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                    clock, seen, floor,
                );
                true
            }
        }
    }
}

/// Counts what passes although nobody has asked the clock.
///
/// # Safety
/// `used` points to a live map value.
#[inline(always)]
pub(crate) unsafe fn count(used: *mut LimitState, bytes: u64) {
    // SAFETY: as promised by the caller.
    unsafe {
        add(&raw mut (*used).stats.packets_total, 1);
        add(&raw mut (*used).stats.bytes_total, bytes);
    }
}

/// # Safety
/// `number` points to a live map value.
#[inline(always)]
pub(crate) unsafe fn add(number: *mut u64, more: u64) {
    // SAFETY: as promised by the caller.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(number, more) };
}
