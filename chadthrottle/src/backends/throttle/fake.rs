//! A backend for both directions that remembers instead of limiting.

use std::collections::BTreeMap;

use chadthrottle_common::ThrottleStats;

use super::{DownloadThrottleBackend, Subject, Target, UploadThrottleBackend};
use crate::backends::{
    Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, monitor::fake::Journal,
};

/// It can do anything.
pub(crate) const CAPABILITIES: BackendCapabilities =
    BackendCapabilities { shapes: true, ..BackendCapabilities::ALL_TRAFFIC };

/// Remembers limits, and refuses those of one byte a second. Those of two it takes away only when asked for the third time.
#[derive(Debug)]
pub(crate) struct FakeThrottle {
    limits: BTreeMap<Subject, u64>,
    journal: Journal,
    /// Whether it takes no limit at all.
    refuses: bool,
    /// How often it was asked to take one of two bytes away.
    asked: u32,
}

impl FakeThrottle {
    /// A backend without limits.
    pub(crate) const fn new(journal: Journal) -> Self {
        Self { limits: BTreeMap::new(), journal, refuses: false, asked: 0 }
    }

    /// From now on it takes no limit.
    pub(crate) const fn refuse_all(&mut self) {
        self.refuses = true;
    }

    fn set(&mut self, direction: &str, target: &Target, limit: u64) -> Result<(), BackendError> {
        if limit == 1 || self.refuses {
            return Err(refusal(&target.subject, "one byte a second is no limit but an insult"));
        }
        self.journal.write(format!("{direction} {} {limit}", target.subject));
        self.limits.insert(target.subject.clone(), limit);
        Ok(())
    }

    fn remove(&mut self, direction: &str, subject: &Subject) -> Result<(), BackendError> {
        if self.limits.get(subject) == Some(&2) {
            self.asked += 1;
            if self.asked < 3 {
                return Err(refusal(subject, "they have got used to it"));
            }
        }
        if self.limits.remove(subject).is_some() {
            self.journal.write(format!("{direction} {subject} none"));
        }
        Ok(())
    }

    fn stats(&self, subject: &Subject) -> ThrottleStats {
        let bytes = self.limits.get(subject).copied().unwrap_or_default();
        ThrottleStats { bytes_total: bytes * 3, bytes_dropped: bytes, ..ThrottleStats::default() }
    }
}

fn refusal(subject: &Subject, reason: &str) -> BackendError {
    BackendError::Unenforceable { backend: "fake", subject: subject.clone(), reason: reason.to_owned() }
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
        self.remove("upload", subject)
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
        self.remove("download", subject)
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
