//! The daemon's limits as those of backends of our own: what the screen drives where a daemon runs.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use chadthrottle_common::ThrottleStats;

use super::{
    client::{Client, DaemonError},
    monitor::failed,
    protocol::{InForce, Outcome, Request},
};
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, Obstacle, registry,
        supply::Supply,
        throttle::{
            DownloadThrottleBackend, Subject, Target, ThrottleManager, UploadThrottleBackend, manager::Limits,
        },
    },
    config::Files,
    instances::Whom,
    rules::{edit::NewRule, store},
};

/// A daemon and its limits, as they were read last. All clones are one.
#[derive(Clone)]
pub struct Remote(Arc<Mutex<Inner>>);

struct Inner {
    client: Client,
    in_force: BTreeMap<Subject, InForce>,
}

impl Remote {
    /// Nothing read yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(Arc::new(Mutex::new(Inner { client, in_force: BTreeMap::new() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who holds uploads, and who holds downloads.
    #[must_use]
    pub fn names(&self) -> (&'static str, Option<&'static str>) {
        let inner = self.inner();
        let daemon = &inner.client.daemon;
        (registry::known_name(&daemon.upload), daemon.download.as_deref().map(registry::known_name))
    }

    /// A manager of the daemon's limits. It shows nothing before [`Self::show_to`].
    ///
    /// # Errors
    /// Never: there is nothing to be made ready.
    pub fn manager(&self) -> Result<ThrottleManager, BackendError> {
        let (upload, download) = self.names();
        let one = |name| Box::new(OneWay { remote: self.clone(), name });
        let download = download.map(|name| one(name) as Box<dyn DownloadThrottleBackend>);
        ThrottleManager::new(one(upload), download)
    }

    /// Reads what is in force, whoever set it, and has a manager of ours show just that.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn show_to(&self, manager: &mut ThrottleManager) -> Result<(), DaemonError> {
        let mut inner = self.inner();
        let limits = inner.client.status()?.limits;
        inner.in_force = limits.into_iter().map(|one| (one.subject.clone().into(), one)).collect();
        let targets = inner.in_force.iter().map(|(subject, one)| Target {
            subject: subject.clone(),
            name: one.name.clone(),
            traffic: one.traffic.into(),
        });
        manager.show(targets.collect());
        Ok(())
    }

    /// By which rules limits are in force.
    #[must_use]
    pub fn rules(&self) -> Vec<(Subject, String)> {
        let inner = self.inner();
        let rules = inner.in_force.iter();
        rules.filter_map(|(subject, one)| Some((subject.clone(), one.rule.clone()?))).collect()
    }

    /// Writes a new rule to the last file that the daemon reads, and has it read; in a sentence, where it is.
    ///
    /// # Errors
    /// When it cannot be written, something would be wrong then, or the daemon refuses.
    pub fn save(&self, new: &NewRule) -> anyhow::Result<String> {
        let mut inner = self.inner();
        let mut files: Vec<PathBuf> = inner.client.daemon.files.iter().map(PathBuf::from).collect();
        let own = files.pop().context("the daemon reads no file that a rule could be written to")?;
        let files = Files { own: Some(own), system: files.pop(), ..Files::none() };
        let (name, path) = store::add_by_any_name(&files, new)?;
        inner.client.change(&Request::Reload)?;
        Ok(format!("Saved as rule {name:?} in {}, which the daemon has read.", path.display()))
    }

    fn read<T>(&self, subject: &Subject, take: impl FnOnce(&InForce) -> T) -> Option<T> {
        self.inner().in_force.get(subject).map(take)
    }

    fn stats(&self, subject: &Subject, of: impl FnOnce(&InForce) -> Outcome) -> ThrottleStats {
        self.read(subject, of).unwrap_or_default().into()
    }

    /// Sets other limits than there are now, where `edit` makes others of them.
    fn change(
        &self,
        subject: &Subject,
        target: Option<&Target>,
        edit: impl FnOnce(&mut Limits),
    ) -> Result<(), BackendError> {
        let mut inner = self.inner();
        let before = inner.in_force.get(subject).cloned();
        let mut limits = before.as_ref().map(InForce::limits).unwrap_or_default();
        edit(&mut limits);
        let traffic = target.map(|target| target.traffic.into()).or(before.as_ref().map(|one| one.traffic));
        let is_same =
            before.as_ref().is_some_and(|one| one.limits() == limits && Some(one.traffic) == traffic);
        let (Some(traffic), false) = (traffic, is_same) else { return Ok(()) };
        let whom = Whom::from(subject);
        let known = before.as_ref().map(|one| one.name.clone());
        let name = target.map(|target| target.name.clone()).or(known).unwrap_or_default();
        let request = if limits.is_empty() {
            if before.is_none() {
                return Ok(());
            }
            Request::Remove { subject: whom.clone() }
        } else {
            let Limits { upload, download } = limits;
            let (subject, name) = (whom.clone(), name.clone());
            Request::Set { subject, name, traffic, upload, download, take_over: true }
        };
        inner.client.change(&request).map_err(|error| refused(error, subject))?;
        if limits.is_empty() {
            inner.in_force.remove(subject);
            return Ok(());
        }
        let (upload_stats, download_stats) =
            before.map(|one| (one.upload_stats, one.download_stats)).unwrap_or_default();
        let now = InForce {
            subject: whom,
            name,
            traffic,
            upload: limits.upload,
            download: limits.download,
            upload_stats,
            download_stats,
            held_back: None,
            since: String::new(),
            rule: None,
            set_by: None,
        };
        inner.in_force.insert(subject.clone(), now);
        Ok(())
    }
}

/// What a daemon did not do, as a backend says it.
fn refused(error: DaemonError, subject: &Subject) -> BackendError {
    let (backend, subject, reason) = ("the daemon", subject.clone(), error.to_string());
    if error.is_denial() {
        BackendError::Denied { backend, subject, reason }
    } else if error.is_unenforceable() {
        BackendError::Unenforceable { backend, subject, reason }
    } else {
        failed("change a limit", error)
    }
}

impl Supply for Remote {
    fn monitor(&self, name: &str) -> anyhow::Result<Box<dyn crate::backends::monitor::MonitorBackend>> {
        anyhow::bail!("the daemon chooses who counts: start it with --monitor-backend {name}")
    }

    fn upload(&self, name: &str) -> anyhow::Result<Box<dyn UploadThrottleBackend>> {
        anyhow::bail!("the daemon chooses who limits: start it with --upload-backend {name}")
    }

    fn download(&self, name: &str) -> anyhow::Result<Box<dyn DownloadThrottleBackend>> {
        anyhow::bail!("the daemon chooses who limits: start it with --download-backend {name}")
    }
}

/// One direction of the daemon's limits.
struct OneWay {
    remote: Remote,
    name: &'static str,
}

fn elsewhere() -> Availability {
    Availability::Unavailable(Obstacle::Host {
        cause: "it is a daemon's".into(),
        remedy: "it is used by itself where a daemon runs".into(),
    })
}

impl UploadThrottleBackend for OneWay {
    fn name(&self) -> &'static str {
        self.name
    }

    fn priority(&self) -> BackendPriority {
        BackendPriority::Best
    }

    fn probe(_: &BackendOptions) -> Availability {
        elsewhere()
    }

    fn capabilities(&self) -> BackendCapabilities {
        registry::capabilities_of(self.name)
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn throttle_upload(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.remote.change(&target.subject, Some(target), |limits| limits.upload = Some(limit))
    }

    fn remove_upload_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.remote.change(subject, None, |limits| limits.upload = None)
    }

    fn get_upload_throttle(&self, subject: &Subject) -> Option<u64> {
        self.remote.read(subject, |one| one.upload).flatten()
    }

    fn upload_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        Ok(self.remote.stats(subject, |one| one.upload_stats))
    }

    fn held_back(&self, subject: &Subject) -> Option<u64> {
        self.remote.read(subject, |one| one.held_back).flatten()
    }

    /// What was set through this connection ends with it; what others have set stays.
    fn cleanup(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

impl DownloadThrottleBackend for OneWay {
    fn name(&self) -> &'static str {
        self.name
    }

    fn priority(&self) -> BackendPriority {
        BackendPriority::Best
    }

    fn probe(_: &BackendOptions) -> Availability {
        elsewhere()
    }

    fn capabilities(&self) -> BackendCapabilities {
        registry::capabilities_of(self.name)
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn throttle_download(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.remote.change(&target.subject, Some(target), |limits| limits.download = Some(limit))
    }

    fn remove_download_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.remote.change(subject, None, |limits| limits.download = None)
    }

    fn get_download_throttle(&self, subject: &Subject) -> Option<u64> {
        self.remote.read(subject, |one| one.download).flatten()
    }

    fn download_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        Ok(self.remote.stats(subject, |one| one.download_stats))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
