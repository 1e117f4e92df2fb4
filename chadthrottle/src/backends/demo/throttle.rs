//! Limits on the simulated host.

use chadthrottle_common::ThrottleStats;

use super::{CAPABILITIES, Demo, NAME, world::Way};
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority,
        throttle::{DownloadThrottleBackend, Target, UploadThrottleBackend},
    },
    process::{ProcessError, ProcessId},
};

/// Holds one direction.
pub(super) struct DemoThrottle {
    pub(super) demo: Demo,
    pub(super) way: Way,
}

impl DemoThrottle {
    fn hold(&self, target: &Target, limit: u64) -> Result<(), BackendError> {
        let mut world = self.demo.world();
        if !world.is_there(target.id) {
            return Err(ProcessError::Absent(target.id.pid).into());
        }
        world.hold(target.id, self.way, Some(limit));
        Ok(())
    }

    fn free(&self, process: ProcessId) {
        self.demo.world().hold(process, self.way, None);
    }

    fn limit(&self, process: ProcessId) -> Option<u64> {
        self.demo.world().limit(process, self.way)
    }

    fn stats(&self, process: ProcessId) -> ThrottleStats {
        self.demo.world().held(process, self.way)
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

    fn remove_upload_throttle(&mut self, process: ProcessId) -> Result<(), BackendError> {
        self.free(process);
        Ok(())
    }

    fn get_upload_throttle(&self, process: ProcessId) -> Option<u64> {
        self.limit(process)
    }

    fn upload_stats(&self, process: ProcessId) -> Result<ThrottleStats, BackendError> {
        Ok(self.stats(process))
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

    fn remove_download_throttle(&mut self, process: ProcessId) -> Result<(), BackendError> {
        self.free(process);
        Ok(())
    }

    fn get_download_throttle(&self, process: ProcessId) -> Option<u64> {
        self.limit(process)
    }

    fn download_stats(&self, process: ProcessId) -> Result<ThrottleStats, BackendError> {
        Ok(self.stats(process))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
