//! Limiting.

#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
mod carrying;
#[cfg(feature = "throttle-ebpf-cgroup")]
pub mod ebpf_cgroup;
#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
mod entrances;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
pub mod filters;
#[cfg(feature = "limits")]
pub mod flow;
#[cfg(feature = "limits")]
pub mod guard;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc"))]
mod htb;
#[cfg(feature = "throttle-ifb-tc")]
pub mod ifb_tc;
#[cfg(feature = "throttle-tc-htb")]
pub mod journal;
pub mod manager;
#[cfg(feature = "throttle-nftables")]
pub mod nftables;
#[cfg(any(
    feature = "throttle-tc-htb",
    feature = "throttle-nftables",
    feature = "throttle-ifb-tc",
    feature = "throttle-tc-police"
))]
pub mod notes;
pub mod processes;
#[cfg(any(
    feature = "throttle-ebpf-cgroup",
    all(feature = "throttle-ifb-tc", feature = "ebpf"),
    feature = "throttle-tc-police"
))]
pub mod programs;
#[cfg(feature = "throttle-sockopt")]
pub mod sockopt;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables", feature = "throttle-ifb-tc"))]
pub mod tagger;
mod target;
#[cfg(feature = "throttle-tc-htb")]
pub mod tc_htb;
#[cfg(feature = "throttle-tc-police")]
pub mod tc_police;

pub use manager::ThrottleManager;
pub use target::{Subject, Target, TrafficType};

use chadthrottle_common::ThrottleStats;

use super::{Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority};

/// Why this user may not make what outlives a SIGKILL: it has to be written down first, where nobody but root may.
#[cfg(any(
    feature = "throttle-tc-htb",
    feature = "throttle-nftables",
    feature = "throttle-ifb-tc",
    feature = "throttle-tc-police"
))]
fn only_for_root(what: &str, instead: &str) -> Option<super::Obstacle> {
    (!nix::unistd::geteuid().is_root()).then(|| super::Obstacle::Host {
        cause: format!(
            "{what} outlives a kill and is noted in /run/chadthrottle before, where root alone may write"
        ),
        remedy: format!(
            "run it as root (sudo), or choose {instead}, whose capabilities are enough for any user"
        ),
    })
}

/// Holds what processes send to a limit.
pub trait UploadThrottleBackend: Send {
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
    /// Makes ready; called once, before any limit.
    ///
    /// # Errors
    /// When the host refuses.
    fn init(&mut self) -> Result<(), BackendError>;
    /// Sets or changes a limit, in IP bytes a second; 0 blocks.
    ///
    /// # Errors
    /// When the limit cannot be enforced as asked; then nothing has changed.
    fn throttle_upload(&mut self, target: &Target, limit: u64) -> Result<(), BackendError>;
    /// Takes a limit away. No limit is no error.
    ///
    /// # Errors
    /// When the host refuses.
    fn remove_upload_throttle(&mut self, subject: &Subject) -> Result<(), BackendError>;
    /// The limit in force, in IP bytes a second.
    fn get_upload_throttle(&self, subject: &Subject) -> Option<u64>;
    /// What the limit did so far, counted where it is enforced.
    ///
    /// # Errors
    /// When the host refuses.
    fn upload_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError>;
    /// IP bytes that a subject has written and that wait for its limit, in its own sockets and in queues; not those that
    /// were dropped. `None` where nothing waits but what is not seen here.
    fn held_back(&self, _subject: &Subject) -> Option<u64> {
        None
    }
    /// Looks after limits in force, such as forgetting processes that have ended; called every
    /// [`manager::MAINTENANCE_INTERVAL`].
    ///
    /// # Errors
    /// When the host refuses.
    fn maintain(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
    /// Takes everything back.
    ///
    /// # Errors
    /// When something could not be taken back; everything else has been.
    fn cleanup(&mut self) -> Result<(), BackendError>;
}

/// Holds what processes receive to a limit.
pub trait DownloadThrottleBackend: Send {
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
    /// Makes ready; called once, before any limit.
    ///
    /// # Errors
    /// When the host refuses.
    fn init(&mut self) -> Result<(), BackendError>;
    /// Sets or changes a limit, in IP bytes a second; 0 blocks.
    ///
    /// # Errors
    /// When the limit cannot be enforced as asked; then nothing has changed.
    fn throttle_download(&mut self, target: &Target, limit: u64) -> Result<(), BackendError>;
    /// Takes a limit away. No limit is no error.
    ///
    /// # Errors
    /// When the host refuses.
    fn remove_download_throttle(&mut self, subject: &Subject) -> Result<(), BackendError>;
    /// The limit in force, in IP bytes a second.
    fn get_download_throttle(&self, subject: &Subject) -> Option<u64>;
    /// What the limit did so far, counted where it is enforced.
    ///
    /// # Errors
    /// When the host refuses.
    fn download_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError>;
    /// Looks after limits in force, such as forgetting processes that have ended; called every
    /// [`manager::MAINTENANCE_INTERVAL`].
    ///
    /// # Errors
    /// When the host refuses.
    fn maintain(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
    /// Takes everything back.
    ///
    /// # Errors
    /// When something could not be taken back; everything else has been.
    fn cleanup(&mut self) -> Result<(), BackendError>;
}
