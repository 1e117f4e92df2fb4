//! What this thread has taken of CPUs.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// So far. Time in which others ran is not in it.
#[must_use]
pub fn of_this_thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
