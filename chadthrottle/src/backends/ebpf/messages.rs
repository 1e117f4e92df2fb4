//! The programs' own messages, passed on to the log.

use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Context;
use aya::Ebpf;
use aya_log::EbpfLogger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long, in milliseconds, the end of the program may have to wait for the thread.
const LOOK_FOR_END_EVERY: u16 = 100;

/// A thread that reads the messages as they come, so that no form of the program has to think of it.
pub(super) struct Messages {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Messages {
    /// Starts to pass messages on.
    pub(super) fn pass_on(programs: &mut Ebpf) -> anyhow::Result<Self> {
        let mut messages = EbpfLogger::init(programs).context("cannot read the programs' messages")?;
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = thread::Builder::new().name("kernel messages".into()).spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(messages.as_fd(), PollFlags::POLLIN)];
                // Interrupted or not, there may be something to read.
                let _ = poll(&mut fds, PollTimeout::from(LOOK_FOR_END_EVERY));
                messages.flush();
            }
            messages.flush();
        })?;
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported by itself.
            let _ = thread.join();
        }
    }
}
