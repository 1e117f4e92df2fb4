//! Faults of the kernel's, to order: one system call of a program, or of a process that it starts, fails, and all others do
//! what they do.
//!
//! A filter of seccomp(2) has the calls that are of interest wait until this process has said what comes of them
//! (`seccomp_unotify(2)`): nothing of that is in the program under test. strace(1) can fail calls as well, but counts those
//! of each thread by themselves, so that "the third call" is one for every thread that makes three; and it cannot have
//! the kernel's answer over netlink be an error.

mod calls;
mod filter;
mod netlink;
mod supervisor;

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;

use crate::poll;

/// A kind of call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whether a process makes it that the program has started, and not the program itself.
    pub is_childs: bool,
    /// Its name, with the command or option where it has one: `bpf MAP_CREATE`, `setsockopt 1/47`, `netlink NEWQDISC`.
    pub call: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_childs { "child: " } else { "" }, self.call)
    }
}

/// What comes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It fails.
    Fails(Errno),
    /// Of a request over netlink: it goes out, and the answer is this error.
    Answered(Errno),
}

/// One call that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which kind.
    pub place: Place,
    /// Which of them, from 1.
    pub number: usize,
    /// How.
    pub how: How,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, errno) = match self.how {
            How::Fails(errno) => ("fails with", errno),
            How::Answered(errno) => ("is answered with", errno),
        };
        write!(f, "{} no. {} {verb} {errno:?}", self.place, self.number)
    }
}

/// Who decides on the calls of one command.
#[derive(Debug)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    fault: Option<Fault>,
    calls: Mutex<BTreeMap<Place, usize>>,
    has_struck: AtomicBool,
    /// Nobody whose calls we decide on is left.
    is_over: AtomicBool,
    /// We do not want to decide any more.
    is_dropped: AtomicBool,
}

impl Faults {
    /// Decides on the calls of a command that is about to be started, and of everybody whom it starts: all do what they do,
    /// except for the one that is to fail, if one is.
    ///
    /// # Errors
    ///
    /// That the means for it cannot be made.
    pub fn in_command(command: &mut Command, fault: Option<Fault>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared { fault, ..Shared::default() });
        supervisor::start(command, &shared).context("cannot decide on system calls")?;
        Ok(Self { shared })
    }

    /// How often each kind of call was made so far.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Place, usize> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the call that is to fail was made.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        self.shared.has_struck.load(Ordering::Acquire)
    }

    /// Waits until the command and everybody whom it has started have ended.
    ///
    /// # Errors
    ///
    /// That somebody still runs after `timeout`.
    pub fn wait_until_all_have_ended(&self, timeout: Duration) -> anyhow::Result<()> {
        poll::until("all that was started has ended", timeout, || {
            Ok(self.shared.is_over.load(Ordering::Acquire).then_some(()))
        })
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.shared.is_dropped.store(true, Ordering::Release);
    }
}

impl Shared {
    /// Counts a call, and says what is to come of it where that is not what always does.
    fn take(&self, place: &Place) -> Option<How> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let count = calls.entry(place.clone()).or_default();
        *count += 1;
        let fault = self.fault.as_ref()?;
        if fault.place != *place || fault.number != *count {
            return None;
        }
        self.has_struck.store(true, Ordering::Release);
        Some(fault.how)
    }
}
