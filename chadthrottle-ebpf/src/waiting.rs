//! What is over the limit, and no TCP's: may it wait instead of being dropped?
//!
//! Where the queue of the interface is `fq`, a packet leaves at the time that stands in it (`skb->tstamp`, `fq_enqueue`,
//! `net/sched/sch_fq.c`; as `CLOCK_MONOTONIC` has it, whatever kind of time the packet says that it is). A program at a cgroup
//! may write that (`cg_skb_is_valid_access`, `net/core/filter.c`). Nothing on the way from there to the queue changes it;
//! fragments inherit it (`ip_do_fragment`).

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg},
    ptr,
};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
};
use chadthrottle_common::{LimitSettings, LimitState, Waiting, clock::departure};

use crate::{
    limit::{Offered, add},
    maps::{INTERFACES, NOTHING_WAITS, WAITING},
};

/// Has a packet that is over the limit leave when the limit allows it. Whether it does.
///
/// # Safety
/// `used` points to a live map value, and `skb` is the hook's own context.
#[inline(always)]
pub(crate) unsafe fn may_wait(
    skb: *mut __sk_buff,
    settings: &LimitSettings,
    used: *mut LimitState,
    offered: &Offered,
) -> bool {
    // SAFETY: as promised by the caller, and what is found in maps lives until the program has ended. Another CPU may let
    // a packet wait at the same time: then both leave at the same time, or one more waits than may.
    unsafe {
        let Some(longest) = INTERFACES.get(offered.ifindex).map(|interface| interface.longest_kept) else {
            return false;
        };
        // A super-packet is cut up behind the queue, any other one in front of it.
        if longest == 0 || ((*skb).gso_segs <= 1 && (*skb).len > longest) {
            return false;
        }
        let clock = ptr::read_volatile(&raw const (*used).clock_ns);
        let datagram_clock = ptr::read_volatile(&raw const (*used).datagram_clock_ns);
        // Of its own, and no other number that is used later is compared here: what the verifier learned of one it would take
        // along, and look at everything behind once for each case.
        let now = bpf_ktime_get_ns();
        let Some(departs) = departure(settings, clock, datagram_clock, now) else { return false };
        let Some(waiting) = waiting_of(offered.target) else { return false };
        if !(*waiting).has_room(now) {
            return false;
        }
        (*waiting).join(departs);
        // The sender itself may want it to leave later (`SO_TXTIME`).
        if (*skb).tstamp < departs {
            (*skb).tstamp = departs;
        }
        // Where it fails, another CPU has just moved the clock.
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            &raw mut (*used).datagram_clock_ns,
            datagram_clock,
            departs,
        );
        ptr::write_volatile(&raw mut (*used).waits_until_ns, departs);
        add(&raw mut (*used).stats.packets_delayed, 1);
        add(&raw mut (*used).stats.bytes_delayed, offered.bytes);
    }
    true
}

/// How long the packets that wait will use up the limit.
///
/// # Safety
/// `used` points to a live map value.
#[inline(always)]
pub(crate) unsafe fn ahead(used: *mut LimitState, now: u64) -> u64 {
    // SAFETY: as promised by the caller.
    unsafe {
        if ptr::read_volatile(&raw const (*used).waits_until_ns) <= now {
            return 0;
        }
        ptr::read_volatile(&raw const (*used).datagram_clock_ns).saturating_sub(now)
    }
}

/// What waits of a target.
#[inline(always)]
fn waiting_of(target: u32) -> Option<*mut Waiting> {
    WAITING.get_ptr_mut(target).or_else(|| {
        let nothing: &Waiting = &NOTHING_WAITS;
        // Another CPU may have made the entry in between, which is as good.
        let _ = WAITING.insert(target, nothing, u64::from(BPF_NOEXIST));
        WAITING.get_ptr_mut(target)
    })
}
