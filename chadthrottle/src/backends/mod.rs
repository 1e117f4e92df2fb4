//! What can watch and what can limit.
//!
//! Three traits (`MonitorBackend`, `UploadThrottleBackend`, `DownloadThrottleBackend`), one folder a mechanism,
//! and one [`registry`] with a row for each backend. Nothing outside this folder knows a backend by type.

pub mod demo;
#[cfg(feature = "ebpf")]
pub mod ebpf;
pub mod monitor;
pub mod registry;
pub mod supply;
pub mod throttle;

use std::{fmt, path::PathBuf};

use serde::Serialize;

use crate::{process::ProcessError, scope::Prefix};

/// How good a backend is at its work; the automatic choice takes the highest that is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendPriority {
    /// Works, with limits that users notice.
    Fallback = 1,
    /// Solid.
    Good = 2,
    /// Modern and efficient.
    Better = 3,
    /// Nothing known is better.
    Best = 4,
}

impl fmt::Display for BackendPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fallback => "fallback",
            Self::Good => "good",
            Self::Better => "better",
            Self::Best => "best",
        })
    }
}

/// What a backend covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "a list of independent answers, printed as such")]
pub struct BackendCapabilities {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
    /// TCP.
    pub tcp: bool,
    /// UDP, and with it QUIC.
    pub udp: bool,
    /// Connections that were open before it was asked.
    pub open_connections: bool,
    /// It moves the process to another cgroup.
    pub moves_process: bool,
    /// It delays packets instead of dropping them.
    pub shapes: bool,
}

impl BackendCapabilities {
    /// What backends say only their exceptions from: all traffic, that of open connections too, of processes that stay
    /// where they are; what is too much is dropped.
    pub const ALL_TRAFFIC: Self = Self {
        ipv4: true,
        ipv6: true,
        tcp: true,
        udp: true,
        open_connections: true,
        moves_process: false,
        shapes: false,
    };
}

/// How often programs in the kernel have run, and how long that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// How often: once a packet, or a super-packet.
    pub count: u64,
    /// How long, the measuring included.
    pub time: std::time::Duration,
}

/// What programs in the kernel have taken of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCost {
    /// Of those that leave.
    pub upload: Runs,
    /// Of those that arrive.
    pub download: Runs,
}

impl Runs {
    /// What has come since an earlier look.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self { count: self.count.saturating_sub(earlier.count), time: self.time.saturating_sub(earlier.time) }
    }

    /// Nanoseconds a run, where there were any.
    #[must_use]
    pub fn each(self) -> Option<u128> {
        self.time.as_nanos().checked_div(u128::from(self.count))
    }
}

impl PacketCost {
    /// What has come since an earlier look.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self { upload: self.upload.since(earlier.upload), download: self.download.since(earlier.download) }
    }
}

/// Whether a backend can work here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Available,
    /// It cannot.
    Unavailable(Obstacle),
}

/// Why a backend cannot work here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The process lacks a capability.
    #[error("the capability {capability} is missing; run it with sudo")]
    Privilege {
        /// Its name, as in capabilities(7).
        capability: &'static str,
    },
    /// The host lacks something.
    #[error("{cause}; {remedy}")]
    Host {
        /// What is missing.
        cause: String,
        /// What would make it work.
        remedy: String,
    },
}

/// What every backend is told.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// The cgroup that programs are attached to; the root of the cgroup v2 tree where it is not given.
    pub cgroup_root: Option<PathBuf>,
    /// Whether loopback traffic counts.
    pub include_loopback: bool,
    /// Whether an HTB queue that somebody gave an interface may be added to.
    pub use_existing_htb: bool,
    /// Names of the interfaces whose traffic counts, and is limited; all where there is none.
    pub interfaces: Vec<String>,
    /// Networks that are local beside those that always are, and those that this host is in.
    pub local_prefixes: Vec<Prefix>,
    /// Which messages of the programs in the kernel go to the log.
    pub kernel_messages: log::LevelFilter,
    /// By what backends that cannot tell themselves are to know whose a packet is.
    pub tagger: TaggerChoice,
}

impl Default for BackendOptions {
    fn default() -> Self {
        Self {
            cgroup_root: None,
            include_loopback: false,
            use_existing_htb: false,
            interfaces: Vec::new(),
            local_prefixes: Vec::new(),
            kernel_messages: log::LevelFilter::Off,
            tagger: TaggerChoice::Auto,
        }
    }
}

/// By what a backend that cannot tell itself is to know whose a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TaggerChoice {
    /// The first of these that works here
    #[default]
    Auto,
    /// Programs in the kernel give each packet its priority (eBPF)
    Ebpf,
    /// The priority of a process's sockets is set; for `ifb_tc` their mark, which their connections get
    Sockets,
    /// Processes are moved to cgroups of our own, and back in the end
    Cgroup,
}

/// A backend that could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// It cannot work here at all.
    #[error("{backend} cannot work here: {obstacle}")]
    Unavailable {
        /// Its name.
        backend: &'static str,
        /// Why.
        obstacle: Obstacle,
    },
    /// It cannot enforce the limit as asked.
    #[error("{backend} cannot limit {subject}: {reason}")]
    Unenforceable {
        /// Its name.
        backend: &'static str,
        /// Whom.
        subject: throttle::Subject,
        /// Why, and what would help.
        reason: String,
    },
    /// It may not do that to this process.
    #[error("{backend} cannot limit {subject}: {reason}")]
    Denied {
        /// Its name.
        backend: &'static str,
        /// Whom.
        subject: throttle::Subject,
        /// Why, and what would help.
        reason: String,
    },
    /// The process is not what was asked for (any more).
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The kernel refused a step.
    #[error("{backend}: cannot {step}: {cause:#}")]
    Kernel {
        /// Its name.
        backend: &'static str,
        /// What was tried.
        step: String,
        /// What came back.
        cause: anyhow::Error,
    },
    /// Several things, none of which kept the others from being done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

impl BackendError {
    /// All that went wrong of what has been done.
    ///
    /// # Errors
    /// When something did.
    pub fn all_of(results: impl IntoIterator<Item = Result<(), Self>>) -> Result<(), Self> {
        let mut errors: Vec<Self> = results.into_iter().filter_map(Result::err).collect();
        match errors.pop() {
            None => Ok(()),
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => {
                errors.push(last);
                Err(Self::Several(errors))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_failed_is_told() {
        let failed = |pid| Err(BackendError::Process(ProcessError::Absent(pid)));
        assert!(BackendError::all_of([Ok(()), Ok(())]).is_ok());
        let one = BackendError::all_of([Ok(()), failed(7)]).expect_err("one failed");
        assert!(matches!(one, BackendError::Process(_)), "{one}");
        let two = BackendError::all_of([failed(7), Ok(()), failed(8)]).expect_err("two failed").to_string();
        assert!(two.contains("no process 7") && two.contains("no process 8"), "{two}");
    }
}
