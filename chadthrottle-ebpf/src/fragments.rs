//! Datagrams that arrive in fragments, of which the first alone says whose they are.
//!
//! Without one of them all others are worth nothing: so the first is asked for, and the others follow it. What follows one
//! that has passed is charged, although the clock is ahead by then, and what follows one that was dropped is dropped. Those
//! that come before their first one pass, and cost nothing.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr;

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_ktime_get_ns};
use chadthrottle_common::{LimitSettings, LimitState, clock::cost_ns};

use crate::{
    limit::{Verdict, add, count},
    maps::FRAGMENTS,
};

/// What is not used may be saved up for so long, where a queue is behind that takes 50 ms: datagrams do not come just when
/// the next one may.
const SAVED_NS: u64 = 10_000_000;

/// By what fragments of one datagram are known: both addresses (of IPv4 as IPv4-mapped), as they stand in the packet, its
/// number, and of IPv4 its protocol (RFC 791, section 3.2; RFC 8200, section 4.5).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FragmentKey {
    source: [u32; 4],
    destination: [u32; 4],
    id: u32,
    protocol: u32,
}

/// What was decided.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Decided {
    /// Whose limit it is.
    pub(crate) target: u32,
    /// Not 0: it was over the limit.
    pub(crate) is_dropped: u32,
    /// Not 0: it is TCP's.
    pub(crate) is_stream: u32,
    _padding: u32,
}

impl FragmentKey {
    #[inline(always)]
    pub(crate) const fn of_v4(source: u32, destination: u32, id: u16, protocol: u8) -> Self {
        let mapped = 0xffff_u32.to_be();
        Self {
            source: [0, 0, mapped, source],
            destination: [0, 0, mapped, destination],
            id: id as u32,
            protocol: protocol as u32,
        }
    }

    #[inline(always)]
    pub(crate) const fn of_v6(source: [u32; 4], destination: [u32; 4], id: u32) -> Self {
        Self { source, destination, id, protocol: 0 }
    }

    /// Notes what becomes of the first one.
    #[inline(always)]
    pub(crate) fn decide(&self, target: u32, verdict: Verdict, is_stream: bool) {
        let is_dropped = u32::from(verdict == Verdict::Drop);
        let decided = Decided { target, is_dropped, is_stream: u32::from(is_stream), _padding: 0 };
        // Where there is no room the others pass.
        let _ = FRAGMENTS.insert(self, decided, u64::from(BPF_ANY));
    }

    /// What became of the first one, where that has come.
    #[inline(always)]
    pub(crate) fn decided(&self) -> Option<Decided> {
        // SAFETY: copied out at once.
        unsafe { FRAGMENTS.get(self) }.copied()
    }
}

/// Whether a datagram may go to a queue. One that takes what comes, packet by packet, is full most of the time where more
/// comes than it lets through, and hardly any datagram would be whole: so no more of them go there than leave it.
///
/// # Safety
/// `used` points to a live map value, whose fields are used atomically.
#[inline(always)]
pub(crate) unsafe fn may_queue(settings: &LimitSettings, used: *mut LimitState, bytes: u64) -> Verdict {
    // SAFETY: as promised by the caller; the helper has no arguments.
    unsafe {
        let clock = &raw mut (*used).clock_ns;
        let (seen, now) = (ptr::read_volatile(clock), bpf_ktime_get_ns());
        if settings.config.rate_bps == 0 || seen > now {
            drop_with_the_first(used, bytes);
            return Verdict::Drop;
        }
        if seen < now - SAVED_NS {
            // Where it fails, another CPU has just moved the clock.
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                clock,
                seen,
                now - SAVED_NS,
            );
        }
        add(clock, cost_ns(bytes, settings.config.rate_bps));
    }
    Verdict::Pass
}

/// Charges what follows a first fragment that has passed. A queue counts by itself.
///
/// # Safety
/// As above.
#[inline(always)]
pub(crate) unsafe fn follow_the_first(
    settings: &LimitSettings,
    used: *mut LimitState,
    bytes: u64,
    is_stream: bool,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let cost = cost_ns(bytes, settings.config.rate_bps);
        add(&raw mut (*used).clock_ns, cost);
        if settings.queue != 0 {
            return;
        }
        count(used, bytes);
        if !is_stream {
            add(&raw mut (*used).datagram_clock_ns, cost);
            add(&raw mut (*used).datagram_bytes, bytes);
        }
    }
}

/// Counts what is dropped, because the first fragment was.
///
/// # Safety
/// As above.
#[inline(always)]
pub(crate) unsafe fn drop_with_the_first(used: *mut LimitState, bytes: u64) {
    // SAFETY: as promised by the caller.
    unsafe {
        count(used, bytes);
        add(&raw mut (*used).stats.packets_dropped, 1);
        add(&raw mut (*used).stats.bytes_dropped, bytes);
    }
}
