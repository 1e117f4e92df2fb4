//! Limits enforced in `cgroup_skb` programs, in both directions, on sockets tagged with their owner.
//!
//! Nothing is moved to another cgroup, no qdisc and no table is touched, and connections that are open already are
//! held as well. What is over the limit is dropped; the sender's kernel is told of congestion.
//!
//! So that TCP comes to that as rarely as possible, its sockets are asked to go slower as well, by `flow`
//! control that aims a little below the limit. The programs do not know of it: what it cannot hold, they hold alone.

use chadthrottle_common::ThrottleStats;

use super::{
    DownloadThrottleBackend, Subject, Target, UploadThrottleBackend, flow::SharedFlow, programs::Limiter,
};
use crate::backends::{
    Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority,
    ebpf::{
        self, SharedEngine,
        limits::{Direction, Means},
    },
};

/// Name on the command line.
pub const NAME: &str = "ebpf_cgroup";
/// Nothing else covers every protocol, both directions and open connections without touching the host.
pub const PRIORITY: BackendPriority = BackendPriority::Best;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities = BackendCapabilities::ALL_TRAFFIC;

/// Upload limits.
pub struct EbpfCgroupUpload(Limiter);

impl EbpfCgroupUpload {
    /// A limiter on the programs that all eBPF backends share, with flow control (guarded) in front.
    #[must_use]
    pub fn new(options: &BackendOptions, engine: &SharedEngine, flow: &SharedFlow) -> Self {
        Self(Limiter::new(NAME, options, engine, flow, Direction::Upload))
    }
}

impl UploadThrottleBackend for EbpfCgroupUpload {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        ebpf::probe(options)
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        self.0.init()
    }

    fn throttle_upload(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.0.set(target, limit, Means::Sockets)
    }

    fn remove_upload_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.0.remove(subject)
    }

    fn get_upload_throttle(&self, subject: &Subject) -> Option<u64> {
        self.0.limit(subject)
    }

    fn held_back(&self, subject: &Subject) -> Option<u64> {
        self.0.held_back(subject)
    }

    fn upload_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        self.0.stats(subject)
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.0.maintain()
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.0.cleanup(Means::Sockets)
    }
}

/// Download limits.
pub struct EbpfCgroupDownload(Limiter);

impl EbpfCgroupDownload {
    /// A limiter on the programs that all eBPF backends share, with flow control (guarded) in front.
    #[must_use]
    pub fn new(options: &BackendOptions, engine: &SharedEngine, flow: &SharedFlow) -> Self {
        Self(Limiter::new(NAME, options, engine, flow, Direction::Download))
    }
}

impl DownloadThrottleBackend for EbpfCgroupDownload {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        ebpf::probe(options)
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        self.0.init()
    }

    fn throttle_download(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.0.set(target, limit, Means::Sockets)
    }

    fn remove_download_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.0.remove(subject)
    }

    fn get_download_throttle(&self, subject: &Subject) -> Option<u64> {
        self.0.limit(subject)
    }

    fn download_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        self.0.stats(subject)
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.0.maintain()
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.0.cleanup(Means::Sockets)
    }
}
