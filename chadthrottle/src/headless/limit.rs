//! `--pid`: limits for one running process, in the foreground.

use std::time::{Duration, Instant};

use chadthrottle_common::ThrottleStats;
use nix::sys::signal::Signal;

use super::{in_words, select_throttles};
use crate::{
    backends::{
        registry::{Backends, Wanted},
        throttle::{Scope, Target, ThrottleManager, manager::Limits},
    },
    process::{ProcessId, ProcessInfo, UserNames},
    rate::scaled,
    sys::signals::Signals,
};

/// How often to look whether the process still runs.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Holds the limits until a signal, the end of `duration`, or of the process.
///
/// # Errors
/// When the limits cannot be enforced.
pub fn run(
    backends: &Backends,
    wanted: &Wanted,
    pid: i32,
    limits: Limits,
    duration: Option<Duration>,
) -> anyhow::Result<()> {
    let signals = Signals::hold()?;
    let (upload, download) = select_throttles(backends, wanted, limits)?;
    let id = ProcessId::running(pid)?;
    let mut manager = ThrottleManager::new(upload, download)?;
    let name = ProcessInfo::read(id, &mut UserNames::default()).map_or_else(String::new, |info| info.name);
    let target = Target { id, name, scope: Scope::Process };
    manager.throttle_process(&target, limits)?;
    eprintln!("chadthrottle: {} ({id}) is held to {}; Ctrl-C ends it", target.name, in_words(limits));

    if let Some(missing) = manager.not_covered(limits) {
        eprintln!("chadthrottle: {missing}");
    }

    let end = duration.map(|duration| Instant::now() + duration);
    let mut has_ended = false;
    while !has_ended {
        let next_look = Instant::now() + LOOK_EVERY;
        match signals.wait(Some(end.map_or(next_look, |end| end.min(next_look))))? {
            Some(Signal::SIGCHLD) => {}
            Some(_) => break,
            None if end.is_some_and(|end| Instant::now() >= end) => break,
            None => has_ended = !id.is_alive(),
        }
    }
    let report = manager.limited()?;
    manager.cleanup()?;
    let why = if has_ended { "ended" } else { "is free again" };
    let outcomes = report.iter().flat_map(|limited| {
        let up = limited.limits.upload.map(|_| outcome("send", limited.upload_stats));
        let down = limited.limits.download.map(|_| outcome("receive", limited.download_stats));
        up.into_iter().chain(down)
    });
    let outcomes: String = outcomes.collect();
    eprintln!("chadthrottle: {} ({id}) {why}{outcomes}", target.name);
    Ok(())
}

/// What became of one direction, to be added to a sentence.
fn outcome(verb: &str, stats: ThrottleStats) -> String {
    format!("; of {}B to {verb}, {}B were held back", scaled(stats.bytes_total), scaled(stats.bytes_dropped))
}
