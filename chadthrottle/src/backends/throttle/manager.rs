//! One place that knows every limit in force.

use std::{collections::BTreeMap, time::Duration};

use chadthrottle_common::ThrottleStats;

use super::{DownloadThrottleBackend, Target, UploadThrottleBackend};
use crate::{
    backends::{BackendError, Obstacle},
    process::ProcessId,
    sys::capability::{self, NET_ADMIN},
};

/// How often limits want looking after.
pub const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(30);

/// Limits for one process, in IP bytes a second. `None` is no limit, 0 blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For what it sends.
    pub upload: Option<u64>,
    /// For what it receives.
    pub download: Option<u64>,
}

impl Limits {
    /// No limit at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.upload.is_none() && self.download.is_none()
    }
}

/// A limited process and what became of its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedProcess {
    /// Whom.
    pub target: Target,
    /// The limits in force.
    pub limits: Limits,
    /// What the upload limit did.
    pub upload_stats: ThrottleStats,
    /// What the download limit did.
    pub download_stats: ThrottleStats,
    /// Whether the process still runs.
    pub alive: bool,
}

/// Drives one upload backend and, where there is one, one download backend.
pub struct ThrottleManager {
    upload: Box<dyn UploadThrottleBackend>,
    download: Option<Box<dyn DownloadThrottleBackend>>,
    targets: BTreeMap<ProcessId, Target>,
}

impl ThrottleManager {
    /// Makes the backends ready.
    ///
    /// # Errors
    /// When one of them refuses.
    pub fn new(
        mut upload: Box<dyn UploadThrottleBackend>,
        mut download: Option<Box<dyn DownloadThrottleBackend>>,
    ) -> Result<Self, BackendError> {
        upload.init()?;
        if let Some(download) = &mut download {
            download.init()?;
        }
        Ok(Self { upload, download, targets: BTreeMap::new() })
    }

    /// Name of the upload backend.
    #[must_use]
    pub fn upload_backend(&self) -> &'static str {
        self.upload.name()
    }

    /// Name of the download backend, where there is one.
    #[must_use]
    pub fn download_backend(&self) -> Option<&'static str> {
        self.download.as_ref().map(|download| download.name())
    }

    /// What these limits do not cover, in a sentence: silence must not be taken for a limit.
    #[must_use]
    pub fn not_covered(&self, limits: Limits) -> Option<String> {
        let upload = limits.upload.map(|_| (self.upload.name(), self.upload.capabilities()));
        let download = self.download.as_ref().filter(|_| limits.download.is_some());
        let download = download.map(|backend| (backend.name(), backend.capabilities()));
        let (name, _) = [upload, download].into_iter().flatten().find(|(_, covers)| !covers.udp)?;
        let remedy = if capability::first_missing(&[NET_ADMIN]).is_some() {
            "sudo limits that too"
        } else {
            "--list-backends tells which backends limit that too"
        };
        Some(format!("{name} limits TCP alone, no UDP (QUIC, DNS); {remedy}"))
    }

    /// Sets the limits of a process to just these: what is `None` is taken away.
    ///
    /// # Errors
    /// When one of them cannot be enforced as asked. Then both directions are as they were before.
    pub fn throttle_process(&mut self, target: &Target, limits: Limits) -> Result<(), BackendError> {
        let before = self.limits(target.id);
        if let Err(error) = self.apply(target, limits) {
            if let Err(undo) = self.apply(target, before) {
                log::error!("could not restore the limits of {} ({}): {undo}", target.name, target.id);
            }
            return Err(error);
        }
        if limits.is_empty() {
            self.targets.remove(&target.id);
        } else {
            self.targets.insert(target.id, target.clone());
        }
        Ok(())
    }

    fn apply(&mut self, target: &Target, limits: Limits) -> Result<(), BackendError> {
        match limits.upload {
            Some(limit) => self.upload.throttle_upload(target, limit)?,
            None => self.upload.remove_upload_throttle(target.id)?,
        }
        match (&mut self.download, limits.download) {
            (Some(download), Some(limit)) => download.throttle_download(target, limit),
            (Some(download), None) => download.remove_download_throttle(target.id),
            (None, None) => Ok(()),
            (None, Some(_)) => Err(BackendError::Unavailable {
                backend: "none",
                obstacle: Obstacle::Host {
                    cause: "no download backend is in use".into(),
                    remedy: "choose one with --download-backend; --list-backends tells which work here"
                        .into(),
                },
            }),
        }
    }

    /// Takes all limits of a process away. None is no error.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn remove_throttle(&mut self, process: ProcessId) -> Result<(), BackendError> {
        let upload = self.upload.remove_upload_throttle(process);
        let download = match &mut self.download {
            Some(download) => download.remove_download_throttle(process),
            None => Ok(()),
        };
        self.targets.remove(&process);
        upload.and(download)
    }

    /// The limits of a process.
    #[must_use]
    pub fn limits(&self, process: ProcessId) -> Limits {
        Limits {
            upload: self.upload.get_upload_throttle(process),
            download: self.download.as_ref().and_then(|download| download.get_download_throttle(process)),
        }
    }

    /// Every limited process, and what became of its traffic.
    ///
    /// # Errors
    /// When the host refuses to tell.
    pub fn limited(&self) -> Result<Vec<LimitedProcess>, BackendError> {
        self.targets
            .values()
            .map(|target| {
                Ok(LimitedProcess {
                    target: target.clone(),
                    limits: self.limits(target.id),
                    upload_stats: self.upload.upload_stats(target.id)?,
                    download_stats: match &self.download {
                        Some(download) => download.download_stats(target.id)?,
                        None => ThrottleStats::default(),
                    },
                    alive: target.id.is_alive(),
                })
            })
            .collect()
    }

    /// Lets the backends look after their limits. To be called every [`MAINTENANCE_INTERVAL`].
    ///
    /// # Errors
    /// When the host refuses.
    pub fn maintain(&mut self) -> Result<(), BackendError> {
        let upload = self.upload.maintain();
        let download = self.download.as_mut().map_or(Ok(()), |download| download.maintain());
        upload.and(download)
    }

    /// Takes every limit away.
    ///
    /// # Errors
    /// The first thing that could not be taken back; everything else has been.
    pub fn cleanup(&mut self) -> Result<(), BackendError> {
        let upload = self.upload.cleanup();
        let download = self.download.as_mut().map_or(Ok(()), |download| download.cleanup());
        self.targets.clear();
        upload.and(download)
    }
}
