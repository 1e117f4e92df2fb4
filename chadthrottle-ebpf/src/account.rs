//! How much does it carry?
//!
//! What a limit drops is not counted here: it was neither sent nor received. It is in the limit's own figures.

use aya_ebpf::bindings::BPF_NOEXIST;
use chadthrottle_common::{DIRECTION_UPLOAD, TrafficCounters};

use crate::{
    maps::{TRAFFIC, UNOWNED, count_lost},
    packet::Packet,
};

/// Counts a packet for its owner, or for nobody.
#[inline(always)]
pub(crate) fn count(packet: &Packet, direction: u32) {
    let counters = match packet.owner {
        None => UNOWNED.get_ptr_mut(0),
        Some(owner) => TRAFFIC.get_ptr_mut(owner).or_else(|| {
            // Another CPU may have made the entry in between: what matters is that it is there now.
            let _ = TRAFFIC.insert(owner, TrafficCounters::default(), u64::from(BPF_NOEXIST));
            TRAFFIC.get_ptr_mut(owner)
        }),
    };
    let Some(counters) = counters else {
        count_lost();
        return;
    };
    // SAFETY: this CPU's own copy, valid for the program's run. An interrupt that counts in between on the same
    // CPU can only be a packet of the other direction, which has fields of its own.
    unsafe {
        if direction == DIRECTION_UPLOAD {
            (*counters).upload_bytes += packet.wire_len;
            (*counters).upload_packets += 1;
        } else {
            (*counters).download_bytes += packet.wire_len;
            (*counters).download_packets += 1;
        }
    }
}
