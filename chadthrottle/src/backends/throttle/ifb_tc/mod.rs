//! Download limits by traffic control: what arrives for a target waits in the queue of an interface of our own, before it
//! goes on as if it had just come.
//!
//! - A program at the entrance of the interfaces looks up the socket that a packet will go to, and so knows whose it is
//!   (`entrances`). Packets of limited targets alone it sends to the IFB, each with the number of its class as its
//!   priority; all others go on untouched.
//! - The IFB has an HTB queue with a class for each target, and hands what leaves it back to the interface that it came by.
//! - A queue of about 50 ms overflows where senders do not slow down. [Flow](super::flow) control in front keeps TCP from
//!   that: it aims at the limit, and below it as long as something stands in the queue.
//!
//! `queue` is the IFB; `journal` writes it down, because it would outlive us.

mod journal;
mod queue;

pub(super) use journal::of;
pub use journal::{Leftover, leftovers};

use std::sync::Arc;

use chadthrottle_common::ThrottleStats;

use self::queue::{Queue, Way};
use super::{
    DownloadThrottleBackend, Subject, Target,
    entrances::{Entrances, check_network, remove_leftovers},
    flow::SharedFlow,
    htb::{self, HtbError},
    programs::Limiter,
};
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, Obstacle,
        ebpf::{
            self, SharedEngine,
            limits::{Asked, Direction, Leniency, Means},
        },
    },
    sys::{kernel_version::kernel_version, tc::Handle},
};

/// Name on the command line.
pub const NAME: &str = "ifb_tc";
/// It delays instead of dropping, but every packet of a target takes a way round.
pub const PRIORITY: BackendPriority = BackendPriority::Good;
/// Since then an IFB takes what a program redirects to it (`__bpf_tx_skb`, net/core/filter.c); before, it drops it
/// (`ifb_xmit`, drivers/net/ifb.c).
const REDIRECTS: (u32, u32) = (6, 4);
/// What it covers.
pub const CAPABILITIES: BackendCapabilities =
    BackendCapabilities { shapes: true, ..BackendCapabilities::ALL_TRAFFIC };

/// Download limits.
pub struct IfbTcDownload {
    options: BackendOptions,
    engine: SharedEngine,
    flow: SharedFlow,
    /// Whose packets they are, and flow control.
    limiter: Limiter,
    queue: Option<Arc<Queue>>,
    /// As long as there are limits.
    entrances: Option<Entrances>,
}

impl IfbTcDownload {
    /// A limiter on the programs that all eBPF backends share, with flow control (guarded) in front.
    #[must_use]
    pub fn new(options: &BackendOptions, engine: &SharedEngine, flow: &SharedFlow) -> Self {
        Self {
            options: options.clone(),
            engine: engine.clone(),
            flow: flow.clone(),
            limiter: Limiter::new(NAME, options, engine, flow, Direction::Download),
            queue: None,
            entrances: None,
        }
    }

    fn queue(&mut self) -> Result<Arc<Queue>, BackendError> {
        if let Some(queue) = &self.queue {
            return Ok(Arc::clone(queue));
        }
        let queue = Queue::new(&self.flow).map_err(|error| kernel("speak to the kernel", error))?;
        Ok(Arc::clone(self.queue.insert(queue)))
    }

    /// Has packets go by the queue. Those that were promised before there was a limit need not.
    fn send(
        &mut self,
        target: &Target,
        limit: u64,
        leniency: Leniency,
        way: Way,
    ) -> Result<(), BackendError> {
        let Way { interface, class: Handle(class) } = way;
        let leniency = Leniency { grace: leniency.grace, ..Leniency::default() };
        let asked = Asked { rate_bps: limit, leniency, means: Means::Queue { interface, class } };
        self.limiter.enforce(target, asked)?;
        if self.entrances.is_none() {
            self.entrances = Some(Entrances::open(NAME, &self.options, &self.engine)?);
        }
        Ok(())
    }

    /// The way back, step by step. First packets go past the queue, then it is emptied.
    fn take_back(&mut self, subject: &Subject) -> Result<(), BackendError> {
        let freed = self.limiter.free(subject);
        let removed = self.queue.as_ref().map_or(Ok(()), |queue| queue.remove(subject));
        self.limiter.release(subject);
        if self.queue.as_ref().is_none_or(|queue| queue.subjects().is_empty()) {
            self.entrances = None;
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
        match ebpf::probe(options) {
            Availability::Available => missing().map_or(Availability::Available, Availability::Unavailable),
            unavailable @ Availability::Unavailable(_) => unavailable,
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
        self.limiter.init()
    }

    fn throttle_download(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        let subject = &target.subject;
        check_network(NAME, target)?;
        self.limiter.check(target)?;
        let queue = self.queue()?;
        let before = queue.limit(subject);
        let leniency = self.limiter.slow_down(target, limit);
        let set = match queue.set(target, limit) {
            Ok(way) => self.send(target, limit, leniency, way),
            Err(error) => Err(translated(error, subject)),
        };
        let Err(error) = set else { return Ok(()) };
        match before {
            Some(before) => {
                self.limiter.slow_down(target, before);
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
        let past = self.limiter.stats(subject)?;
        Ok(ThrottleStats {
            packets_total: by_queue.packets_total + past.packets_total,
            bytes_total: by_queue.bytes_total + past.bytes_total,
            ..by_queue
        })
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.limiter.maintain()
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

/// What this kernel lacks, as far as can be told without making any of it.
fn missing() -> Option<Obstacle> {
    if let Some(obstacle) = super::only_for_root("its interface", "ebpf_cgroup or tc_police") {
        return Some(obstacle);
    }
    let lacks = |what: &str, module: &str, option: &str| {
        Some(Obstacle::Host {
            cause: format!("this kernel has no {what}"),
            remedy: format!("install the module {module} ({option}); docs/IFB_SETUP.md has how"),
        })
    };
    if kernel_version().is_some_and(|version| version < REDIRECTS) {
        return Some(Obstacle::Host {
            cause: "this kernel drops what a program sends to an IFB".into(),
            remedy: "Linux 6.4 does not; tc_police and ebpf_cgroup work without an IFB".into(),
        });
    }
    if !htb::is_in_kernel() {
        return lacks("HTB queue", "sch_htb", "CONFIG_NET_SCH_HTB");
    }
    // Where it is built in, it has parameters all the same.
    let has_ifb = std::path::Path::new("/sys/module/ifb").exists() || htb::may_have_module("ifb");
    if has_ifb { None } else { lacks("IFB", "ifb", "CONFIG_IFB") }
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
