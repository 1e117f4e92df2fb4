//! Download limits by traffic control: what arrives for a target waits in the queue of an interface of our own, before it
//! goes on as if it had just come.
//!
//! - Whose a packet is is known where it arrives (`entrances`): by a program that looks up the socket that it will go to
//!   (`programs`), or, without eBPF, by the mark of its connection (`marks`). Packets of limited targets alone are sent to the
//!   IFB, each with the number of its class as its priority; all others go on untouched.
//! - The IFB has an HTB queue with a class for each target, and hands what leaves it back to the interface that it came by.
//! - A queue of about 50 ms overflows where senders do not slow down. [Flow](super::flow) control in front keeps TCP from
//!   that: it aims at the limit, and below it as long as something stands in the queue.
//!
//! `queue` is the IFB; `journal` writes it down, because it would outlive us. `choice` says how packets are known here.

mod choice;
mod journal;
mod marks;
#[cfg(feature = "ebpf")]
mod programs;
mod queue;

pub use self::choice::tagger;
pub(super) use self::marks::FILTERS;
pub(super) use journal::of;
pub use journal::{Leftover, leftovers};

use std::{sync::Arc, time::Duration};

use chadthrottle_common::ThrottleStats;

use self::{
    choice::{Choice, choose},
    marks::Marks,
    queue::{Queue, Way},
};
use super::{
    DownloadThrottleBackend, Subject, Target,
    entrances::{check_network, remove_leftovers},
    flow::SharedFlow,
    htb::HtbError,
};
use crate::backends::{Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority};

/// Name on the command line.
pub const NAME: &str = "ifb_tc";
/// It delays instead of dropping, but every packet of a target takes a way round.
pub const PRIORITY: BackendPriority = BackendPriority::Good;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities =
    BackendCapabilities { shapes: true, ..BackendCapabilities::ALL_TRAFFIC };

/// What knows the packets of a target where they arrive, and sends them to the queue.
trait Sender: Send {
    fn init(&mut self) -> Result<(), BackendError>;
    /// Whether there is somebody to limit, whose packets can be known.
    fn check(&self, target: &Target) -> Result<(), BackendError>;
    /// Asks TCP to keep to a limit by itself. For how long what was promised to senders before need not wait.
    fn slow_down(&mut self, target: &Target, limit: u64) -> Duration;
    /// Has packets go by the queue.
    fn send(
        &mut self,
        target: &Target,
        limit: u64,
        grace: Duration,
        queue: &Queue,
        way: Way,
    ) -> Result<(), BackendError>;
    /// Has them go past it again.
    fn free(&mut self, subject: &Subject) -> Result<(), BackendError>;
    /// Takes flow control away.
    fn release(&mut self, subject: &Subject);
    /// There is no limit any more.
    fn leave(&mut self);
    /// What went past the queue all the same.
    fn passed(&self, subject: &Subject) -> Result<ThrottleStats, BackendError>;
    fn maintain(&mut self) -> Result<(), BackendError>;
}

/// Download limits.
pub struct IfbTcDownload {
    flow: SharedFlow,
    sender: Box<dyn Sender>,
    queue: Option<Arc<Queue>>,
}

impl IfbTcDownload {
    /// A limiter with flow control (guarded) in front, on the programs that all eBPF backends share, or without any.
    #[must_use]
    pub fn new(
        options: &BackendOptions,
        #[cfg(feature = "ebpf")] engine: &crate::backends::ebpf::SharedEngine,
        flow: &SharedFlow,
    ) -> Self {
        let sender: Box<dyn Sender> = match choose(options).unwrap_or_else(|_| choice::likely(options)) {
            #[cfg(feature = "ebpf")]
            Choice::Programs => Box::new(programs::Programs::new(options, engine, flow)),
            Choice::Marks => Box::new(Marks::new(options, flow)),
        };
        Self { flow: flow.clone(), sender, queue: None }
    }

    fn queue(&mut self) -> Result<Arc<Queue>, BackendError> {
        if let Some(queue) = &self.queue {
            return Ok(Arc::clone(queue));
        }
        let queue = Queue::new(&self.flow).map_err(|error| kernel("speak to the kernel", error))?;
        Ok(Arc::clone(self.queue.insert(queue)))
    }

    /// The way back, step by step. First packets go past the queue, then it is emptied.
    fn take_back(&mut self, subject: &Subject) -> Result<(), BackendError> {
        let freed = self.sender.free(subject);
        let removed = self.queue.as_ref().map_or(Ok(()), |queue| queue.remove(subject));
        self.sender.release(subject);
        if self.queue.as_ref().is_none_or(|queue| queue.subjects().is_empty()) {
            self.sender.leave();
        }
        freed.and(removed.map_err(|error| kernel("take a limit away", error)))
    }
}

impl DownloadThrottleBackend for IfbTcDownload {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        match choose(options) {
            Ok(_) => Availability::Available,
            Err(obstacle) => Availability::Unavailable(obstacle),
        }
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        remove_leftovers(NAME)?;
        let left = leftovers().map_err(|error| kernel("look for what a killed one left", error))?;
        for leftover in left {
            log::info!("removing {}", leftover.describe());
            leftover.remove().map_err(|error| kernel("remove what a killed one left", error))?;
        }
        self.sender.init()
    }

    fn throttle_download(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        let subject = &target.subject;
        check_network(NAME, target)?;
        self.sender.check(target)?;
        let queue = self.queue()?;
        let before = queue.limit(subject);
        let grace = self.sender.slow_down(target, limit);
        let set = match queue.set(target, limit) {
            Ok(way) => self.sender.send(target, limit, grace, &queue, way),
            Err(error) => Err(translated(error, subject)),
        };
        let Err(error) = set else { return Ok(()) };
        match before {
            Some(before) => {
                self.sender.slow_down(target, before);
                if let Err(error) = queue.set(target, before) {
                    log::error!("{target} is not held any more: {error}");
                    self.take_back(subject)?;
                }
            }
            None => self.take_back(subject)?,
        }
        Err(error)
    }

    fn remove_download_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.take_back(subject)
    }

    fn get_download_throttle(&self, subject: &Subject) -> Option<u64> {
        self.queue.as_ref()?.limit(subject)
    }

    fn download_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        let Some(queue) = &self.queue else { return Ok(ThrottleStats::default()) };
        let by_queue = queue.stats(subject).map_err(|error| kernel("read what passed", error))?;
        // And what went past it, at first.
        let past = self.sender.passed(subject)?;
        Ok(ThrottleStats {
            packets_total: by_queue.packets_total + past.packets_total,
            bytes_total: by_queue.bytes_total + past.bytes_total,
            ..by_queue
        })
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.sender.maintain()
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        let Some(queue) = self.queue.clone() else { return Ok(()) };
        let mut result = Ok(());
        for subject in queue.subjects() {
            result = result.and(self.take_back(&subject));
        }
        result
    }
}

impl Drop for IfbTcDownload {
    /// Also where nobody cleans up.
    fn drop(&mut self) {
        if let Err(error) = self.cleanup() {
            log::error!("{error}");
        }
    }
}

fn translated(error: HtbError, subject: &Subject) -> BackendError {
    match error {
        HtbError::Obstacle(reason) => {
            BackendError::Unenforceable { backend: NAME, subject: subject.clone(), reason }
        }
        error => kernel("set a limit", error),
    }
}

fn kernel(step: &str, error: impl Into<anyhow::Error>) -> BackendError {
    BackendError::Kernel { backend: NAME, step: step.to_owned(), cause: error.into() }
}
