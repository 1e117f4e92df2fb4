//! Backends that are made while the program runs, to take the place of others.

use anyhow::Context;

use super::{
    monitor::MonitorBackend,
    registry::Backends,
    throttle::{DownloadThrottleBackend, UploadThrottleBackend},
};

/// Makes backends while the program runs.
pub trait Supply: Send {
    /// The monitor with this name.
    ///
    /// # Errors
    /// When it cannot work here.
    fn monitor(&self, name: &str) -> anyhow::Result<Box<dyn MonitorBackend>>;
    /// The upload limiter with this name.
    ///
    /// # Errors
    /// When it cannot work here.
    fn upload(&self, name: &str) -> anyhow::Result<Box<dyn UploadThrottleBackend>>;
    /// The download limiter with this name.
    ///
    /// # Errors
    /// When it cannot work here.
    fn download(&self, name: &str) -> anyhow::Result<Box<dyn DownloadThrottleBackend>>;
}

impl Supply for Backends {
    fn monitor(&self, name: &str) -> anyhow::Result<Box<dyn MonitorBackend>> {
        Ok(self.select_monitor_backend(Some(name))?)
    }

    fn upload(&self, name: &str) -> anyhow::Result<Box<dyn UploadThrottleBackend>> {
        Ok(self.select_upload_backend(Some(name))?)
    }

    fn download(&self, name: &str) -> anyhow::Result<Box<dyn DownloadThrottleBackend>> {
        self.select_download_backend(Some(name))?.context("none is no backend to change to")
    }
}
