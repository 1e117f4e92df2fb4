//! How much does it carry?
//!
//! What a limit drops is not counted here: it was neither sent nor received. It is in the limit's own figures.

use core::intrinsics::cold_path;

use chadthrottle_common::TrafficKey;

use crate::{counters, maps::count_lost, packet::Packet};

/// Counts a packet for its owner, or for a bucket; or holds it back where the owner is only presumed.
#[inline(always)]
pub(crate) fn count(packet: &Packet, direction: u32) {
    if packet.is_held
        && let Some(socket) = packet.socket
    {
        cold_path();
        // SAFETY: the packet's own socket.
        unsafe {
            (*socket).held_ifindex = packet.ifindex;
            counters::add_to(&raw mut (*socket).held, direction, &packet.flow);
        }
        return;
    }
    let key = TrafficKey { owner: packet.owner, ifindex: packet.ifindex, scope: packet.scope };
    let counters = if let Some(socket) = packet.socket {
        // SAFETY: the packet's own socket.
        unsafe { counters::of_socket(socket, &key, &packet.control) }
    } else {
        cold_path();
        counters::of(&key, &packet.control)
    };
    let Some(counters) = counters else {
        cold_path();
        count_lost();
        return;
    };
    // SAFETY: this CPU's own copy, valid for the program's run.
    unsafe { counters::add_to(counters, direction, &packet.flow) };
}
