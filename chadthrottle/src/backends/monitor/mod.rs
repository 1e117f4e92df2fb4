//! Watching.

#[cfg(feature = "monitor-ebpf")]
pub mod ebpf;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(feature = "monitor-pnet")]
pub mod pnet;
#[cfg(feature = "monitor-sock-diag")]
pub mod sock_diag;
#[cfg(any(feature = "monitor-pnet", feature = "monitor-sock-diag"))]
mod socket_owners;

use super::{Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority};
use crate::stats::Sample;

/// Counts what every process sends and receives.
pub trait MonitorBackend: Send {
    /// Name on the command line.
    fn name(&self) -> &'static str;
    /// How good it is.
    fn priority(&self) -> BackendPriority;
    /// Whether it can work here. Changes nothing in the system.
    fn probe(options: &BackendOptions) -> Availability
    where
        Self: Sized;
    /// Whether it can work here, for who does not need the reason.
    #[must_use]
    fn is_available(options: &BackendOptions) -> bool
    where
        Self: Sized,
    {
        Self::probe(options) == Availability::Available
    }
    /// What it covers.
    fn capabilities(&self) -> BackendCapabilities;
    /// Starts counting; called once, before the first update.
    ///
    /// # Errors
    /// When the host refuses.
    fn init(&mut self) -> Result<(), BackendError>;
    /// Reads the counters.
    ///
    /// # Errors
    /// When the host refuses.
    fn update(&mut self) -> Result<Sample, BackendError>;
    /// Stops counting.
    ///
    /// # Errors
    /// When something could not be taken back; everything else has been.
    fn cleanup(&mut self) -> Result<(), BackendError>;
}
