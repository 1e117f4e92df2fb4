//! How much does it carry?
//!
//! What a limit drops is not counted here: it was neither sent nor received. It is in the limit's own figures.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr,
};

use aya_ebpf::bindings::BPF_NOEXIST;
use chadthrottle_common::{DIRECTION_UPLOAD, ProcessKey, SocketOwner, TrafficCounters};

use crate::{
    maps::{TRAFFIC, UNOWNED, count_lost},
    packet::Packet,
};

/// Counts a packet for its owner, or for nobody; or holds it back where the owner is only presumed.
#[inline(always)]
pub(crate) fn count(packet: &Packet, direction: u32) {
    let traffic = if direction == DIRECTION_UPLOAD {
        TrafficCounters { upload_bytes: packet.wire_len, upload_packets: 1, ..TrafficCounters::default() }
    } else {
        TrafficCounters { download_bytes: packet.wire_len, download_packets: 1, ..TrafficCounters::default() }
    };
    let Some(socket) = packet.socket else {
        match UNOWNED.get_ptr_mut(0) {
            // SAFETY: this CPU's own copy, valid for the program's run.
            Some(counters) => unsafe { add_to(counters, &traffic) },
            None => count_lost(),
        }
        return;
    };
    // SAFETY: the packet's own socket.
    unsafe {
        if !packet.is_listener && ptr::read_volatile(&raw const (*socket).is_presumed) != 0 {
            hold(socket, &traffic);
        } else {
            add(ptr::read_volatile(&raw const (*socket).process), &traffic);
        }
    }
}

/// Adds to what a process sent and received.
#[inline(always)]
pub(crate) fn add(process: ProcessKey, traffic: &TrafficCounters) {
    let counters = TRAFFIC.get_ptr_mut(process).or_else(|| {
        // Another CPU may have made the entry in between: what matters is that it is there now.
        let _ = TRAFFIC.insert(process, TrafficCounters::default(), u64::from(BPF_NOEXIST));
        TRAFFIC.get_ptr_mut(process)
    });
    match counters {
        // SAFETY: this CPU's own copy, valid for the program's run.
        Some(counters) => unsafe { add_to(counters, traffic) },
        None => count_lost(),
    }
}

/// Atomically, although each CPU has its own copy: a program may interrupt another one on the same CPU, between its
/// reading and its writing.
///
/// # Safety
/// `counters` points to a live map value.
#[inline(always)]
unsafe fn add_to(counters: *mut TrafficCounters, traffic: &TrafficCounters) {
    // SAFETY: as promised by the caller.
    unsafe {
        xadd(&raw mut (*counters).upload_bytes, traffic.upload_bytes);
        xadd(&raw mut (*counters).upload_packets, traffic.upload_packets);
        xadd(&raw mut (*counters).download_bytes, traffic.download_bytes);
        xadd(&raw mut (*counters).download_packets, traffic.download_packets);
    }
}

/// Keeps traffic until it is known whose it is.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
unsafe fn hold(socket: *mut SocketOwner, traffic: &TrafficCounters) {
    // SAFETY: as promised by the caller.
    unsafe { add_to(&raw mut (*socket).held, traffic) };
}

/// # Safety
/// `number` points to a live map value.
#[inline(always)]
unsafe fn xadd(number: *mut u64, more: u64) {
    // Known when this is compiled, mostly.
    if more != 0 {
        // SAFETY: as promised by the caller.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(number, more) };
    }
}
