//! Download limits by a program at the entrance of interfaces: what is over the limit is dropped before anything else has
//! seen it.
//!
//! The program looks up the socket that a packet will go to, and so knows whose it is; the clock is the one of
//! `ebpf_cgroup`, and so is the [flow](super::flow) control in front. Nothing else of an interface is limited.

use chadthrottle_common::ThrottleStats;

use super::{
    DownloadThrottleBackend, Subject, Target,
    entrances::{Entrances, Program, check_network, remove_leftovers},
    flow::SharedFlow,
    programs::Limiter,
};
use crate::backends::{
    Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority,
    ebpf::{
        self, SharedEngine,
        limits::{Direction, Means},
    },
};

/// Name on the command line.
pub const NAME: &str = "tc_police";
/// It drops, and looks every packet's socket up once more.
pub const PRIORITY: BackendPriority = BackendPriority::Fallback;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities = BackendCapabilities::ALL_TRAFFIC;

/// Download limits.
pub struct TcPoliceDownload {
    limiter: Limiter,
    options: BackendOptions,
    engine: SharedEngine,
    /// As long as there are limits.
    entrances: Option<Entrances<Program>>,
    limited: std::collections::BTreeSet<Subject>,
}

impl TcPoliceDownload {
    /// A limiter on the programs that all eBPF backends share, with flow control (guarded) in front.
    #[must_use]
    pub fn new(options: &BackendOptions, engine: &SharedEngine, flow: &SharedFlow) -> Self {
        Self {
            limiter: Limiter::new(NAME, options, engine, flow, Direction::Download),
            options: options.clone(),
            engine: engine.clone(),
            entrances: None,
            limited: std::collections::BTreeSet::new(),
        }
    }

    fn leave_if_unused(&mut self) {
        if self.limited.is_empty() {
            self.entrances = None;
        }
    }
}

impl DownloadThrottleBackend for TcPoliceDownload {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        match ebpf::probe(options) {
            // Elsewhere it is a link, which goes with us.
            Availability::Available if !ebpf::has_links() => {
                super::only_for_root("its filter", "ebpf_cgroup")
                    .map_or(Availability::Available, Availability::Unavailable)
            }
            answer => answer,
        }
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        remove_leftovers(NAME)?;
        self.limiter.init()
    }

    fn throttle_download(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        check_network(NAME, target)?;
        if self.entrances.is_none() {
            let program = Program::new(NAME, &self.options, &self.engine);
            self.entrances = Some(Entrances::open(NAME, &self.options, program)?);
        }
        let set = self.limiter.set(target, limit, Means::Entrance);
        if set.is_ok() {
            self.limited.insert(target.subject.clone());
        }
        self.leave_if_unused();
        set
    }

    fn remove_download_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        let removed = self.limiter.remove(subject);
        self.limited.remove(subject);
        self.leave_if_unused();
        removed
    }

    fn get_download_throttle(&self, subject: &Subject) -> Option<u64> {
        self.limiter.limit(subject)
    }

    fn download_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        self.limiter.stats(subject)
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.limiter.maintain()
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        let cleaned = self.limiter.cleanup(Means::Entrance);
        self.limited.clear();
        self.leave_if_unused();
        cleaned
    }
}
