//! `--pid`, `--program`, `--unit`, `--cgroup`, `--user`: limits in the foreground.

use std::time::{Duration, Instant};

use chadthrottle_common::ThrottleStats;
use nix::{
    sys::signal::Signal,
    unistd::{Uid, User},
};

use super::{Throttles, all_of, by_daemon, give_up_others, in_words, names, select_throttles, tell};
use crate::{
    backends::{
        registry::{Backends, Wanted},
        throttle::{
            Subject, Target, ThrottleManager,
            manager::{Limits, MAINTENANCE_INTERVAL},
        },
    },
    cli::{LimitSubject, limits},
    daemon::client::{Client, Place},
    failure::Failure,
    process::{KnownNames, ProcessId, ProcessInfo},
    rate::scaled,
    session,
    sys::{
        cgroup::{self, CgroupRoot},
        signals::Signals,
    },
};

/// How often to look whether the process still runs.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Holds the limits until a signal, the end of the time that was given, or of the process. Those that may cut this session
/// off only where that is what is wanted (`force`). A daemon there holds them, and otherwise this process.
///
/// # Errors
/// When the limits cannot be enforced.
pub fn run(
    backends: &Backends,
    wanted: &Wanted,
    asked: &LimitSubject,
    force: bool,
    place: &Place,
) -> anyhow::Result<()> {
    let signals = Signals::hold()?;
    let limits = limits(asked.upload_limit, asked.download_limit);
    let holder = match by_daemon::that_changes(place)? {
        Some(daemon) => Holder::Daemon(Box::new(daemon)),
        None => Holder::Here(select_throttles(backends, wanted, limits)?),
    };
    let target = target(backends, asked)?;
    if let Some(why) = session::refusal(&target.subject).filter(|_| !force) {
        return Err(Failure::Usage(format!("{target} is not limited: {why}")).into());
    }
    match holder {
        Holder::Daemon(mut daemon) => by_daemon::hold(&mut daemon, &target, limits, asked.duration, &signals),
        Holder::Here(throttles) => here(throttles, &target, limits, asked.duration, &signals),
    }
}

/// Who holds a limit.
enum Holder {
    Daemon(Box<Client>),
    Here(Throttles),
}

/// Holds limits by this process.
fn here(
    throttles: Throttles,
    target: &Target,
    limits: Limits,
    duration: Option<Duration>,
    signals: &Signals,
) -> anyhow::Result<()> {
    give_up_others(&names(&throttles), &[]);
    let (upload, download) = throttles;
    let mut manager = ThrottleManager::new(upload, download)?.announced();
    manager.throttle_process(target, limits)?;
    tell(format_args!("{target} is held to {}; Ctrl-C ends it", in_words(limits)));
    if let Some(missing) = manager.not_covered(limits) {
        tell(missing);
    }

    let held = hold(&mut manager, target, duration, signals);
    let report = manager.limited();
    let released = manager.cleanup();
    let why = if matches!(held, Ok(true)) { "ended" } else { "is free again" };
    let outcomes = report.iter().flatten().flat_map(|limited| {
        let up = limited.limits.upload.map(|_| outcome("send", limited.upload_stats));
        let down = limited.limits.download.map(|_| outcome("receive", limited.download_stats));
        up.into_iter().chain(down)
    });
    let outcomes: String = outcomes.collect();
    if released.is_ok() {
        tell(format_args!("{target} {why}{outcomes}"));
    }
    all_of([held.map(drop), report.map(drop).map_err(Into::into), released.map_err(Into::into)])
}

/// Looks after the limits for as long as they are wanted. Whether their process has ended.
fn hold(
    manager: &mut ThrottleManager,
    target: &Target,
    duration: Option<Duration>,
    signals: &Signals,
) -> anyhow::Result<bool> {
    let mut maintenance = Instant::now() + MAINTENANCE_INTERVAL;
    let end = duration.map(|duration| Instant::now() + duration);
    let mut has_ended = false;
    while !has_ended {
        let next_look = Instant::now() + LOOK_EVERY;
        match signals.wait(Some(end.map_or(next_look, |end| end.min(next_look))))? {
            Some(Signal::SIGCHLD) => {}
            Some(_) => break,
            None if end.is_some_and(|end| Instant::now() >= end) => break,
            None => has_ended = !target.subject.is_alive(),
        }
        if Instant::now() >= maintenance {
            maintenance = Instant::now() + MAINTENANCE_INTERVAL;
            manager.maintain()?;
        }
    }
    Ok(has_ended)
}

/// Whom the command line names.
fn target(backends: &Backends, asked: &LimitSubject) -> anyhow::Result<Target> {
    let (subject, name) = if let Some(pid) = asked.pid {
        let id = ProcessId::running(pid)?;
        let name =
            ProcessInfo::read(id, &mut KnownNames::default()).map_or_else(String::new, |info| info.name);
        (if asked.children { Subject::Descendants(id) } else { Subject::Process(id) }, name)
    } else if let Some(path) = &asked.program {
        let path = path.canonicalize().map_err(|error| {
            Failure::Usage(format!("--program: {}: {error}; give the path of a program file", path.display()))
        })?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        (Subject::Program(path), name)
    } else if let Some(user) = &asked.user {
        let known = match user.parse() {
            Ok(uid) => {
                User::from_uid(Uid::from_raw(uid))?.map(|user| (uid, user.name)).or(Some((uid, user.clone())))
            }
            Err(_) => User::from_name(user)?.map(|user| (user.uid.as_raw(), user.name)),
        };
        let (uid, name) = known.ok_or_else(|| {
            Failure::Usage(format!("--user: nobody is called {user:?}; give a name or a user id"))
        })?;
        (Subject::User(uid), name)
    } else {
        let root = CgroupRoot::open(backends.options().cgroup_root.as_deref())?;
        let path = match (&asked.cgroup, &asked.unit) {
            (Some(path), _) => cgroup::named(&root, path),
            (None, unit) => cgroup::unit(&root, unit.as_deref().unwrap_or_default()),
        };
        let path = path.map_err(Failure::Usage)?;
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        (Subject::Cgroup(path), name)
    };
    Ok(Target { subject, name, traffic: asked.traffic })
}

/// What became of one direction, to be added to a sentence.
pub(super) fn outcome(verb: &str, stats: ThrottleStats) -> String {
    let delayed = match stats.bytes_delayed {
        0 => String::new(),
        bytes => format!(" and {}B delayed", scaled(bytes)),
    };
    let (total, dropped) = (scaled(stats.bytes_total), scaled(stats.bytes_dropped));
    format!("; of {total}B to {verb}, {dropped}B were held back{delayed}")
}
