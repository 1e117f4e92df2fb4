//! Limits on the simulated host.

use chadthrottle_common::ThrottleStats;

use super::{CAPABILITIES, Demo, NAME, world::Way};
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority,
        throttle::{DownloadThrottleBackend, Subject, Target, UploadThrottleBackend},
    },
    process::ProcessError,
};

/// Holds one direction.
pub(super) struct DemoThrottle {
    pub(super) demo: Demo,
    pub(super) way: Way,
}

impl DemoThrottle {
    fn hold(&self, target: &Target, limit: u64) -> Result<(), BackendError> {
        let mut world = self.demo.world();
        if let Some(process) = target.subject.process()
            && !world.is_there(process)
        {
            return Err(ProcessError::Absent(process.pid).into());
        }
        world.hold(target, self.way, limit);
        Ok(())
    }

    fn free(&self, subject: &Subject) {
        self.demo.world().free(subject, self.way);
    }

    fn limit(&self, subject: &Subject) -> Option<u64> {
        self.demo.world().limit(subject, self.way)
    }

    fn stats(&self, subject: &Subject) -> ThrottleStats {
        self.demo.world().held(subject, self.way)
    }
}

impl UploadThrottleBackend for DemoThrottle {
    fn name(&self) -> &'static str {
        NAME
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
        self.hold(target, limit)
    }

    fn remove_upload_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.free(subject);
        Ok(())
    }

    fn get_upload_throttle(&self, subject: &Subject) -> Option<u64> {
        self.limit(subject)
    }

    fn held_back(&self, subject: &Subject) -> Option<u64> {
        self.demo.world().held_back(subject)
    }

    fn upload_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        Ok(self.stats(subject))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

impl DownloadThrottleBackend for DemoThrottle {
    fn name(&self) -> &'static str {
        NAME
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
        self.hold(target, limit)
    }

    fn remove_download_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.free(subject);
        Ok(())
    }

    fn get_download_throttle(&self, subject: &Subject) -> Option<u64> {
        self.limit(subject)
    }

    fn download_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        Ok(self.stats(subject))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
