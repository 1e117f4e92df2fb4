//! What the limiter's arithmetic is asked for in the kernel, by the test that compares it with the host's: a packet that
//! holds a [`Question`], and behind it room for the [`Answer`].

use crate::{
    clock::{Admission, admit, cost_ns, departure},
    layout::{CgroupThrottleConfig, LimitSettings, LimitState},
};

/// Where in the packet the question is: behind an Ethernet header.
pub const QUESTION_AT: usize = 14;

/// A packet, and the limit that it comes to. Times in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// IP bytes a second.
    pub rate_bps: u64,
    /// What may be saved up.
    pub burst_ns: u64,
    /// Since when the limit is as it is.
    pub since_ns: u64,
    /// How far the clock may be ahead.
    pub debt_ns: u64,
    /// The limit's clock.
    pub clock_ns: u64,
    /// That of what is no TCP.
    pub datagram_clock_ns: u64,
    /// Now.
    pub now_ns: u64,
    /// IP bytes of the packet.
    pub bytes: u64,
}

/// What becomes of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// [`Admission`]: 0 over, 1 pass, 2 pass from `floor_ns`.
    pub admission: u64,
    /// What the clock is to be set to first; 0 where it is not.
    pub floor_ns: u64,
    /// What the packet costs.
    pub cost_ns: u64,
    /// Whether it passes, by [`LimitState::offer`].
    pub has_passed: u64,
    /// The clock afterwards.
    pub clock_ns: u64,
    /// When it leaves if it is no TCP's and can wait, by [`departure`]; `u64::MAX` where it does not.
    pub departs_ns: u64,
}

impl Question {
    /// The same functions that packets go through.
    #[inline(always)]
    #[must_use]
    pub const fn answer(&self) -> Answer {
        let settings = LimitSettings {
            config: CgroupThrottleConfig {
                cgroup_id: 0,
                pid: 0,
                traffic_type: 0,
                _padding: [0; 3],
                rate_bps: self.rate_bps,
                burst_size: 0,
            },
            burst_ns: self.burst_ns,
            debt_ns: self.debt_ns,
            since_ns: self.since_ns,
            grace_until_ns: 0,
            flags: 0,
            priority: 0,
            mark: 0,
            queue: 0,
        };
        let (admission, floor_ns) = match admit(&settings, self.debt_ns, self.clock_ns, self.now_ns) {
            Admission::Over => (0, 0),
            Admission::Pass => (1, 0),
            Admission::PassFrom(floor) => (2, floor),
        };
        let mut state = LimitState {
            clock_ns: self.clock_ns,
            datagram_clock_ns: 0,
            datagram_bytes: 0,
            closed_until_ns: 0,
            waits_until_ns: 0,
            stats: crate::layout::ThrottleStats::NONE,
        };
        let departs_ns = match departure(&settings, self.clock_ns, self.datagram_clock_ns, self.now_ns) {
            Some(departs_ns) => departs_ns,
            None => u64::MAX,
        };
        let has_passed = state.offer(&settings, self.debt_ns, self.bytes, self.now_ns);
        Answer {
            admission,
            floor_ns,
            cost_ns: cost_ns(self.bytes, self.rate_bps),
            has_passed: has_passed as u64,
            clock_ns: state.clock_ns,
            departs_ns,
        }
    }
}

assert_layout!(Question, 64, {
    rate_bps: u64 => 0, burst_ns: u64 => 8, since_ns: u64 => 16, debt_ns: u64 => 24, clock_ns: u64 => 32,
    datagram_clock_ns: u64 => 40, now_ns: u64 => 48, bytes: u64 => 56,
});
assert_layout!(Answer, 48, {
    admission: u64 => 0, floor_ns: u64 => 8, cost_ns: u64 => 16, has_passed: u64 => 24, clock_ns: u64 => 32,
    departs_ns: u64 => 40,
});

#[cfg(feature = "userspace")]
pod!(Question, Answer);
