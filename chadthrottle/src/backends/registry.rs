//! Every backend there is, and which of them is used.

mod rows;

use std::cmp::Reverse;

use serde::Serialize;

use self::rows::{DOWNLOADS, MONITORS, Row, UPLOADS};
use super::{
    Availability, BackendCapabilities, BackendOptions, BackendPriority, Obstacle,
    monitor::MonitorBackend,
    throttle::{DownloadThrottleBackend, UploadThrottleBackend},
};
use crate::sys::capability::{self, Capability, NET_ADMIN};

/// What backends are made from: the options, and what they share with each other.
#[derive(Clone)]
pub struct Backends {
    options: BackendOptions,
    #[cfg(feature = "ebpf")]
    engine: super::ebpf::SharedEngine,
    #[cfg(feature = "throttle-sockopt")]
    flow: super::throttle::flow::SharedFlow,
    /// In front of the programs, which tell it what they see.
    #[cfg(any(feature = "throttle-ebpf-cgroup", feature = "throttle-tc-police"))]
    guarded_flow: super::throttle::flow::SharedFlow,
    /// In front of queues.
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc"))]
    flow_before_queues: super::throttle::flow::SharedFlow,
    /// In front of a table, which tells it nothing.
    #[cfg(feature = "throttle-nftables")]
    flow_before_table: super::throttle::flow::SharedFlow,
}

impl Default for Backends {
    fn default() -> Self {
        Self::new(BackendOptions::default())
    }
}

/// What is to be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who watches.
    Monitor,
    /// Who limits what is sent.
    Upload,
    /// Who limits what is received.
    Download,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Monitor => "monitor",
            Self::Upload => "upload",
            Self::Download => "download",
        })
    }
}

/// Why no backend was chosen.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// There is none of that name.
    #[error("there is no {kind} backend {name:?}; there are: {}", known.join(", "))]
    Unknown {
        /// What was looked for.
        kind: Kind,
        /// What was typed.
        name: String,
        /// What could have been.
        known: Vec<&'static str>,
    },
    /// The one that was asked for cannot work here.
    #[error("the {kind} backend {name} cannot work here: {obstacle}")]
    Unavailable {
        /// What was looked for.
        kind: Kind,
        /// Which.
        name: &'static str,
        /// Why.
        obstacle: Obstacle,
    },
    /// None can work here.
    #[error("no {kind} backend can work here: {obstacle}")]
    NoneAvailable {
        /// What was looked for.
        kind: Kind,
        /// Why the best one cannot.
        obstacle: Obstacle,
    },
    /// The program was built without any.
    #[error("this program was built without any {kind} backend; build it with default features")]
    NoneBuilt {
        /// What was looked for.
        kind: Kind,
    },
}

/// One backend as `--list-backends` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Name on the command line.
    pub name: &'static str,
    /// How good it is.
    pub priority: BackendPriority,
    /// Whether it can work here.
    pub available: bool,
    /// Whether it is the one that would be used.
    pub selected: bool,
    /// Why it cannot work here.
    pub reason: Option<String>,
    /// How it knows whose a packet is, where that is not its own doing.
    pub tagger: Option<&'static str>,
    /// What it covers.
    pub capabilities: BackendCapabilities,
}

/// Every backend as `--list-backends` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// Monitors.
    pub monitor: Vec<Listed>,
    /// Upload limiters.
    pub upload: Vec<Listed>,
    /// Download limiters.
    pub download: Vec<Listed>,
}

/// Which backends were asked for by name; `None` is the best that works.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Monitor.
    pub monitor: Option<String>,
    /// Upload limiter.
    pub upload: Option<String>,
    /// Download limiter; [`NO_BACKEND`] for none.
    pub download: Option<String>,
}

/// The name that stands for doing without, where that is possible.
pub const NO_BACKEND: &str = "none";

impl Backends {
    /// Backends with these options.
    #[must_use]
    pub fn new(options: BackendOptions) -> Self {
        #[cfg(feature = "ebpf")]
        let engine = super::ebpf::SharedEngine::default();
        Self {
            options,
            #[cfg(feature = "throttle-sockopt")]
            flow: super::throttle::flow::SharedFlow::default(),
            #[cfg(any(feature = "throttle-ebpf-cgroup", feature = "throttle-tc-police"))]
            guarded_flow: super::throttle::flow::SharedFlow::in_front(super::throttle::programs::behind(
                &engine,
            )),
            #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc"))]
            flow_before_queues: super::throttle::flow::SharedFlow::before_queues(),
            #[cfg(feature = "throttle-nftables")]
            flow_before_table: super::throttle::flow::SharedFlow::in_front(std::sync::Arc::new(|_, _| None)),
            #[cfg(feature = "ebpf")]
            engine,
        }
    }

    /// The options that backends are made with.
    #[must_use]
    pub const fn options(&self) -> &BackendOptions {
        &self.options
    }

    /// The programs in the kernel, where they are loaded.
    #[cfg(feature = "ebpf")]
    pub(super) const fn engine(&self) -> &super::ebpf::SharedEngine {
        &self.engine
    }

    /// The monitor with this name, or the best that works here.
    ///
    /// # Errors
    /// When there is none of that name, or none works here, with the reason.
    pub fn select_monitor_backend(&self, name: Option<&str>) -> Result<Box<dyn MonitorBackend>, SelectError> {
        self.select(MONITORS, Kind::Monitor, name)
    }

    /// The upload limiter with this name, or the best that works here.
    ///
    /// # Errors
    /// When there is none of that name, or none works here, with the reason.
    pub fn select_upload_backend(
        &self,
        name: Option<&str>,
    ) -> Result<Box<dyn UploadThrottleBackend>, SelectError> {
        self.select(UPLOADS, Kind::Upload, name)
    }

    /// The download limiter with this name, or the best that works here. None, where the name is `none` or no name
    /// was given and none works: uploads can be limited all the same.
    ///
    /// # Errors
    /// When there is none of that name, or it does not work here, with the reason.
    pub fn select_download_backend(
        &self,
        name: Option<&str>,
    ) -> Result<Option<Box<dyn DownloadThrottleBackend>>, SelectError> {
        if name == Some(NO_BACKEND) {
            return Ok(None);
        }
        match self.select(DOWNLOADS, Kind::Download, name) {
            Ok(backend) => Ok(Some(backend)),
            Err(SelectError::NoneAvailable { .. } | SelectError::NoneBuilt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn select<B: ?Sized>(
        &self,
        rows: &[Row<B>],
        kind: Kind,
        name: Option<&str>,
    ) -> Result<Box<B>, SelectError> {
        let row = choose(rows, kind, name, |row| self.probe(row, kind, name))?;
        log::info!("{kind} backend: {}", row.name);
        Ok((row.create)(self))
    }

    /// Whether a backend is to be chosen. One that limits a part of the traffic is chosen by itself only where nothing
    /// else can be: with privilege a limit that does not hold everything is refused.
    fn probe<B: ?Sized>(&self, row: &Row<B>, kind: Kind, name: Option<&str>) -> Availability {
        let is_partial = kind != Kind::Monitor && !row.capabilities.udp;
        if is_partial && name.is_none() && capability::first_missing(&[NET_ADMIN]).is_none() {
            return Availability::Unavailable(Obstacle::Host {
                cause: "it limits TCP alone".into(),
                remedy: "with privilege it is used only by name".into(),
            });
        }
        (row.probe)(&self.options)
    }

    /// Every backend, whether it works here, and which would be used. Changes nothing in the system.
    ///
    /// # Errors
    /// When a name in `wanted` does not exist.
    pub fn list(&self, wanted: &Wanted) -> Result<Listing, SelectError> {
        Ok(Listing {
            monitor: self.list_kind(MONITORS, Kind::Monitor, wanted.monitor.as_deref())?,
            upload: self.list_kind(UPLOADS, Kind::Upload, wanted.upload.as_deref())?,
            download: self.list_kind(DOWNLOADS, Kind::Download, wanted.download.as_deref())?,
        })
    }

    fn list_kind<B: ?Sized>(
        &self,
        rows: &[Row<B>],
        kind: Kind,
        name: Option<&str>,
    ) -> Result<Vec<Listed>, SelectError> {
        let selected = match choose(rows, kind, name, |row| self.probe(row, kind, name)) {
            Ok(row) => Some(row.name),
            Err(SelectError::Unknown { .. }) if kind == Kind::Download && name == Some(NO_BACKEND) => None,
            Err(error @ SelectError::Unknown { .. }) => return Err(error),
            Err(_) => None,
        };
        Ok(by_priority(rows)
            .into_iter()
            .map(|row| {
                let reason = match (row.probe)(&self.options) {
                    Availability::Available => None,
                    Availability::Unavailable(obstacle) => Some(obstacle.to_string()),
                };
                Listed {
                    name: row.name,
                    priority: row.priority,
                    available: reason.is_none(),
                    selected: selected == Some(row.name),
                    reason,
                    tagger: (row.tagger)(&self.options),
                    capabilities: covered(row, &self.options),
                }
            })
            .collect())
    }
}

/// What a backend covers, which depends on how it knows whose a packet is.
fn covered<B: ?Sized>(row: &Row<B>, options: &BackendOptions) -> BackendCapabilities {
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
    if let Some(tagger) = (row.tagger)(options) {
        return super::throttle::tagger::capabilities(row.capabilities, tagger);
    }
    let _ = options;
    row.capabilities
}

/// A backend's name as this program has it; `daemon` for one that it does not know.
pub(crate) fn known_name(name: &str) -> &'static str {
    let names = MONITORS.iter().map(|row| row.name);
    let mut names =
        names.chain(UPLOADS.iter().map(|row| row.name)).chain(DOWNLOADS.iter().map(|row| row.name));
    names.find(|known| *known == name).unwrap_or("daemon")
}

/// What the backend of this name covers; everything, where this program does not know it.
pub(crate) fn capabilities_of(name: &str) -> BackendCapabilities {
    let monitors = MONITORS.iter().map(|row| (row.name, row.capabilities));
    let uploads = UPLOADS.iter().map(|row| (row.name, row.capabilities));
    let downloads = DOWNLOADS.iter().map(|row| (row.name, row.capabilities));
    let mut all = monitors.chain(uploads).chain(downloads);
    all.find(|(known, _)| *known == name)
        .map_or(BackendCapabilities::ALL_TRAFFIC, |(_, capabilities)| capabilities)
}

/// What the backends of these names use of what a process may be allowed to do; of all that there are, where no name is
/// given.
#[must_use]
pub fn used_capabilities(names: &[&str]) -> Vec<Capability> {
    let monitors = MONITORS.iter().map(|row| (row.name, row.uses));
    let uploads = UPLOADS.iter().map(|row| (row.name, row.uses));
    let downloads = DOWNLOADS.iter().map(|row| (row.name, row.uses));
    let all = monitors.chain(uploads).chain(downloads);
    let mut used = Vec::new();
    for capability in
        all.filter(|(name, _)| names.is_empty() || names.contains(name)).flat_map(|(_, uses)| uses)
    {
        if !used.contains(capability) {
            used.push(*capability);
        }
    }
    used
}

/// Best first; rows of one priority in the order of the table.
fn by_priority<B: ?Sized>(rows: &[Row<B>]) -> Vec<&Row<B>> {
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|row| Reverse(row.priority));
    sorted
}

/// The row with this name, or the best one that is available.
fn choose<'a, B: ?Sized>(
    rows: &'a [Row<B>],
    kind: Kind,
    name: Option<&str>,
    probe: impl Fn(&Row<B>) -> Availability,
) -> Result<&'a Row<B>, SelectError> {
    let sorted = by_priority(rows);
    if let Some(name) = name {
        let Some(row) = sorted.iter().find(|row| row.name == name) else {
            let mut known = vec!["auto"];
            if kind == Kind::Download {
                known.push(NO_BACKEND);
            }
            known.extend(sorted.iter().map(|row| row.name));
            return Err(SelectError::Unknown { kind, name: name.to_owned(), known });
        };
        return match probe(row) {
            Availability::Available => Ok(row),
            Availability::Unavailable(obstacle) => {
                Err(SelectError::Unavailable { kind, name: row.name, obstacle })
            }
        };
    }
    let mut first_obstacle = None;
    for row in sorted {
        match probe(row) {
            Availability::Available => return Ok(row),
            Availability::Unavailable(obstacle) => {
                first_obstacle.get_or_insert(obstacle);
            }
        }
    }
    Err(match first_obstacle {
        Some(obstacle) => SelectError::NoneAvailable { kind, obstacle },
        None => SelectError::NoneBuilt { kind },
    })
}

#[cfg(test)]
mod tests;
