//! The thread that holds all limits, and the handle that others have of it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use super::{
    Achievable, AskBehind, Counted, Direction, FlowError, Passed,
    members::why_denied,
    target::{Limited, Place},
};
use crate::{
    backends::throttle::{Subject, Target, guard::Guard},
    sys::{
        capability::{SYS_PTRACE, first_missing},
        cpu_time::prefer_this_thread,
        proc_children::{adopt_orphans, ptrace_scope},
    },
};

/// More targets than this take more of the CPU together, instead of being looked at ever more rarely.
const MOST_SHARING: u32 = 10_000;

/// Flow control, shared by whichever backends use it. Its thread runs while there are limits.
#[derive(Clone)]
pub struct SharedFlow(Arc<Engine>);

impl Default for SharedFlow {
    /// Flow control that stands alone. Options are put back after a SIGKILL where a second process of ours may take hold
    /// of the same sockets.
    fn default() -> Self {
        Self::new(Place::Alone, Arc::new(|_, _| None))
    }
}

struct Engine {
    place: Place,
    behind: AskBehind,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    targets: BTreeMap<Subject, Limited>,
    runs: bool,
    guard: Option<Arc<Guard>>,
}

impl SharedFlow {
    /// Flow control in front of something that drops or queues, and that knows what else passes, and what it drops. Options are put
    /// back after a SIGKILL as well, and where a limit turns out to be out of reach, that is no news.
    #[must_use]
    pub fn in_front(behind: AskBehind) -> Self {
        Self::new(Place::InFront { steers: false }, behind)
    }

    /// The same in front of queues, which say how high to aim (`adjust`), and nothing else.
    #[must_use]
    pub fn before_queues() -> Self {
        Self::new(Place::InFront { steers: true }, Arc::new(|_, _| None))
    }

    fn new(place: Place, behind: AskBehind) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::default());
        Self(Arc::new(Engine { place, behind, state, changed }))
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
        counted: &Counted,
    ) -> Result<Achievable, FlowError> {
        if matches!(target.subject, Subject::Descendants(_)) {
            adopt_orphans()?;
        }
        let mut state = self.0.lock();
        let achievable = if let Some(limited) = state.targets.get_mut(&target.subject) {
            limited.count(counted);
            limited.set(direction, limit)
        } else {
            let place = self.0.place;
            let guard = match place {
                Place::InFront { .. } => Some(state.guard()?),
                Place::Alone if may_guard() => {
                    let failed = |error: &io::Error| {
                        log::warn!(
                            "after a SIGKILL sockets would stay limited: cannot start the guard: {error}"
                        );
                    };
                    state.guard().inspect_err(failed).ok()
                }
                Place::Alone => None,
            };
            let limited =
                Limited::new(target, counted, place, guard).map_err(|error| refused(target, &error))?;
            state.targets.insert(target.subject.clone(), limited);
            state.share_out();
            state
                .targets
                .get_mut(&target.subject)
                .map_or(Achievable::Yes, |limited| limited.set(direction, limit))
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
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc"))]
    pub(in crate::backends::throttle) fn adjust(&self, subject: &Subject, direction: Direction, limit: u64) {
        if let Some(limited) = self.0.lock().targets.get_mut(subject) {
            limited.adjust(direction, limit);
        }
    }

    /// Takes a limit away, and puts the options of all sockets back. No limit is no error.
    pub fn release(&self, subject: &Subject, direction: Direction) {
        let mut state = self.0.lock();
        if state.targets.get_mut(subject).is_some_and(|limited| limited.remove(direction)) {
            state.targets.remove(subject);
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
    pub fn limit(&self, subject: &Subject, direction: Direction) -> Option<u64> {
        self.0.lock().targets.get(subject)?.limit(direction)
    }

    /// Whether there are connections that it holds.
    #[must_use]
    pub fn has_connections(&self, subject: &Subject) -> bool {
        self.0.lock().targets.get(subject).is_some_and(Limited::has_connections)
    }

    /// Bytes that wait in the sockets of who has an upload limit.
    #[must_use]
    pub fn held_back(&self, subject: &Subject) -> Option<u64> {
        self.0.lock().targets.get(subject)?.held_back()
    }

    /// What has passed under a limit.
    #[must_use]
    pub fn passed(&self, subject: &Subject, direction: Direction) -> Passed {
        self.0.lock().targets.get(subject).map(|limited| limited.passed(direction)).unwrap_or_default()
    }
}

/// Whether a child of ours may take hold of the sockets that we may. Where yama asks for an ancestor it is none.
fn may_guard() -> bool {
    matches!(ptrace_scope(), None | Some(0)) || first_missing(&[SYS_PTRACE]).is_none()
}

/// Why a target cannot be taken hold of.
pub(in crate::backends::throttle) fn refused(target: &Target, error: &io::Error) -> FlowError {
    match error.raw_os_error() {
        Some(nix::libc::ESRCH) => FlowError::Ended,
        None if error.kind() == io::ErrorKind::NotFound => FlowError::Ended,
        _ => FlowError::Denied(why_denied(target.subject.process().map_or(0, |id| id.pid), error)),
    }
}

/// In which order targets have their choice of processes.
pub(in crate::backends::throttle) fn rank(subject: &Subject) -> (u8, Reverse<u64>) {
    match subject {
        Subject::Process(_) => (0, Reverse(0)),
        // A process starts later than its ancestors.
        Subject::Descendants(id) => (1, Reverse(id.start_time)),
        Subject::Program(_) => (2, Reverse(0)),
        // A path is longer than that of a cgroup around it.
        Subject::Cgroup(path) => (3, Reverse(path.len() as u64)),
        Subject::User(_) => (4, Reverse(0)),
    }
}

impl State {
    /// Leaves each process to the most specific of the targets that cover it.
    fn share_out(&mut self) {
        let mut order: Vec<_> = self.targets.iter_mut().collect();
        order.sort_by_key(|(subject, _)| rank(subject));
        let mut taken = HashSet::new();
        for (_, limited) in order {
            limited.leave_out(&taken);
            taken.extend(limited.processes());
        }
    }

    /// The guard, which is started with the first limit.
    fn guard(&mut self) -> io::Result<Arc<Guard>> {
        let guard = match self.guard.take().filter(|guard| guard.is_there()) {
            Some(guard) => guard,
            None => Arc::new(Guard::get()?),
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
        // Where the CPUs are busy with the traffic that is to be limited, what comes late lets through too much. It
        // takes little of them. Without the privilege it is as any other.
        if let Err(error) = prefer_this_thread() {
            log::debug!("flow control has to wait for the CPU as others do: {error}");
        }
        let mut state = self.lock();
        while !state.targets.is_empty() {
            state.share_out();
            let count = u32::try_from(state.targets.len()).unwrap_or(u32::MAX).min(MOST_SHARING);
            let steps = || state.targets.values_mut().map(|limited| limited.step(count, &*self.behind)).min();
            let next = match catch_unwind(AssertUnwindSafe(steps)) {
                Ok(next) => next.unwrap_or_else(Instant::now),
                // The panic has been told. Without a controller no socket may stay as it was last set.
                Err(_) => break,
            };
            state.targets.retain(|_, limited| !limited.is_free());
            if state.guard.as_ref().is_some_and(|guard| !guard.is_there()) {
                if self.place != Place::Alone {
                    log::debug!("the guard of sockets has ended; no socket is held without it");
                    break;
                }
                log::debug!("the guard of sockets has ended");
                state.guard = None;
                state.targets.values_mut().for_each(Limited::lose_guard);
            }
            let wait = next.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        // What is dropped puts its options back.
        state.targets.clear();
        state.runs = false;
    }
}
