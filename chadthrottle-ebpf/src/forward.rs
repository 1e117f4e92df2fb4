//! What passes through this network namespace from one interface to another.

use aya_ebpf::programs::TcContext;
use chadthrottle_common::{
    DIRECTION_DOWNLOAD, DIRECTION_UPLOAD, LOOPBACK_IFINDEX, ProcessKey, TrafficKey, wire::flow,
};

use crate::{
    counters,
    headers::Headers,
    maps::{Control, INTERFACES},
};

/// Bytes of the longest link-layer header that there may be: Ethernet with two VLAN tags is 22.
const LONGEST_LINK_HEADER: u32 = 64;

/// Counts a packet that leaves by an interface if it came in by one, in both places.
#[inline(always)]
pub(crate) fn count(ctx: &TcContext) {
    let skb = ctx.skb.skb;
    // SAFETY: the program's own context.
    let (from, to, segments, len) =
        unsafe { ((*skb).ingress_ifindex, (*skb).ifindex, (*skb).gso_segs, (*skb).len) };
    if from == 0 || from == to {
        return;
    }
    let Some(control) = Control::get() else { return };
    // SAFETY: copied out at once.
    let Some(interface) = (unsafe { INTERFACES.get(to) }).copied() else { return };
    let link_header_len = interface.link_header_len;
    if link_header_len > LONGEST_LINK_HEADER {
        return;
    }
    let headers = Headers::of(skb, link_header_len as usize);
    let len = len.saturating_sub(link_header_len);
    let flow = if segments > 1 {
        flow(len, segments, headers.merged_len(), headers.not_travelling())
    } else {
        flow(len, segments, 0, 0)
    };
    for (ifindex, direction) in [(to, DIRECTION_UPLOAD), (from, DIRECTION_DOWNLOAD)] {
        if ifindex == LOOPBACK_IFINDEX && !control.includes_loopback() {
            continue;
        }
        let key = TrafficKey { owner: ProcessKey::FORWARDED, ifindex, scope: 0 };
        counters::add(&key, direction, &flow);
    }
}
