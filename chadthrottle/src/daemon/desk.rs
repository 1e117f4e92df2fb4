//! Answers what is asked of the daemon, and owns what it is asked about: limits, rules, figures.

mod telling;

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt, sync::Arc, time::Instant};

use chadthrottle_common::ThrottleStats;
use jiff::Timestamp;
use nix::unistd::{Pid, geteuid};

pub use self::telling::Socket;
use super::{
    connection::Caller,
    counter::Counter,
    protocol::{Done, Hello, InForce, Kind, Refusal, Reply, Request, SetBy, Status, VERSION, line},
    rights::Right,
    said::Said,
};
use crate::{
    backends::{
        BackendError, Obstacle,
        throttle::{Subject, Target, ThrottleManager, manager::Limits},
    },
    headless::tell,
    instances::{self, Announcement, Whom, held, rival},
    process::{KnownNames, ProcessError, ProcessId},
    rules::keeper::RuleFiles,
};

/// Whose a limit is.
struct Owner {
    connection: u64,
    by: SetBy,
    target: Target,
}

/// What the daemon works with, and who has asked for what.
pub struct Desk {
    /// Holds limits.
    pub manager: ThrottleManager,
    /// Keeps rules.
    pub rules: RuleFiles,
    /// Counts.
    pub counter: Counter,
    owners: BTreeMap<Subject, Owner>,
    /// Tells instances that do not ask us of limits that are set here.
    announcement: Option<Announcement>,
    /// Where those are told who may know what rules hold. Where nobody can ask for that it is announced.
    socket: Option<Socket>,
    /// Since when limits are what they are.
    since: BTreeMap<Subject, (Limits, String)>,
    figures: Option<Said>,
    in_force: Option<Said>,
    /// Whether limits have changed that others have not been told of.
    is_untold: bool,
    /// When they were told last.
    told: Option<Instant>,
    process: ProcessId,
    places: [u64; 2],
}

impl Desk {
    /// Nothing asked for yet. `socket` is where others can ask.
    ///
    /// # Errors
    /// When /proc does not tell who we are.
    pub fn new(
        manager: ThrottleManager,
        rules: RuleFiles,
        counter: Counter,
        socket: Option<Socket>,
    ) -> anyhow::Result<Self> {
        let process = ProcessId::running(Pid::this().as_raw())?;
        Ok(Self {
            manager,
            rules,
            counter,
            owners: BTreeMap::new(),
            announcement: Announcement::new(),
            socket,
            since: BTreeMap::new(),
            figures: None,
            in_force: None,
            is_untold: false,
            told: None,
            process,
            places: namespaces()?,
        })
    }

    /// Has limits be those of the rules, but for what somebody has asked for. What went wrong is told.
    pub fn look(&mut self) {
        self.in_force = None;
        for subject in self.owners.keys() {
            self.rules.keeper.leave(subject);
        }
        for words in self.rules.keeper.look(&mut self.manager, Timestamp::now()) {
            tell(words);
        }
        self.tell_others();
    }

    /// Reads the files again and tells what is in force. Where they are wrong, the rules stay as they are.
    ///
    /// # Errors
    /// When they are.
    pub fn read_again(&mut self) -> anyhow::Result<()> {
        let read = self.rules.read_again();
        if let Err(error) = &read {
            tell(format_args!("the rules in force stay as they are: {error}"));
        }
        self.look();
        tell(self.in_short());
        read
    }

    /// What is in force.
    #[must_use]
    pub fn in_short(&self) -> String {
        let keeper = &self.rules.keeper;
        format!("{} rules, {} limits in force", keeper.rules().len(), keeper.held().len())
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// When something could not be; everything else has been.
    pub fn end(&mut self) -> anyhow::Result<()> {
        let limits = self.manager.cleanup();
        let counter = self.counter.end();
        self.announcement = None;
        limits.map_err(Into::into).and(counter)
    }

    /// A line that answers a request.
    pub fn answer(&mut self, caller: &Caller, request: Request) -> Arc<[u8]> {
        match request {
            Request::Sample => return self.figures(),
            Request::Status => return self.limits(),
            _ => {}
        }
        let reply = self.reply(caller, request).unwrap_or_else(|refusal| {
            log::info!("process {} of user {}: {refusal}", caller.peer.pid, caller.peer.uid);
            Reply::Error(refusal)
        });
        line(&reply).into()
    }

    /// These connections have ended, and what was asked for through them ends with them. To be called after each turn:
    /// what has changed in it is told others at once.
    pub fn leave(&mut self, connections: &[u64]) {
        let of_them = self.owners.values().filter(|owner| connections.contains(&owner.connection));
        let of_them: Vec<Subject> = of_them.map(|owner| owner.target.subject.clone()).collect();
        for subject in &of_them {
            self.let_go(subject);
        }
        if !of_them.is_empty() {
            self.look();
        }
        if self.is_untold {
            self.announce();
        }
    }

    fn reply(&mut self, caller: &Caller, request: Request) -> Result<Reply, Refusal> {
        let changes = !matches!(request, Request::Hello { .. } | Request::Status | Request::Sample);
        if changes && caller.right < Right::Change {
            let message = "you may look at this daemon, and not change what it does: root may, and members of change_group \
                           of [daemon] in its configuration";
            return Err(Refusal::new(Kind::Denied, message));
        }
        match request {
            Request::Hello { .. } => Ok(Reply::Hello(self.hello(caller.right))),
            // These have been answered.
            Request::Status | Request::Sample => Ok(Reply::Done(Done::default())),
            Request::Set { subject, name, traffic, upload, download, take_over } => {
                let target = Target { subject: subject.into(), name, traffic: traffic.into() };
                self.set(caller, target, Limits { upload, download }, take_over).map(Reply::Done)
            }
            Request::Release { subject } => Ok(Reply::Done(self.release(caller, &subject.into()))),
            Request::Remove { subject } => self.remove(&subject.into()).map(Reply::Done),
            Request::Reload => match self.read_again() {
                Ok(()) => Ok(Reply::Done(Done::default())),
                Err(error) => {
                    let message = format!("the rules in force stay as they are: {error}");
                    Err(Refusal::new(Kind::Failed, message))
                }
            },
        }
    }

    fn hello(&self, right: Right) -> Hello {
        let [pids, network] = self.places;
        Hello {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            pid: self.process.pid,
            start_time: self.process.start_time,
            uid: geteuid().as_raw(),
            pids,
            network,
            monitor: self.counter.name().map(str::to_owned),
            upload: self.manager.upload_backend().to_owned(),
            download: self.manager.download_backend().map(str::to_owned),
            files: self.rules.files.to_read().map(|path| path.display().to_string()).collect(),
            history: self.rules.history.as_ref().map(|history| history.path().display().to_string()),
            may_change: right == Right::Change,
        }
    }

    /// What everybody has sent and received. Many who ask at once are one reading.
    fn figures(&mut self) -> Arc<[u8]> {
        if let Some(figures) = self.figures.as_ref().and_then(Said::fresh) {
            return figures;
        }
        let begun = Instant::now();
        let reply = match self.counter.sample() {
            Ok(sample) => Reply::Sample((&sample).into()),
            Err(error) => Reply::Error(Refusal::new(Kind::Failed, format!("{error:#}"))),
        };
        let figures: Arc<[u8]> = line(&reply).into();
        self.figures = Some(Said::new(Arc::clone(&figures), begun.elapsed()));
        figures
    }

    /// The limits in force; likewise, until somebody changes one.
    fn limits(&mut self) -> Arc<[u8]> {
        if let Some(limits) = self.in_force.as_ref().and_then(Said::fresh) {
            return limits;
        }
        let begun = Instant::now();
        let reply = self.status().map_or_else(|error| Reply::Error(refusal(&error)), Reply::Status);
        let limits: Arc<[u8]> = line(&reply).into();
        self.in_force = Some(Said::new(Arc::clone(&limits), begun.elapsed()));
        limits
    }

    fn status(&self) -> Result<Status, BackendError> {
        let limited = self.manager.limited()?;
        let limits = limited.into_iter().filter(|limited| limited.alive).map(|limited| {
            let subject = &limited.target.subject;
            let since = self.since.get(subject).map(|(_, since)| since.clone());
            let owner = self.owners.get(subject);
            let rule = self.rules.keeper.held().get(subject).filter(|_| owner.is_none());
            InForce {
                subject: Whom::from(subject),
                name: limited.target.name.clone(),
                traffic: limited.target.traffic.into(),
                upload: limited.limits.upload,
                download: limited.limits.download,
                upload_stats: limited.upload_stats.into(),
                download_stats: limited.download_stats.into(),
                held_back: limited.held_back,
                since: since.unwrap_or_default(),
                rule: rule.map(|held| held.rule.clone()),
                set_by: owner.map(|owner| owner.by),
            }
        });
        Ok(Status { limits: limits.collect() })
    }

    fn set(
        &mut self,
        caller: &Caller,
        target: Target,
        limits: Limits,
        take_over: bool,
    ) -> Result<Done, Refusal> {
        if limits.is_empty() {
            return Ok(self.release(caller, &target.subject));
        }
        if let Some(id) = target.subject.process().filter(|id| !id.is_alive()) {
            return Err(Refusal::new(Kind::Failed, ProcessError::Absent(id.pid).to_string()));
        }
        let other = self.owners.get(&target.subject).filter(|owner| owner.connection != caller.id);
        if let Some(owner) = other.filter(|_| !take_over) {
            return Err(Refusal::new(Kind::Unenforceable, self.held_by(owner)));
        }
        let names = (self.manager.upload_backend(), self.manager.download_backend());
        if let Some(reason) = rival(&held(&target, limits, names)) {
            return Err(Refusal::new(Kind::Unenforceable, format!("{target} is not limited: {reason}")));
        }
        self.manager.throttle_process(&target, limits).map_err(|error| refusal(&error))?;
        let by = SetBy { pid: caller.peer.pid, uid: caller.peer.uid };
        let subject = target.subject.clone();
        self.rules.keeper.leave(&subject);
        self.owners.insert(subject, Owner { connection: caller.id, by, target });
        self.has_changed();
        self.note_times();
        Ok(Done { ended: None, note: self.manager.not_covered(limits) })
    }

    fn held_by(&self, owner: &Owner) -> String {
        let SetBy { pid, uid } = owner.by;
        let limits = crate::headless::in_words(self.manager.limits(&owner.target.subject));
        let user = KnownNames::default().user(uid);
        format!(
            "{} is held to {limits} already, by process {pid} of {user} through the daemon; end that first, or change the \
             limit there",
            owner.target
        )
    }

    /// Limits that this connection has set end.
    fn release(&mut self, caller: &Caller, subject: &Subject) -> Done {
        if self.owners.get(subject).is_none_or(|owner| owner.connection != caller.id) {
            return Done::default();
        }
        let ended = self.stats(subject);
        self.let_go(subject);
        self.look();
        Done { ended, note: None }
    }

    fn let_go(&mut self, subject: &Subject) {
        self.has_changed();
        if let Some(owner) = self.owners.remove(subject) {
            self.rules.keeper.let_go(&owner.target, self.manager.limits(subject));
        }
    }

    fn remove(&mut self, subject: &Subject) -> Result<Done, Refusal> {
        let ended = self.stats(subject);
        self.manager.remove_throttle(subject).map_err(|error| refusal(&error))?;
        self.owners.remove(subject);
        self.rules.keeper.leave(subject);
        self.note_times();
        self.has_changed();
        Ok(Done { ended, note: None })
    }

    fn stats(&self, subject: &Subject) -> Option<[super::protocol::Outcome; 2]> {
        let limited = self.manager.limited().ok()?;
        let of_it = limited.iter().find(|limited| limited.target.subject == *subject)?;
        let [up, down]: [ThrottleStats; 2] = [of_it.upload_stats, of_it.download_stats];
        Some([up.into(), down.into()])
    }

    /// Limits are others than before.
    fn has_changed(&mut self) {
        self.is_untold = true;
        self.in_force = None;
    }
}

/// The inodes of our pid and network namespaces.
///
/// # Errors
/// When /proc is not there.
pub(super) fn namespaces() -> io::Result<[u64; 2]> {
    Ok([instances::own_pids()?, fs::metadata("/proc/self/ns/net")?.ino()])
}

/// The same in the words and kinds of the socket.
fn refusal(error: &BackendError) -> Refusal {
    let kind = match error {
        BackendError::Unavailable { obstacle: Obstacle::Privilege { .. }, .. }
        | BackendError::Denied { .. } => Kind::Unprivileged,
        BackendError::Unavailable { .. } | BackendError::Unenforceable { .. } => Kind::Unenforceable,
        BackendError::Process(_) | BackendError::Kernel { .. } | BackendError::Several(_) => Kind::Failed,
    };
    Refusal::new(kind, error.to_string())
}
