//! `run`: a command that is limited from its first packet.

use std::{ffi::OsString, path::PathBuf, time::Instant};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{all_of, give_up_others, in_words, names, select_throttles, tell};
use crate::{
    backends::{
        registry::{Backends, Wanted},
        throttle::{
            Subject, Target, ThrottleManager, TrafficType,
            manager::{Limits, MAINTENANCE_INTERVAL},
        },
    },
    failure::Failure,
    process::{ProcessId, cgroup_path},
    sys::{
        capability::KILL,
        cgroup::CgroupRoot,
        signals::Signals,
        spawn::{HeldChild, SpawnError, status_of_signal},
    },
};

/// Runs `command` under `limits` and returns its exit status.
///
/// # Errors
/// When the limits cannot be enforced (then the command is not started) or the command cannot be started.
pub fn run(
    backends: &Backends,
    wanted: &Wanted,
    limits: Limits,
    traffic: TrafficType,
    command: &[OsString],
) -> anyhow::Result<u8> {
    let signals = Signals::hold()?;
    let throttles = select_throttles(backends, wanted, limits)?;
    let name = command[0].to_string_lossy().into_owned();
    let procs_file = cgroup_to_start_in(backends, &name)?;
    let child = HeldChild::spawn(command, procs_file.as_deref(), signals.held())
        .map_err(|error| not_started(&error))?;
    let pid = child.pid();

    // Until it is released the child waits; if we fail before that, it ends by itself. It keeps all that it may do, and
    // we do not. Signals are passed on to whomever it becomes.
    give_up_others(&names(&throttles), &[KILL]);
    let (upload, download) = throttles;
    let mut manager = ThrottleManager::new(upload, download)?.announced();
    if let Some(missing) = manager.not_covered(limits) {
        tell(missing);
    }
    let target = Target { subject: Subject::Descendants(ProcessId::running(pid.as_raw())?), name, traffic };
    manager.throttle_process(&target, limits)?;
    if let Err(error) = child.release(&command[0]) {
        let ended = waitpid(pid, None).map(drop).map_err(Into::into);
        let released = manager.cleanup().map_err(Into::into);
        all_of([Err(not_started(&error).into()), ended, released])?;
        return Ok(0);
    }
    log::info!("{target} is held to {}", in_words(limits));

    let status = wait_for(pid, &signals, &mut manager);
    let released = manager.cleanup();
    let ended = *status.as_ref().unwrap_or(&0);
    all_of([status.map(drop), released.map_err(Into::into)])?;
    Ok(ended)
}

/// The cgroup that the command has to move itself into, by its `cgroup.procs`: only processes below the root are limited,
/// and one that is about to start may start there.
fn cgroup_to_start_in(backends: &Backends, name: &str) -> anyhow::Result<Option<PathBuf>> {
    // The root of all is no place to be outside of, and not every backend needs one.
    let Some(path) = backends.options().cgroup_root.as_deref() else { return Ok(None) };
    let root = CgroupRoot::open(Some(path))?;
    let ours = procfs::process::Process::myself().ok().and_then(|process| cgroup_path(&process));
    if ours.as_deref().is_some_and(|path| root.contains(path)) {
        return Ok(None);
    }
    let from = ours.as_deref().unwrap_or("?");
    log::info!("{name} starts in the cgroup {}, because {from} is outside it", root.path.display());
    Ok(Some(root.procs_file()))
}

/// Waits for the command and looks after its limits, passing on signals that were meant to end it.
fn wait_for(child: Pid, signals: &Signals, manager: &mut ThrottleManager) -> anyhow::Result<u8> {
    let mut maintenance = Instant::now() + MAINTENANCE_INTERVAL;
    loop {
        // Any child, because a backend may have us adopt what the command leaves behind.
        match waitpid(None, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(pid, status) if pid == child => return Ok(u8::try_from(status & 0xff)?),
            WaitStatus::Signaled(pid, signal, _) if pid == child => {
                return Ok(u8::try_from(status_of_signal(signal))?);
            }
            WaitStatus::StillAlive => {}
            _ => continue,
        }
        match signals.wait(Some(maintenance))? {
            None => {
                maintenance = Instant::now() + MAINTENANCE_INTERVAL;
                manager.maintain()?;
            }
            Some(Signal::SIGCHLD) => {}
            // From the keyboard it went to the whole foreground group, the command included.
            Some(Signal::SIGINT | Signal::SIGQUIT) if signals.last_was_typed() => {}
            Some(signal) => match kill(child, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
}

/// The exit status that shells use for a command that cannot be started (POSIX, XCU 2.8.2).
fn not_started(error: &SpawnError) -> Failure {
    let status = match error {
        SpawnError::NotFound(_) => 127,
        SpawnError::NotExecutable { .. } => 126,
        SpawnError::Kernel { .. } => 1,
    };
    Failure::Command { status, message: error.to_string() }
}
