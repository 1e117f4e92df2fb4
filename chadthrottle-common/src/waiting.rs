//! How many packets of a target stand in the queues of interfaces, waiting for the time that we told them.
//!
//! Nobody tells us when one leaves, and nobody has to: it leaves at its time.

/// Most packets of a target that wait. `fq` drops what is more than 100 of one socket (`flow_limit`, `net/sched/sch_fq.c`),
/// after it has been charged to the limit; a few fewer, since packets leave a moment after their time. With the buffer that
/// a socket has by default (212,992 bytes) 93 of full length are the most that it sends before it waits itself.
pub const MOST_WAITING: u64 = 96;

/// Departures that are remembered: a power of two, so that the verifier sees that no index is beyond them.
const REMEMBERED: usize = 128;

/// When the last packets of a target leave that had to wait.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Packets that have ever waited.
    pub joined: u64,
    /// When they leave (`CLOCK_MONOTONIC`, nanoseconds), in turn.
    pub departures: [u64; REMEMBERED],
}

impl Waiting {
    /// Nobody has waited.
    pub const NONE: Self = Self { joined: 0, departures: [0; REMEMBERED] };

    /// Whether one more may wait: of the last ones that joined, the first has left.
    #[inline(always)]
    #[must_use]
    pub const fn has_room(&self, now_ns: u64) -> bool {
        self.departures[slot(self.joined.wrapping_sub(MOST_WAITING))] <= now_ns
    }

    /// One more waits, and leaves at that time.
    #[inline(always)]
    pub const fn join(&mut self, departs_ns: u64) {
        self.departures[slot(self.joined)] = departs_ns;
        self.joined = self.joined.wrapping_add(1);
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "what is cut off does not count")]
const fn slot(number: u64) -> usize {
    number as usize & (REMEMBERED - 1)
}

assert_layout!(Waiting, 1032, { joined: u64 => 0, departures: [u64; REMEMBERED] => 8 });

#[cfg(feature = "userspace")]
pod!(Waiting);
