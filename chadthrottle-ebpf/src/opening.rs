//! How much may a peer send before anybody has looked at the connection?
//!
//! Flow control finds a new connection within some ten milliseconds; until then the peer sends what the first window
//! allows, 64 KB a connection. A limited process that opens many at once would be over its limit by then, and what is
//! over it would be dropped.

use aya_ebpf::{bindings::BPF_SOCK_OPS_RWND_INIT, programs::SockOpsContext};
use chadthrottle_common::{DIRECTION_DOWNLOAD, LIMIT_AT_ENTRANCE, LIMIT_IN_FORCE, limit_index};

use crate::{
    maps::{Control, LIMITS},
    membership, owner,
};

/// First windows in a second at the limit: each takes 5 ms.
const WINDOWS: u64 = 200;
/// IP bytes of a segment, as good as always.
const SEGMENT: u64 = 1500;
/// It has at least so many segments, and from the second number on it is as large as without us.
const LEAST_SEGMENTS: u32 = 2;
const USUAL_SEGMENTS: u32 = 40;

/// Makes the first window of a connection that a limited process opens small.
#[inline(always)]
pub(crate) fn choose_window(ctx: &SockOpsContext) {
    if ctx.op() != BPF_SOCK_OPS_RWND_INIT || !Control::get().is_some_and(Control::has_limits) {
        return;
    }
    // SAFETY: the hook's own context, and its socket where that is a full one.
    unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        let Some(socket) = owner::of_socket(sk.cast()) else { return };
        let target = membership::known_target(socket);
        if target == 0 {
            return;
        }
        let Some(settings) = LIMITS.get(limit_index(target, DIRECTION_DOWNLOAD)) else { return };
        if settings.flags & (LIMIT_IN_FORCE | LIMIT_AT_ENTRANCE) == 0 {
            return;
        }
        let segments = settings.config.rate_bps / (WINDOWS * SEGMENT);
        if segments < u64::from(USUAL_SEGMENTS) {
            (*ctx.ops).__bindgen_anon_1.reply = if segments < u64::from(LEAST_SEGMENTS) {
                LEAST_SEGMENTS
            } else {
                // Few, as has just been seen.
                (segments & 0xff) as u32
            };
        }
    }
}
