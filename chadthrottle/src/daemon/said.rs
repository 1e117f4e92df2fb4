//! Answers that are given to everybody who asks within a while: many who ask at once are one reading.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// For so long at least an answer is given again.
const FRESH: Duration = Duration::from_millis(50);
/// And for so many times what it took to make, so that whoever asks without a pause leaves time for everybody else.
const REST: u32 = 4;
/// But no longer: what took very long did so once, mostly.
const STALE: Duration = Duration::from_secs(2);

/// What was answered.
pub(super) struct Said {
    line: Arc<[u8]>,
    until: Instant,
}

impl Said {
    /// Just now, after so long a time of work.
    pub(super) fn new(line: Arc<[u8]>, cost: Duration) -> Self {
        Self { line, until: Instant::now() + fresh_for(cost) }
    }

    /// The answer, where it may be given again.
    pub(super) fn fresh(&self) -> Option<Arc<[u8]>> {
        (Instant::now() < self.until).then(|| Arc::clone(&self.line))
    }
}

fn fresh_for(cost: Duration) -> Duration {
    cost.saturating_mul(REST).clamp(FRESH, STALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dear_to_read_is_read_less_often() {
        assert_eq!(fresh_for(Duration::from_millis(1)), FRESH);
        assert_eq!(fresh_for(Duration::from_millis(100)), Duration::from_millis(400));
        assert_eq!(fresh_for(Duration::from_secs(10)), STALE);
    }
}
