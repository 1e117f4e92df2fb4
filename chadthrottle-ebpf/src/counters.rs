//! Where everything is counted: slots, and the table for what has none.

use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg, cold_path};

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_smp_processor_id};
use chadthrottle_common::{DIRECTION_UPLOAD, FlowCounters, SocketOwner, TrafficCounters, TrafficKey};

use crate::maps::{COUNTERS, Control, FREE_SLOTS, NO_TRAFFIC, SLOT_OF, TRAFFIC, count_lost};

/// Adds to what was sent or received.
#[inline(always)]
pub(crate) fn add(key: &TrafficKey, direction: u32, flow: &FlowCounters) {
    let Some(counters) = Control::get().and_then(|control| of(key, &control)) else {
        count_lost();
        return;
    };
    // SAFETY: this CPU's own copy, valid for the program's run.
    unsafe { add_to(counters, direction, flow) };
}

/// This CPU's counters of a key, from the slot that the socket was counted in last if that is still the key's.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
pub(crate) unsafe fn of_socket(
    socket: *mut SocketOwner,
    key: &TrafficKey,
    control: &Control,
) -> Option<*mut TrafficCounters> {
    // SAFETY: as promised by the caller. What another CPU writes at the same time is a slot of another key, and read as
    // such unless it changes between these lines: then one packet is in the other's.
    unsafe {
        let slot = (*socket).slot;
        if slot != 0 && (*socket).slot_generation == control.slot_generation() && (*socket).slot_key == *key {
            return in_slot(slot, control);
        }
        cold_path();
        (*socket).slot = 0;
        let slot = slot_of(key);
        if slot == 0 {
            return without_slot(key);
        }
        (*socket).slot_key = *key;
        (*socket).slot_generation = control.slot_generation();
        (*socket).slot = slot;
        in_slot(slot, control)
    }
}

/// This CPU's counters of a key.
#[inline(always)]
pub(crate) fn of(key: &TrafficKey, control: &Control) -> Option<*mut TrafficCounters> {
    match slot_of(key) {
        0 => without_slot(key),
        slot => in_slot(slot, control),
    }
}

/// This CPU's counters in a slot.
#[inline(always)]
fn in_slot(slot: u32, control: &Control) -> Option<*mut TrafficCounters> {
    // SAFETY: the helper has no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    COUNTERS.get_ptr_mut(slot * control.cpus() + cpu)
}

/// The slot of a key, or one that becomes it; 0 where there is none left.
#[inline(never)]
fn slot_of(key: &TrafficKey) -> u32 {
    // SAFETY: copied out at once.
    if let Some(slot) = unsafe { SLOT_OF.get(key) } {
        return *slot;
    }
    let Ok(Some(slot)) = FREE_SLOTS.pop() else { return 0 };
    if SLOT_OF.insert(key, slot, u64::from(BPF_NOEXIST)).is_ok() {
        return slot;
    }
    // Another CPU has found one at the same time.
    if FREE_SLOTS.push(slot, 0).is_err() {
        count_lost();
    }
    // SAFETY: as above.
    unsafe { SLOT_OF.get(key) }.copied().unwrap_or(0)
}

/// This CPU's counters of a key for which there is no slot.
#[inline(never)]
fn without_slot(key: &TrafficKey) -> Option<*mut TrafficCounters> {
    TRAFFIC.get_ptr_mut(key).or_else(|| {
        // Another CPU may have made the entry in between: what matters is that it is there now.
        let nothing: &TrafficCounters = &NO_TRAFFIC;
        let _ = TRAFFIC.insert(key, nothing, u64::from(BPF_NOEXIST));
        TRAFFIC.get_ptr_mut(key)
    })
}

/// # Safety
/// `counters` points to a live map value.
#[inline(always)]
unsafe fn flow_of(counters: *mut TrafficCounters, direction: u32) -> *mut FlowCounters {
    // SAFETY: as promised by the caller.
    unsafe {
        if direction == DIRECTION_UPLOAD {
            &raw mut (*counters).upload
        } else {
            &raw mut (*counters).download
        }
    }
}

/// Atomically, although each CPU has its own copy: a program may interrupt another one on the same CPU, between its
/// reading and its writing.
///
/// # Safety
/// `counters` points to a live map value.
#[inline(always)]
pub(crate) unsafe fn add_to(counters: *mut TrafficCounters, direction: u32, flow: &FlowCounters) {
    // SAFETY: as promised by the caller.
    unsafe {
        let counters = flow_of(counters, direction);
        xadd(&raw mut (*counters).bytes, flow.bytes);
        xadd(&raw mut (*counters).packets, flow.packets);
        if flow.merged_packets != 0 {
            xadd(&raw mut (*counters).merged_packets, flow.merged_packets);
            xadd(&raw mut (*counters).merged_bytes, flow.merged_bytes);
        }
    }
}

/// Takes what was counted in one direction, and leaves nothing. Each number is taken by one CPU, whoever else looks at
/// the same time.
///
/// # Safety
/// `counters` points to a live map value.
#[inline(always)]
pub(crate) unsafe fn take(counters: *mut TrafficCounters, direction: u32) -> FlowCounters {
    // SAFETY: as promised by the caller.
    unsafe {
        let flow = flow_of(counters, direction);
        FlowCounters {
            bytes: exchange(&raw mut (*flow).bytes),
            packets: exchange(&raw mut (*flow).packets),
            merged_packets: exchange(&raw mut (*flow).merged_packets),
            merged_bytes: exchange(&raw mut (*flow).merged_bytes),
        }
    }
}

/// # Safety
/// `number` points to a live map value.
#[inline(always)]
unsafe fn exchange(number: *mut u64) -> u64 {
    // SAFETY: as promised by the caller.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(number, 0) }
}

/// # Safety
/// `number` points to a live map value.
#[inline(always)]
unsafe fn xadd(number: *mut u64, more: u64) {
    // SAFETY: as promised by the caller.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(number, more) };
}
