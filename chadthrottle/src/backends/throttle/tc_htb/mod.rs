//! Upload limits by traffic control: each interface that packets leave by gets an HTB queue, with a class for each
//! target.
//!
//! - A packet finds its class by its priority, which a [tagger] gives it, or its socket: where
//!   that is the number of a class, HTB takes it, without any filter (`htb_classify`). What has no such number is not
//!   limited, and waits for the device alone.
//! - What is over the limit waits in a queue of about 50 ms. While it does it is still the socket's, so that TCP does not
//!   send more (TCP small queues), and a UDP socket's buffer gets full: nothing is lost before that. [Flow](super::flow)
//!   control in front keeps TCP from coming to that.
//! - An interface's queue is replaced only where it is the kernel's default one, which comes back when ours goes. Where
//!   somebody gave it an HTB queue, that may be used with his leave: classes of ours are added to it, and nothing else.
//! - Each interface has the whole limit as long as a target sends by one alone; where it sends by more, they share it by
//!   what each uses, five times a second.
//!
//! `interfaces` says which interfaces, and whose their queues are; `engine` is all of them with all targets, by
//! `htb`. The [journal](super::journal) has what would outlive us.

mod engine;
mod interfaces;

pub(super) use super::htb::drain;
pub(super) use interfaces::OURS;

use std::sync::Arc;

use chadthrottle_common::ThrottleStats;
use nix::sys::socket::SockProtocol;

use self::engine::Engine;
use super::{
    Subject, Target, UploadThrottleBackend,
    carrying::carrying,
    flow::{self, Direction, SharedFlow},
    htb::{self, HtbError},
    journal::{forget_gone_networks, leftovers},
    tagger::{self, Tagging, untaggable},
};
use crate::{
    backends::{Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, Obstacle},
    sys::{
        capability::{self, NET_ADMIN},
        netlink::Netlink,
    },
};

/// Name on the command line.
pub const NAME: &str = "tc_htb";
/// Exact and without loss, but it takes the place of every interface's queue.
pub const PRIORITY: BackendPriority = BackendPriority::Good;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities =
    BackendCapabilities { shapes: true, ..BackendCapabilities::ALL_TRAFFIC };

/// Upload limits.
pub struct TcHtbUpload {
    options: BackendOptions,
    flow: SharedFlow,
    tagging: Tagging,
    engine: Option<Arc<Engine>>,
}

impl TcHtbUpload {
    /// A limiter with flow control (guarded) in front.
    #[must_use]
    pub fn new(options: &BackendOptions, flow: &SharedFlow, tagging: Tagging) -> Self {
        Self { options: options.clone(), flow: flow.clone(), tagging, engine: None }
    }

    fn engine(&mut self) -> Result<Arc<Engine>, BackendError> {
        if let Some(engine) = &self.engine {
            return Ok(Arc::clone(engine));
        }
        let tagger = self.tagging.make(NAME).map_err(|error| kernel("know whose a packet is", error))?;
        let engine =
            Engine::new(&self.options, &self.flow, tagger).map_err(|error| kernel("start", error))?;
        Ok(Arc::clone(self.engine.insert(engine)))
    }

    /// Asks TCP sockets to keep to a limit by themselves.
    fn slow_down(&self, target: &Target, limit: u64) {
        let covers_open = || self.capabilities().open_connections;
        flow::slow_down(&self.flow, target, Direction::Upload, limit, &self.options, covers_open);
    }
}

impl UploadThrottleBackend for TcHtbUpload {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        match obstacle(options) {
            None => Availability::Available,
            Some(obstacle) => Availability::Unavailable(obstacle),
        }
    }

    fn capabilities(&self) -> BackendCapabilities {
        tagger::capabilities(CAPABILITIES, tagger::name(&self.options, true))
    }

    fn init(&mut self) -> Result<(), BackendError> {
        forget_gone_networks().map_err(|error| kernel("forget what is gone", error))?;
        for leftover in leftovers().map_err(|error| kernel("look for what a killed one left", error))? {
            for line in leftover.describe() {
                log::info!("removing {line}");
            }
            if let Some(problem) = leftover.problem() {
                log::warn!("{problem}");
            }
            leftover.remove().map_err(|error| kernel("remove what a killed one left", error))?;
        }
        self.engine().map(drop)
    }

    fn throttle_upload(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        let subject = &target.subject;
        let engine = self.engine()?;
        engine.with_tagger(|tagger| tagger.check(NAME, target))?;
        let before = engine.limit(subject);
        // Pacing is the lower one at any moment: what comes unpaced overflows the queue, and makes TCP slow for long.
        let is_lower = before.is_none_or(|before| limit <= before);
        if is_lower {
            self.slow_down(target, limit);
        }
        match engine.set(target, limit) {
            Ok(interfaces) if before.is_none() && interfaces.len() > 1 => {
                let names = interfaces.join(", ");
                log::info!("{target}: {names} share the limit, by what each uses");
            }
            Ok(_) => {}
            Err(error) => {
                match before {
                    Some(before) => self.slow_down(target, before),
                    None => self.flow.release(subject, Direction::Upload),
                }
                return Err(translated(error, subject));
            }
        }
        if !is_lower {
            self.slow_down(target, limit);
        }
        Ok(())
    }

    fn remove_upload_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        let removed = self.engine.as_ref().map_or(Ok(()), |engine| engine.remove(subject));
        // After the queue, as above.
        self.flow.release(subject, Direction::Upload);
        removed.map_err(|error| kernel("remove a limit", error))
    }

    fn get_upload_throttle(&self, subject: &Subject) -> Option<u64> {
        self.engine.as_ref()?.limit(subject)
    }

    fn held_back(&self, subject: &Subject) -> Option<u64> {
        let queued = self.engine.as_ref()?.queued(subject);
        Some(queued.saturating_add(self.flow.held_back(subject).unwrap_or_default()))
    }

    fn upload_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        let Some(engine) = &self.engine else { return Ok(ThrottleStats::default()) };
        engine.stats(subject).map_err(|error| kernel("read what passed", error))
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.engine.as_ref().map_or(Ok(()), |engine| engine.with_tagger(|tagger| tagger.maintain()))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        let removed = self.engine.as_ref().map_or(Ok(()), |engine| engine.remove_all());
        self.flow.release_all(Direction::Upload);
        removed.map_err(|error| kernel("take everything back", error))
    }
}

impl Drop for TcHtbUpload {
    /// Also where nobody cleans up.
    fn drop(&mut self) {
        if let Err(error) = self.cleanup() {
            log::error!("{error}");
        }
    }
}

/// Why it cannot work here. Changes nothing.
fn obstacle(options: &BackendOptions) -> Option<Obstacle> {
    if let Some(missing) = capability::first_missing(&[NET_ADMIN]) {
        return Some(Obstacle::Privilege { capability: missing.name });
    }
    if let Some(obstacle) = super::only_for_root("its queue", "ebpf_cgroup or nftables") {
        return Some(obstacle);
    }
    if let Some(obstacle) = tagger::obstacle(options, true) {
        return Some(obstacle);
    }
    if !htb::is_in_kernel() {
        return Some(Obstacle::Host {
            cause: "this kernel has no HTB queue".into(),
            remedy: "use one with CONFIG_NET_SCH_HTB (module sch_htb)".into(),
        });
    }
    let taken = Netlink::open(SockProtocol::NetlinkRoute).and_then(|mut netlink| {
        let links = carrying(&mut netlink, options)?;
        interfaces::first_obstacle(&mut netlink, &links, options.use_existing_htb)
    });
    let (cause, remedy) = match taken {
        Ok(None) => return None,
        Ok(Some(why)) => match why.split_once("; ") {
            Some((cause, remedy)) => (cause.to_owned(), remedy.to_owned()),
            None => (why, "choose another backend".to_owned()),
        },
        Err(error) => (format!("cannot list the interfaces: {error}"), "choose another backend".to_owned()),
    };
    Some(Obstacle::Host { cause, remedy })
}

fn translated(error: HtbError, subject: &Subject) -> BackendError {
    let subject = subject.clone();
    match error {
        HtbError::Obstacle(reason) => BackendError::Unenforceable { backend: NAME, subject, reason },
        HtbError::Target(error) => untaggable(NAME, &subject, error),
        error => kernel("set a limit", error),
    }
}

fn kernel(step: &str, error: impl Into<anyhow::Error>) -> BackendError {
    BackendError::Kernel { backend: NAME, step: step.to_owned(), cause: error.into() }
}
