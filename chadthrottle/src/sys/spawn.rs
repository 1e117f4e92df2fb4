//! Starting a command that waits, between fork and exec, until its limits are in force.
//!
//! `std::process::Command` cannot: its `spawn` returns only after the exec.

use std::{
    ffi::{CString, OsStr, OsString},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    sys::signal::SigSet,
    unistd::{ForkResult, Pid, fork, pipe2},
};

/// A forked child that has not become the command yet.
#[derive(Debug)]
pub struct HeldChild {
    pid: Pid,
    go: std::fs::File,
    outcome: std::fs::File,
}

/// Why the command did not start, as the shell would tell it.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Neither the path nor anything on `PATH` is there.
    #[error("{0:?}: command not found")]
    NotFound(OsString),
    /// It is there but cannot be run.
    #[error("{command:?} cannot be run: {cause}")]
    NotExecutable {
        /// What was to be run.
        command: OsString,
        /// Why not.
        cause: io::Error,
    },
    /// The kernel refused something on the way.
    #[error("cannot start {command:?}: {cause}")]
    Kernel {
        /// What was to be run.
        command: OsString,
        /// Why not.
        cause: io::Error,
    },
}

/// What the child does after the fork, prepared before it: in between, nothing may allocate or take a lock, because
/// another thread may have held one at the fork (signal-safety(7)).
struct Plan {
    argv: Vec<CString>,
    /// `argv` as exec takes it: pointers into it, then null.
    pointers: Vec<*const libc::c_char>,
    /// Opened for writing where the child is to move itself into a cgroup first.
    cgroup_procs: Option<std::fs::File>,
    held_signals: SigSet,
}

impl HeldChild {
    /// Forks. The child waits for [`HeldChild::release`], and ends by itself when this process ends before.
    ///
    /// `cgroup_procs` is the `cgroup.procs` file of a cgroup that the child moves itself into; `held_signals` are let
    /// through again in the child.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn spawn(
        command: &[OsString],
        cgroup_procs: Option<&Path>,
        held_signals: SigSet,
    ) -> Result<Self, SpawnError> {
        let name = command.first().cloned().unwrap_or_default();
        let failed = |cause: io::Error| SpawnError::Kernel { command: name.clone(), cause };
        let c_string = |argument: &OsString| {
            CString::new(argument.as_bytes()).map_err(|error| failed(io::Error::other(error)))
        };
        let open = |path: &Path| std::fs::File::options().write(true).open(path).map_err(failed);
        let argv = command.iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
        let plan = Plan {
            pointers: argv.iter().map(|argument| argument.as_ptr()).chain([std::ptr::null()]).collect(),
            argv,
            cgroup_procs: cgroup_procs.map(open).transpose()?,
            held_signals,
        };
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|error| failed(error.into()));
        let (go_read, go_write) = pipe()?;
        let (outcome_read, outcome_write) = pipe()?;
        // SAFETY: the child calls nothing but async-signal-safe functions (see `Plan`) before it execs or exits.
        match unsafe { fork() }.map_err(|error| failed(error.into()))? {
            ForkResult::Child => {
                // The parent's end, or its death would not be seen here.
                drop(go_write);
                drop(outcome_read);
                plan.execute(&go_read, &outcome_write)
            }
            ForkResult::Parent { child } => {
                Ok(Self { pid: child, go: go_write.into(), outcome: outcome_read.into() })
            }
        }
    }

    /// The child's pid, which is the command's.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets the child become the command.
    ///
    /// # Errors
    /// When the command cannot be run. The child has ended then and is to be waited for.
    pub fn release(mut self, command: &OsStr) -> Result<Pid, SpawnError> {
        let failed = |cause: io::Error| SpawnError::Kernel { command: command.to_owned(), cause };
        self.go.write_all(&[1]).map_err(failed)?;
        let mut errno = [0; 4];
        match self.outcome.read_exact(&mut errno) {
            // Closed by the exec: it is running.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(self.pid),
            Err(error) => Err(failed(error)),
            Ok(()) => Err(match Errno::from_raw(i32::from_ne_bytes(errno)) {
                Errno::ENOENT => SpawnError::NotFound(command.to_owned()),
                error => SpawnError::NotExecutable { command: command.to_owned(), cause: error.into() },
            }),
        }
    }
}

impl Plan {
    fn execute(self, go: &OwnedFd, outcome: &OwnedFd) -> ! {
        let Err(error) = self.become_command(go.as_raw_fd());
        let errno = (error as i32).to_ne_bytes();
        // SAFETY: a live buffer of four bytes; `_exit` runs no handlers of the parent's.
        unsafe {
            libc::write(outcome.as_raw_fd(), errno.as_ptr().cast(), errno.len());
            libc::_exit(127)
        }
    }

    fn become_command(self, go: RawFd) -> Result<std::convert::Infallible, Errno> {
        let mut byte = 0_u8;
        // SAFETY: a live buffer of one byte.
        match unsafe { libc::read(go, (&raw mut byte).cast(), 1) } {
            1 => {}
            // The parent has ended: nobody limits us, so do not start at all.
            // SAFETY: ends this process.
            _ => unsafe { libc::_exit(127) },
        }
        if let Some(procs) = &self.cgroup_procs {
            // SAFETY: a live buffer of one byte. "0" is the writing process (cgroups(7)).
            Errno::result(unsafe { libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) })?;
        }
        self.held_signals.thread_unblock()?;
        // Rust ignores SIGPIPE at start-up; programs expect the default.
        // SAFETY: installs no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        // SAFETY: a null-terminated array of pointers to strings that `argv` keeps alive.
        unsafe { libc::execvp(self.argv[0].as_ptr(), self.pointers.as_ptr()) };
        Err(Errno::last())
    }
}

/// The exit status that stands for a signal in shells: 128 + its number.
#[must_use]
pub const fn status_of_signal(signal: nix::sys::signal::Signal) -> i32 {
    128 + signal as i32
}
