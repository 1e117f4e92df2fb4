//! A backend for both directions that remembers instead of limiting.

use std::collections::BTreeMap;

use chadthrottle_common::ThrottleStats;

use super::{DownloadThrottleBackend, Subject, Target, UploadThrottleBackend};
use crate::backends::{
    Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, monitor::fake::Journal,
};

/// It can do anything.
pub(crate) const CAPABILITIES: BackendCapabilities = BackendCapabilities {
    ipv4: true,
    ipv6: true,
    tcp: true,
    udp: true,
    open_connections: true,
    moves_process: false,
    shapes: true,
};

/// Remembers limits, and refuses those of one byte a second.
#[derive(Debug)]
pub(crate) struct FakeThrottle {
    limits: BTreeMap<Subject, u64>,
    journal: Journal,
    /// Whether it takes no limit at all.
    refuses: bool,
}

impl FakeThrottle {
    /// A backend without limits.
    pub(crate) const fn new(journal: Journal) -> Self {
        Self { limits: BTreeMap::new(), journal, refuses: false }
    }

    /// From now on it takes no limit.
    pub(crate) const fn refuse_all(&mut self) {
        self.refuses = true;
    }

    fn set(&mut self, direction: &str, target: &Target, limit: u64) -> Result<(), BackendError> {
        if limit == 1 || self.refuses {
            let reason = "one byte a second is no limit but an insult".to_owned();
            return Err(BackendError::Unenforceable {
                backend: "fake",
                subject: target.subject.clone(),
                reason,
            });
        }
        self.journal.write(format!("{direction} {} {limit}", target.subject));
        self.limits.insert(target.subject.clone(), limit);
        Ok(())
    }

    fn remove(&mut self, direction: &str, subject: &Subject) {
        if self.limits.remove(subject).is_some() {
            self.journal.write(format!("{direction} {subject} none"));
        }
    }

    fn stats(&self, subject: &Subject) -> ThrottleStats {
        let bytes = self.limits.get(subject).copied().unwrap_or_default();
        ThrottleStats { bytes_total: bytes * 3, bytes_dropped: bytes, ..ThrottleStats::default() }
    }
}

impl UploadThrottleBackend for FakeThrottle {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn priority(&self) -> BackendPriority {
        BackendPriority::Fallback
    }

    fn probe(_: &BackendOptions) -> Availability {
        Availability::Available
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn throttle_upload(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.set("upload", target, limit)
    }

    fn remove_upload_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.remove("upload", subject);
        Ok(())
    }

    fn get_upload_throttle(&self, subject: &Subject) -> Option<u64> {
        self.limits.get(subject).copied()
    }

    fn upload_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        Ok(self.stats(subject))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.journal.write("upload cleanup");
        Ok(())
    }
}

impl DownloadThrottleBackend for FakeThrottle {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn priority(&self) -> BackendPriority {
        BackendPriority::Fallback
    }

    fn probe(_: &BackendOptions) -> Availability {
        Availability::Available
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn throttle_download(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.set("download", target, limit)
    }

    fn remove_download_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.remove("download", subject);
        Ok(())
    }

    fn get_download_throttle(&self, subject: &Subject) -> Option<u64> {
        self.limits.get(subject).copied()
    }

    fn download_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        Ok(self.stats(subject))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.journal.write("download cleanup");
        Ok(())
    }
}
