//! Signals as something to wait for, instead of something that interrupts.

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, raise},
        signalfd::{SfdFlags, SignalFd},
    },
};

/// `si_code` of a signal that the kernel itself sent (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// Those that end a program, and the one that tells that a child has ended.
const ENDING: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD];

/// Stops this process, as SIGTSTP would if it were not held back, until somebody lets it go on.
///
/// # Errors
/// When the kernel does.
pub fn stop() -> io::Result<()> {
    Ok(raise(Signal::SIGSTOP)?)
}

/// Holds back the signals that end a program, so that it can clean up first, and hands them over when asked.
///
/// Made before any thread is, because threads inherit what is held back and any thread that did not would be
/// killed by the signal, and the program with it.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    held: SigSet,
    last_was_typed: Cell<bool>,
}

impl Signals {
    /// Holds back SIGINT, SIGTERM, SIGHUP and SIGQUIT, and SIGCHLD to learn when a child has ended.
    ///
    /// # Errors
    /// When the kernel has no more file descriptors.
    pub fn hold() -> io::Result<Self> {
        Self::hold_these(&ENDING)
    }

    /// Holds back SIGTSTP too: whoever has taken over a terminal gives it back before it stops.
    ///
    /// # Errors
    /// When the kernel has no more file descriptors.
    pub fn hold_for_screen() -> io::Result<Self> {
        Self::hold_these(&[&ENDING[..], &[Signal::SIGTSTP]].concat())
    }

    fn hold_these(signals: &[Signal]) -> io::Result<Self> {
        let mut held = SigSet::empty();
        for signal in signals {
            held.add(*signal);
        }
        held.thread_block()?;
        let fd = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, held, last_was_typed: Cell::new(false) })
    }

    /// Which signals are held back: a child has to let them through again before it becomes another program.
    #[must_use]
    pub const fn held(&self) -> SigSet {
        self.held
    }

    /// Waits for the next signal, until `deadline` where there is one.
    ///
    /// # Errors
    /// When the kernel does.
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<Option<Signal>> {
        loop {
            if let Some(signal) = self.take()? {
                return Ok(Some(signal));
            }
            let left = left_until(deadline);
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let timeout = left.map_or(PollTimeout::NONE, rounded_up);
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The same, or until one of these is ready: which of them are, in their order.
    ///
    /// # Errors
    /// When the kernel does.
    pub fn wait_beside<'a>(
        &'a self,
        deadline: Option<Instant>,
        mut others: Vec<PollFd<'a>>,
    ) -> io::Result<(Option<Signal>, Vec<bool>)> {
        let timeout = match left_until(deadline) {
            None => PollTimeout::NONE,
            Some(Duration::ZERO) => PollTimeout::ZERO,
            Some(left) => rounded_up(left),
        };
        let signals = self.fd.as_fd();
        others.push(PollFd::new(signals, PollFlags::POLLIN));
        match poll(&mut others, timeout) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => return Ok((self.take()?, vec![false; others.len() - 1])),
            Err(error) => return Err(error.into()),
        }
        others.pop();
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
        Ok((self.take()?, others.iter().map(is_ready).collect()))
    }

    /// The next signal that has come already.
    ///
    /// # Errors
    /// When the kernel does.
    pub fn take(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.fd.read_signal()? else { return Ok(None) };
        self.last_was_typed.set(info.ssi_code == SI_KERNEL);
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        Ok(Some(Signal::try_from(number)?))
    }
}

/// How long there is to a deadline, where there is one.
fn left_until(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// Half a millisecond rounded down would poll in a busy loop. Long waits are taken in parts.
fn rounded_up(left: Duration) -> PollTimeout {
    PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
}

impl Signals {
    /// Whether the signal taken last came from the keyboard, that is, from the terminal driver, which sends it to
    /// every process in the foreground, and not from `kill`.
    #[must_use]
    pub fn last_was_typed(&self) -> bool {
        self.last_was_typed.get()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
