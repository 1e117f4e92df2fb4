//! May it pass?

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use core::ptr;

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_ns, generated::bpf_skb_cgroup_id},
    programs::SkBuffContext,
};
use aya_log_ebpf::trace;
use chadthrottle_common::{
    LimitKey, LimitState, ThrottleStats,
    clock::{Admission, admit, cost_ns},
};

use crate::{
    maps::{LIMITS, MEMBERS, STATS, count_lost},
    packet::Packet,
};

/// Whether the packet's target, if it has one, may have it now.
#[inline(always)]
pub(crate) fn admits(ctx: &SkBuffContext, packet: &Packet, direction: u32) -> bool {
    if !packet.limits_active {
        return true;
    }
    // SAFETY: copied out at once.
    let Some(membership) = (unsafe { MEMBERS.get(packet.owner) }).copied() else { return true };
    let key = LimitKey { target: membership.target, direction };
    let limit = LIMITS.get_ptr_mut(key);
    let admitted = match limit {
        // The target is limited in the other direction only, or just no more.
        None => true,
        // SAFETY: a map value, valid for the program's run; shared fields are used atomically.
        Some(limit) => unsafe { offer(limit, packet.flow.bytes) },
    };
    record(ctx, key, packet, admitted, limit.is_some());
    if !admitted {
        trace!(ctx, "{} bytes of {} over the limit", packet.flow.bytes, packet.owner.tgid());
    }
    admitted
}

/// [`LimitState::offer`] for a clock that other CPUs move as well.
///
/// # Safety
/// `limit` points to a live map value.
#[inline(always)]
unsafe fn offer(limit: *mut LimitState, bytes: u64) -> bool {
    // SAFETY: as promised by the caller. The configuration is replaced as a whole by userspace, never in place.
    unsafe {
        let rate_bps = (*limit).config.rate_bps;
        let clock = &raw mut (*limit).clock_ns;
        let seen = ptr::read_volatile(clock);
        match admit(rate_bps, (*limit).burst_ns, seen, bpf_ktime_get_ns()) {
            Admission::Over => return false,
            Admission::Pass => {}
            // Where it fails, another CPU has just moved the clock, from the same floor.
            Admission::PassFrom(floor) => {
                atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                    clock, seen, floor,
                );
            }
        }
        atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(clock, cost_ns(bytes, rate_bps));
    }
    true
}

/// Counts what was offered to a target's limit and what became of it.
#[inline(always)]
fn record(ctx: &SkBuffContext, key: LimitKey, packet: &Packet, admitted: bool, limited: bool) {
    let stats = STATS.get_ptr_mut(key).or_else(|| {
        let _ = STATS.insert(key, ThrottleStats::default(), u64::from(BPF_NOEXIST));
        STATS.get_ptr_mut(key)
    });
    let Some(stats) = stats else {
        count_lost();
        return;
    };
    // SAFETY: this CPU's own copy, valid for the program's run.
    unsafe {
        (*stats).program_calls += 1;
        (*stats).packets_total += 1;
        (*stats).bytes_total += packet.flow.bytes;
        (*stats).cgroup_id_seen = bpf_skb_cgroup_id(ctx.as_ptr().cast());
        if !limited {
            (*stats).config_misses += 1;
        } else if !admitted {
            (*stats).packets_dropped += 1;
            (*stats).bytes_dropped += packet.flow.bytes;
        }
    }
}
