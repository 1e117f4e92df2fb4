//! Flow control by socket option: a process's TCP traffic is held to a limit from outside, in both directions, by
//! asking its own sockets to go slower.
//!
//! - **Upload**: `SO_MAX_PACING_RATE`. TCP paces itself; what is over the limit waits in the program's own socket.
//! - **Download**: `SO_BUF_LOCK` and `TCP_WINDOW_CLAMP`. The receive window is opened as far as a round trip at the
//!   limit takes, in a control loop on what really arrives.
//!
//! Nothing is dropped, queued, moved or redirected, and no privilege is needed for one's own processes. A socket is taken
//! hold of by `pidfd_getfd(2)`, which is ptrace's to allow, for the microseconds of a call or two: while a duplicate
//! lives, so does the connection.
//!
//! What follows from what is where:
//!
//! - `members`: the processes of a target. `socket`, `held`: their sockets, found in /proc, and the options of each.
//! - `ledger`, `share`, `window`, `control`: pure. How much a target may have, which part of it each socket gets,
//!   and which window that is.
//! - `setting`: what was decided becomes options. The [guard](super::guard) puts them back when we are killed.
//! - `limit`, `target`, `engine`: the loop. A scan for new sockets each 10 ms, a tick of the controller each 50 ms, both less
//!   often where there are so many sockets that they would cost more than some percent of a CPU.
//!
//! What it cannot do: anything that is not TCP; a download below one least window a connection and round trip
//! ([`Achievable`]). And what a process sends within the first milliseconds of a connection passes as it is.
//!
//! Options are put back when a limit goes, a target leaves, and we end, by SIGINT, SIGTERM or a panic. They outlive a
//! SIGKILL, except where there is a [guard](super::guard).

mod control;
mod counted;
mod engine;
mod held;
mod ledger;
mod limit;
pub(super) mod members;
mod setting;
mod share;
#[cfg(test)]
mod simulation;
mod smooth;
mod socket;
mod target;
mod window;

pub use super::guard::run_if_asked;
pub use counted::Counted;
pub use engine::SharedFlow;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables", feature = "throttle-ifb-tc"))]
pub(super) use engine::{rank, refused};

use std::io;

use super::Subject;
use crate::rate::scaled;

/// Which way the traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What is sent.
    Upload,
    /// What is received.
    Download,
}

/// What whoever is behind flow control has seen of a subject's traffic under a limit, in IP bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Passed, and was no TCP.
    pub datagrams: u64,
    /// Came in and was dropped, so that no socket has counted it.
    pub dropped: u64,
    /// Everything that passed, where sockets count what was not taken from them, and count it again when they offer it
    /// again (`__tcp_transmit_skb`, `net/ipv4/tcp_output.c`).
    pub passed: Option<u64>,
}

/// Tells that; `None` where nobody knows.
pub type AskBehind = std::sync::Arc<dyn Fn(&Subject, Direction) -> Option<Behind> + Send + Sync>;

/// Whether a limit can be held by flow control alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Achievable {
    /// It can.
    Yes,
    /// The sockets that are busy now cannot be held to less than this together, in IP bytes a second. What is to be held
    /// lower has to be delayed or dropped as well.
    AtLeast(u64),
}

/// What has passed under a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// IP bytes.
    pub bytes: u64,
}

/// Why a target cannot be taken hold of.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// It has ended.
    #[error("it has ended")]
    Ended,
    /// It is not ours to take hold of.
    #[error("{0}")]
    Denied(String),
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] io::Error),
}

/// Asks the sockets of a target to keep to a limit by themselves. What cannot be held so is left to whatever is behind; that
/// is told where it does not cover connections that are open already.
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables", feature = "throttle-ifb-tc"))]
pub(super) fn slow_down(
    flow: &SharedFlow,
    target: &super::Target,
    direction: Direction,
    limit: u64,
    options: &crate::backends::BackendOptions,
    covers_open: impl FnOnce() -> bool,
) {
    // Flow control can neither block nor tell interfaces apart.
    let is_for_all = options.interfaces.is_empty();
    let counted = Counted::new(options, target.traffic);
    let held = (limit > 0 && is_for_all).then(|| flow.hold(target, direction, limit, &counted));
    let why_not = match held {
        Some(Ok(_)) => return,
        Some(Err(error)) => error.to_string(),
        None => "it is a block, or for some interfaces alone".to_owned(),
    };
    if covers_open() {
        log::debug!("no flow control of {target}: {why_not}");
    } else {
        log::warn!("{target}: connections that are open already are not limited: no flow control: {why_not}");
    }
    flow.release(&target.subject, direction);
}

/// Why a limit is too low, in words.
#[must_use]
pub fn too_low(floor: u64) -> String {
    format!(
        "its connections cannot be held below {}B/s together, because a receive window has a least size and the round \
         trip is short; a backend that queues or drops can (sudo)",
        scaled(floor)
    )
}
