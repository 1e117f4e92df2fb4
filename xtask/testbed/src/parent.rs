//! Children that do not outlive whoever started them, not even by a SIGKILL, after which no guard runs.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Pid, getpid, getppid},
};

/// Has a command killed as soon as the thread that starts it ends, whatever ends that. What the command starts itself is
/// not.
pub fn ends_with_its_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. Those made here are prctl and getppid;
    // nothing allocates or takes a lock.
    unsafe { command.pre_exec(move || end_with(parent)) };
}

/// The same, for a child that has been forked from `parent`.
pub(crate) fn end_with(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        // The parent died before the line above, so that the signal will never come.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, thread, time::Duration};

    use super::*;
    use crate::poll;

    #[test]
    fn a_command_ends_with_the_thread_that_started_it() {
        let start = || {
            let sleep = || {
                let mut command = Command::new("sleep");
                command.arg("300");
                command
            };
            let (mut bound, mut free) = (sleep(), sleep());
            ends_with_its_parent(&mut bound);
            (bound.spawn().expect("sleep is there"), free.spawn().expect("sleep is there"))
        };
        let (mut bound, mut free) = thread::spawn(start).join().expect("two that sleep");
        let ended = poll::until("it is killed", Duration::from_secs(30), || Ok(bound.try_wait()?));
        // Whoever does not ask for it goes on.
        let is_running = free.try_wait().is_ok_and(|status| status.is_none());
        for child in [&mut bound, &mut free] {
            let _ = child.kill();
            child.wait().expect("it has been killed");
        }
        assert_eq!(ended.expect("an end").signal(), Some(Signal::SIGKILL as i32));
        assert!(is_running, "something else has ended it");
    }
}
