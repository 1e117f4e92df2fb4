//! The thread that holds all limits, and the handle that others have of it.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use super::{Achievable, Direction, FlowError, Passed, members::why_denied, target::Limited};
use crate::{
    backends::throttle::{Scope, Target},
    process::ProcessId,
    sys::proc_children::adopt_orphans,
};

/// Flow control, shared by whichever backends use it. Its thread runs while there are limits.
#[derive(Clone, Debug, Default)]
pub struct SharedFlow(Arc<Engine>);

#[derive(Debug, Default)]
struct Engine {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    targets: BTreeMap<ProcessId, Limited>,
    runs: bool,
}

impl SharedFlow {
    /// Sets or changes a limit, in IP bytes a second. When this returns it is in force for all sockets that are open.
    ///
    /// Says whether it can be held; where it cannot, it is in force all the same, as far as that goes.
    ///
    /// # Errors
    /// When the target has ended or is not ours to take hold of. Then nothing has changed.
    pub fn hold(
        &self,
        target: &Target,
        direction: Direction,
        limit: u64,
        include_loopback: bool,
    ) -> Result<Achievable, FlowError> {
        if target.scope == Scope::Descendants {
            adopt_orphans()?;
        }
        let mut state = self.0.lock();
        let achievable = if let Some(limited) = state.targets.get_mut(&target.id) {
            limited.set(direction, limit)
        } else {
            let limited = Limited::new(target, include_loopback).map_err(|error| refused(target, &error))?;
            state.targets.entry(target.id).or_insert(limited).set(direction, limit)
        };
        if !state.runs {
            let engine = Arc::clone(&self.0);
            thread::Builder::new().name("flow".into()).spawn(move || engine.run())?;
            state.runs = true;
        }
        self.0.changed.notify_all();
        Ok(achievable)
    }

    /// Takes a limit away, and puts the options of all sockets back. No limit is no error.
    pub fn release(&self, process: ProcessId, direction: Direction) {
        let mut state = self.0.lock();
        if state.targets.get_mut(&process).is_some_and(|limited| limited.remove(direction)) {
            state.targets.remove(&process);
            self.0.changed.notify_all();
        }
    }

    /// Takes every limit in a direction away.
    pub fn release_all(&self, direction: Direction) {
        let mut state = self.0.lock();
        state.targets.retain(|_, limited| !limited.remove(direction));
        self.0.changed.notify_all();
    }

    /// The limit in force, in IP bytes a second.
    #[must_use]
    pub fn limit(&self, process: ProcessId, direction: Direction) -> Option<u64> {
        self.0.lock().targets.get(&process)?.limit(direction)
    }

    /// What has passed under a limit.
    #[must_use]
    pub fn passed(&self, process: ProcessId, direction: Direction) -> Passed {
        self.0.lock().targets.get(&process).map(|limited| limited.passed(direction)).unwrap_or_default()
    }
}

fn refused(target: &Target, error: &io::Error) -> FlowError {
    match error.raw_os_error() {
        Some(nix::libc::ESRCH) => FlowError::Ended,
        None if error.kind() == io::ErrorKind::NotFound => FlowError::Ended,
        _ => FlowError::Denied(why_denied(target.id.pid, error)),
    }
}

impl Engine {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a step has been dealt with there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until no limit is left.
    fn run(&self) {
        let mut state = self.lock();
        while !state.targets.is_empty() {
            let steps = || state.targets.values_mut().map(Limited::step).min();
            let next = match catch_unwind(AssertUnwindSafe(steps)) {
                Ok(next) => next.unwrap_or_else(Instant::now),
                // The panic has been told. Without a controller no socket may stay as it was last set.
                Err(_) => break,
            };
            let wait = next.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        // What is dropped puts its options back.
        state.targets.clear();
        state.runs = false;
    }
}
