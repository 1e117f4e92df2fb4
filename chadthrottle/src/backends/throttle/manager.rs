//! One place that knows every limit in force.

use std::{collections::BTreeMap, time::Duration};

use chadthrottle_common::ThrottleStats;

use super::{DownloadThrottleBackend, Subject, Target, UploadThrottleBackend};
use crate::{
    backends::{BackendError, Obstacle},
    instances::{Announcement, Turn, held, rival},
    sys::capability::{self, NET_ADMIN},
};

/// How often limits want looking after.
pub const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(30);

/// Limits for one subject, in IP bytes a second. `None` is no limit, 0 blocks.
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

/// A limited subject and what became of its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedTarget {
    /// Whom.
    pub target: Target,
    /// The limits in force.
    pub limits: Limits,
    /// What the upload limit did.
    pub upload_stats: ThrottleStats,
    /// What the download limit did.
    pub download_stats: ThrottleStats,
    /// Bytes that wait for the upload limit, where that is known. What waits for a download limit is with the peers.
    pub held_back: Option<u64>,
    /// Whether it can still apply to anybody: a process that has ended does not come back.
    pub alive: bool,
}

/// Drives one upload backend and, where there is one, one download backend.
pub struct ThrottleManager {
    upload: Box<dyn UploadThrottleBackend>,
    download: Option<Box<dyn DownloadThrottleBackend>>,
    targets: BTreeMap<Subject, Target>,
    /// Where others learn of these limits.
    announcement: Option<Announcement>,
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
        Ok(Self { upload, download, targets: BTreeMap::new(), announcement: None })
    }

    /// With its limits announced to other instances, which show them and keep away from them.
    #[must_use]
    pub fn announced(self) -> Self {
        Self { announcement: Announcement::new(), ..self }
    }

    /// Tells others which limits are in force.
    fn announce(&mut self) {
        if self.announcement.is_none() {
            return;
        }
        let names = (self.upload.name(), self.download_backend());
        let all = self.targets.values().flat_map(|target| held(target, self.limits(&target.subject), names));
        let all = all.collect();
        if let Some(announcement) = &mut self.announcement {
            announcement.set(all);
        }
    }

    /// Waits until no other instance sets a limit, and refuses to set these where one of theirs is in the way.
    fn turn(&self, target: &Target, limits: Limits) -> Result<Option<Turn>, BackendError> {
        let Some(announcement) = self.announcement.as_ref().filter(|_| !limits.is_empty()) else {
            return Ok(None);
        };
        let turn = announcement.turn();
        let names = (self.upload.name(), self.download_backend());
        match rival(&held(target, limits, names)) {
            None => Ok(Some(turn)),
            Some(reason) => {
                let (backend, subject) = (self.upload.name(), target.subject.clone());
                Err(BackendError::Unenforceable { backend, subject, reason })
            }
        }
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

    /// Sets the limits of a subject to just these: what is `None` is taken away.
    ///
    /// # Errors
    /// When one of them cannot be enforced as asked. Then both directions are as they were before.
    pub fn throttle_process(&mut self, target: &Target, limits: Limits) -> Result<(), BackendError> {
        let _turn = self.turn(target, limits)?;
        let before = self.limits(&target.subject);
        if let Err(error) = self.apply(target, limits) {
            let old = self.targets.get(&target.subject).unwrap_or(target).clone();
            if let Err(undo) = self.apply(&old, before) {
                log::error!("could not restore the limits of {target}: {undo}");
                // Listed is what is in force.
                if self.limits(&old.subject).is_empty() {
                    self.targets.remove(&old.subject);
                } else {
                    self.targets.insert(old.subject.clone(), old);
                }
                self.announce();
            }
            return Err(error);
        }
        if limits.is_empty() {
            self.targets.remove(&target.subject);
        } else {
            self.targets.insert(target.subject.clone(), target.clone());
        }
        self.announce();
        Ok(())
    }

    /// Makes the limits of a subject these, and touches only the direction in which they are others than before: what was
    /// saved up or is owed there stays.
    ///
    /// # Errors
    /// As of [`throttle_process`](Self::throttle_process).
    pub fn change(&mut self, target: &Target, limits: Limits) -> Result<(), BackendError> {
        let before = self.limits(&target.subject);
        let same_traffic = self.targets.get(&target.subject).is_some_and(|old| old.traffic == target.traffic);
        let are_there = |limits: Limits| (limits.upload.is_some(), limits.download.is_some());
        if !same_traffic || are_there(before) != are_there(limits) {
            return self.throttle_process(target, limits);
        }
        if let Some(limit) = limits.upload.filter(|_| limits.upload != before.upload) {
            self.upload.throttle_upload(target, limit)?;
        }
        let download = self.download.as_mut().zip(limits.download);
        if let Some((download, limit)) = download.filter(|_| limits.download != before.download)
            && let Err(error) = download.throttle_download(target, limit)
        {
            if let Some(Err(undo)) = before.upload.map(|limit| self.upload.throttle_upload(target, limit)) {
                log::error!("could not restore the limits of {target}: {undo}");
            }
            return Err(error);
        }
        self.announce();
        Ok(())
    }

    fn apply(&mut self, target: &Target, limits: Limits) -> Result<(), BackendError> {
        match limits.upload {
            Some(limit) => self.upload.throttle_upload(target, limit)?,
            None => self.upload.remove_upload_throttle(&target.subject)?,
        }
        match (&mut self.download, limits.download) {
            (Some(download), Some(limit)) => download.throttle_download(target, limit),
            (Some(download), None) => download.remove_download_throttle(&target.subject),
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

    /// Takes all limits of a subject away. None is no error.
    ///
    /// # Errors
    /// When the host refuses. What is in force then is known further on, and can be taken away again.
    pub fn remove_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        let upload = self.upload.remove_upload_throttle(subject);
        let download = match &mut self.download {
            Some(download) => download.remove_download_throttle(subject),
            None => Ok(()),
        };
        if self.limits(subject).is_empty() {
            self.targets.remove(subject);
        }
        self.announce();
        BackendError::all_of([upload, download])
    }

    /// Whom it is for, as it was set, what limits there are for a subject.
    #[must_use]
    pub fn target(&self, subject: &Subject) -> Option<&Target> {
        self.targets.get(subject)
    }

    /// The limits of a subject.
    #[must_use]
    pub fn limits(&self, subject: &Subject) -> Limits {
        Limits {
            upload: self.upload.get_upload_throttle(subject),
            download: self.download.as_ref().and_then(|download| download.get_download_throttle(subject)),
        }
    }

    /// Every limited subject, and what became of its traffic.
    ///
    /// # Errors
    /// When the host refuses to tell.
    pub fn limited(&self) -> Result<Vec<LimitedTarget>, BackendError> {
        self.targets.values().map(|target| self.figures(target)).collect()
    }

    /// The same of one subject; `None` where it is not limited.
    ///
    /// # Errors
    /// Likewise.
    pub fn limited_one(&self, subject: &Subject) -> Result<Option<LimitedTarget>, BackendError> {
        self.targets.get(subject).map(|target| self.figures(target)).transpose()
    }

    fn figures(&self, target: &Target) -> Result<LimitedTarget, BackendError> {
        let subject = &target.subject;
        Ok(LimitedTarget {
            target: target.clone(),
            limits: self.limits(subject),
            upload_stats: self.upload.upload_stats(subject)?,
            download_stats: match &self.download {
                Some(download) => download.download_stats(subject)?,
                None => ThrottleStats::default(),
            },
            held_back: self.upload.get_upload_throttle(subject).and_then(|_| self.upload.held_back(subject)),
            alive: subject.is_alive(),
        })
    }

    /// Shows these targets and no others: its backends are those of a daemon, which others ask, too.
    pub(crate) fn show(&mut self, targets: Vec<Target>) {
        self.targets = targets.into_iter().map(|target| (target.subject.clone(), target)).collect();
    }

    /// Lets another backend hold uploads from now on, with the limits in force.
    ///
    /// # Errors
    /// When it cannot hold one of them: then the one before still holds all. Or when that one could not take
    /// something back.
    pub fn use_upload(&mut self, mut new: Box<dyn UploadThrottleBackend>) -> Result<(), BackendError> {
        new.init()?;
        // Never both at once: each would take what the other does to a socket for the program's own doing.
        let held: Vec<(Target, u64)> = self
            .targets
            .values()
            .filter_map(|target| Some((target.clone(), self.upload.get_upload_throttle(&target.subject)?)))
            .collect();
        let old = &mut self.upload;
        let given_up = held.iter().try_for_each(|(target, _)| old.remove_upload_throttle(&target.subject));
        let taken_over = given_up
            .and_then(|()| held.iter().try_for_each(|(target, limit)| new.throttle_upload(target, *limit)));
        if taken_over.is_err() {
            // Whatever fails of it, what can be in force again is.
            let back = held.iter().map(|(target, limit)| old.throttle_upload(target, *limit));
            return BackendError::all_of([taken_over, new.cleanup()].into_iter().chain(back));
        }
        let mut old = std::mem::replace(&mut self.upload, new);
        self.announce();
        old.cleanup()
    }

    /// The same for downloads.
    ///
    /// # Errors
    /// Likewise.
    pub fn use_download(&mut self, mut new: Box<dyn DownloadThrottleBackend>) -> Result<(), BackendError> {
        new.init()?;
        let Some(old) = &mut self.download else {
            self.download = Some(new);
            return Ok(());
        };
        let limit = |target: &Target| Some((target.clone(), old.get_download_throttle(&target.subject)?));
        let held: Vec<(Target, u64)> = self.targets.values().filter_map(limit).collect();
        let given_up = held.iter().try_for_each(|(target, _)| old.remove_download_throttle(&target.subject));
        let taken_over = given_up
            .and_then(|()| held.iter().try_for_each(|(target, limit)| new.throttle_download(target, *limit)));
        if taken_over.is_err() {
            let back = held.iter().map(|(target, limit)| old.throttle_download(target, *limit));
            return BackendError::all_of([taken_over, new.cleanup()].into_iter().chain(back));
        }
        let mut old = std::mem::replace(old, new);
        self.announce();
        old.cleanup()
    }

    /// Lets the backends look after their limits. To be called every [`MAINTENANCE_INTERVAL`].
    ///
    /// # Errors
    /// When the host refuses.
    pub fn maintain(&mut self) -> Result<(), BackendError> {
        let upload = self.upload.maintain();
        let download = self.download.as_mut().map_or(Ok(()), |download| download.maintain());
        BackendError::all_of([upload, download])
    }

    /// Takes every limit away.
    ///
    /// # Errors
    /// Everything that could not be taken back; all else has been.
    pub fn cleanup(&mut self) -> Result<(), BackendError> {
        let upload = self.upload.cleanup();
        let download = self.download.as_mut().map_or(Ok(()), |download| download.cleanup());
        self.targets.clear();
        self.announce();
        BackendError::all_of([upload, download])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backends::{monitor::fake::Journal, throttle::fake::FakeThrottle},
        process::ProcessId,
    };

    #[test]
    fn another_backend_takes_the_limits_over_and_where_it_cannot_nothing_changes() -> Result<(), BackendError>
    {
        let (first, second) = (Journal::default(), Journal::default());
        let fake = |journal: &Journal| Box::new(FakeThrottle::new(journal.clone()));
        let mut manager = ThrottleManager::new(fake(&first), Some(fake(&first)))?;
        let target = Target::process(ProcessId { pid: 7, start_time: 1 }, "curl");
        manager.throttle_process(&target, Limits { upload: Some(5), download: Some(9) })?;
        manager.use_upload(fake(&second))?;
        manager.use_download(fake(&second))?;
        assert_eq!(manager.limits(&target.subject), Limits { upload: Some(5), download: Some(9) });
        let over = ["upload 7 none", "upload cleanup", "download 7 none", "download cleanup"];
        assert_eq!(first.lines()[2..], over);
        assert_eq!(second.lines(), ["upload 7 5", "download 7 9"]);

        // The first of them is given up when the second cannot be.
        let stuck = Target::process(ProcessId { pid: 8, start_time: 1 }, "wget");
        manager.throttle_process(&stuck, Limits { upload: Some(2), download: None })?;
        assert!(manager.use_upload(fake(&first)).is_err());
        let limits = [&target, &stuck].map(|target| manager.limits(&target.subject).upload);
        assert_eq!(limits, [Some(5), Some(2)]);
        assert_eq!(second.lines().last().map(String::as_str), Some("upload 8 2"));
        while manager.remove_throttle(&stuck.subject).is_err() {}

        // One byte a second is refused by the fake: then the limit stays with who holds it.
        let third = Journal::default();
        let mut picky = FakeThrottle::new(third.clone());
        picky.refuse_all();
        assert!(manager.use_upload(Box::new(picky)).is_err());
        assert_eq!(manager.limits(&target.subject).upload, Some(5));
        assert_eq!(second.lines().last().map(String::as_str), Some("upload 7 5"));
        Ok(())
    }
}
