//! Backends that are made while the program runs, to take the place of others, and what those in the kernel cost.

use anyhow::Context;

use super::{
    PacketCost,
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

    /// What our programs in the kernel have taken since this was asked for first. From then on it is measured, which costs
    /// each program on this host some nanoseconds a run, until [`Supply::stop_measuring`]. None where there are no
    /// programs of ours.
    ///
    /// # Errors
    /// When the kernel does not measure, in words.
    fn packet_cost(&self) -> Result<Option<PacketCost>, String> {
        Ok(None)
    }

    /// Ends the measuring.
    fn stop_measuring(&self) {}
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

    #[cfg(feature = "ebpf")]
    fn packet_cost(&self) -> Result<Option<PacketCost>, String> {
        self.engine().packet_cost()
    }

    #[cfg(feature = "ebpf")]
    fn stop_measuring(&self) {
        self.engine().stop_measuring();
    }
}
