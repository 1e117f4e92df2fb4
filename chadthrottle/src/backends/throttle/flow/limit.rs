//! A limit in one direction: its controller, and what was seen of it.

use super::{
    Achievable, Behind, Passed,
    control::{Actuator, Control, Seen},
};

/// How soon a limit is called out of reach: not by one round trip that was short.
const HOPELESS_TICKS: u32 = 20;

/// A limit in one direction.
#[derive(Debug)]
pub(super) struct Limit<A> {
    pub(super) control: Control<A>,
    passed: Passed,
    hopeless: u32,
    /// What had been seen behind it when that was last asked.
    behind: Option<Behind>,
}

impl<A: Actuator> Limit<A> {
    fn new(limit: u64, is_capped: bool) -> Self {
        Self {
            control: Control::new(limit).capped(is_capped),
            passed: Passed::default(),
            hopeless: 0,
            behind: None,
        }
    }

    /// Sets or changes it, in IP bytes a second.
    pub(super) fn set(place: &mut Option<Self>, limit: u64, is_capped: bool) {
        match place {
            Some(old) => old.control.set_limit(limit),
            none => *none = Some(Self::new(limit, is_capped)),
        }
    }

    /// What has passed.
    pub(super) const fn passed(&self) -> Passed {
        self.passed
    }

    /// Whether those who want more than they have can be held to it.
    pub(super) fn achievable(&self) -> Achievable {
        let floor = self.control.floor();
        if floor > self.control.limit() { Achievable::AtLeast(floor) } else { Achievable::Yes }
    }

    /// Takes in what sockets did within `dt` seconds, and what whoever is behind has seen by now, where there is somebody
    /// and he has time.
    pub(super) fn tick(&mut self, dt: f64, seen: &[Seen], behind: Option<Behind>) {
        self.passed.bytes += seen.iter().map(Seen::taken).sum::<u64>();
        let mut since = Behind::default();
        if let Some(now) = behind {
            let before = self.behind.replace(now).unwrap_or(now);
            since.datagrams = now.datagrams.saturating_sub(before.datagrams);
            since.dropped = now.dropped.saturating_sub(before.dropped);
            since.passed = now.passed.zip(before.passed).map(|(now, before)| now.saturating_sub(before));
        } else if self.behind.is_some_and(|before| before.passed.is_some()) {
            // It comes with the next answer.
            since.passed = Some(0);
        }
        self.control.tick(dt, seen, since);
    }

    /// The rate in IP bytes a second that busy connections cannot be held below, once, when that has been more than the
    /// limit for a while.
    pub(super) fn hopeless(&mut self) -> Option<u64> {
        let Achievable::AtLeast(floor) = self.achievable() else {
            self.hopeless = 0;
            return None;
        };
        self.hopeless = self.hopeless.saturating_add(1);
        (self.hopeless == HOPELESS_TICKS).then_some(floor)
    }
}
