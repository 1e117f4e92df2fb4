//! The thread that holds all limits, and the handle that others have of it.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use super::{Achievable, Direction, FlowError, Passed, guard::Guard, members::why_denied, target::Limited};
use crate::{
    backends::throttle::{Scope, Target},
    process::ProcessId,
    sys::proc_children::adopt_orphans,
};

/// More targets than this take more of the CPU together, instead of being looked at ever more rarely.
const MOST_SHARING: u32 = 10_000;

/// Flow control, shared by whichever backends use it. Its thread runs while there are limits.
#[derive(Clone, Debug)]
pub struct SharedFlow(Arc<Engine>);

impl Default for SharedFlow {
    /// Flow control that stands alone: options outlive a SIGKILL.
    fn default() -> Self {
        Self::new(false)
    }
}

#[derive(Debug)]
struct Engine {
    is_guarded: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    targets: BTreeMap<ProcessId, Limited>,
    runs: bool,
    guard: Option<Arc<Guard>>,
}

impl SharedFlow {
    /// Flow control in front of something that drops or queues. Options are put back after a SIGKILL as well, and where
    /// a limit turns out to be out of reach it is left to what is behind.
    #[must_use]
    pub fn guarded() -> Self {
        Self::new(true)
    }

    fn new(is_guarded: bool) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::default());
        Self(Arc::new(Engine { is_guarded, state, changed }))
    }

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
            let guard = if self.0.is_guarded { Some(state.guard()?) } else { None };
            let limited =
                Limited::new(target, include_loopback, guard).map_err(|error| refused(target, &error))?;
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

    /// Changes a limit, in IP bytes a second, where there is one; in force with the next tick.
    pub fn adjust(&self, process: ProcessId, direction: Direction, limit: u64) {
        if let Some(limited) = self.0.lock().targets.get_mut(&process) {
            limited.adjust(direction, limit);
        }
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

/// Why a target cannot be taken hold of.
pub(in crate::backends::throttle) fn refused(target: &Target, error: &io::Error) -> FlowError {
    match error.raw_os_error() {
        Some(nix::libc::ESRCH) => FlowError::Ended,
        None if error.kind() == io::ErrorKind::NotFound => FlowError::Ended,
        _ => FlowError::Denied(why_denied(target.id.pid, error)),
    }
}

impl State {
    /// The guard, which is started with the first limit.
    fn guard(&mut self) -> io::Result<Arc<Guard>> {
        let guard = match self.guard.take().filter(|guard| guard.is_there()) {
            Some(guard) => guard,
            None => Arc::new(Guard::start()?),
        };
        Ok(Arc::clone(self.guard.insert(guard)))
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
            let count = u32::try_from(state.targets.len()).unwrap_or(u32::MAX).min(MOST_SHARING);
            let steps = || state.targets.values_mut().map(|limited| limited.step(count)).min();
            let next = match catch_unwind(AssertUnwindSafe(steps)) {
                Ok(next) => next.unwrap_or_else(Instant::now),
                // The panic has been told. Without a controller no socket may stay as it was last set.
                Err(_) => break,
            };
            state.targets.retain(|_, limited| !limited.is_free());
            if state.guard.as_ref().is_some_and(|guard| !guard.is_there()) {
                log::debug!("the guard of sockets has ended; no socket is held without it");
                break;
            }
            let wait = next.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        // What is dropped puts its options back.
        state.targets.clear();
        state.runs = false;
    }
}
