//! Which processes are limited, and how: userspace's side of the limits in the kernel.
//!
//! A target is a number. Processes are its members, at most one target's each; limits belong to the target, one a
//! direction, so that members share them. Whoever is forked or executed while a limit is in force becomes a member in the
//! kernel (`membership`, chadthrottle-ebpf); userspace only sees to those that are there already.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail};
use chadthrottle_common::{FileId, MEMBER_BY_PROGRAM, Membership, ProcessKey, ThrottleStats};

use super::{
    Engine,
    limits::{Direction, Leniency, Limit, Numbers, absent_is_fine},
    tagger,
};
use crate::{
    backends::throttle::{
        Subject, Target, TrafficType,
        manager::MAINTENANCE_INTERVAL,
        processes::{Processes, belongs},
    },
    process::ProcessId,
    sys::file_id::file_id,
};

/// One limited target.
#[derive(Debug)]
struct Entry {
    number: u32,
    traffic: TrafficType,
    /// IP bytes a second.
    limits: BTreeMap<Direction, (u64, Leniency)>,
    /// What it is in the kernel, where that is not its members alone.
    place: Place,
}

/// By what the kernel knows that somebody is of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Members,
    Program(FileId),
    Cgroup { id: u64, depth: u32 },
    User(u32),
}

/// Every limited target.
#[derive(Debug, Default)]
pub struct Targets {
    by_subject: BTreeMap<Subject, Entry>,
    numbers: Numbers,
    /// Members that had ended when it was last looked at.
    ended_members: HashSet<ProcessKey>,
    last_look: Option<Instant>,
}

impl Targets {
    /// The limit in force, in IP bytes a second.
    #[must_use]
    pub fn limit(&self, subject: &Subject, direction: Direction) -> Option<u64> {
        self.by_subject.get(subject)?.limits.get(&direction).map(|(rate, _)| *rate)
    }

    /// Sets or changes a limit; it holds from the next packet on. The traffic that it is for is that of both directions.
    ///
    /// # Errors
    /// When the kernel refuses; then there is no new limit.
    pub fn set(
        &mut self,
        engine: &mut Engine,
        target: &Target,
        direction: Direction,
        rate_bps: u64,
        leniency: Leniency,
    ) -> anyhow::Result<()> {
        let subject = &target.subject;
        let is_new = !self.by_subject.contains_key(subject);
        if is_new {
            let place = place(engine, subject)?;
            let number = self.numbers.take().context("there are too many limits")?;
            engine.limits.clear(number)?;
            let entry = Entry { number, traffic: target.traffic, limits: BTreeMap::new(), place };
            self.by_subject.insert(subject.clone(), entry);
        }
        let Some(entry) = self.by_subject.get_mut(subject) else { return Ok(()) };
        entry.traffic = target.traffic;
        entry.limits.insert(direction, (rate_bps, leniency));
        let written = write(engine, subject, entry);
        // The limit is there before the first member is: whoever becomes one is held from that packet on.
        let set = written.and_then(|()| if is_new { self.join(engine, target) } else { Ok(()) });
        if set.is_err() {
            self.remove(engine, subject, direction)?;
        }
        set
    }

    /// Takes a limit away. No limit is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(
        &mut self,
        engine: &mut Engine,
        subject: &Subject,
        direction: Direction,
    ) -> anyhow::Result<()> {
        let Some(entry) = self.by_subject.get_mut(subject) else { return Ok(()) };
        if entry.limits.remove(&direction).is_none() {
            return Ok(());
        }
        let (number, place) = (entry.number, entry.place);
        engine.limits.set(number, direction, None)?;
        if entry.limits.is_empty() {
            self.by_subject.remove(subject);
            take_place_away(engine, place)?;
            self.leave(engine, number)?;
            self.announce(engine)?;
            self.numbers.give_back(number);
        }
        Ok(())
    }

    /// Takes every limit of one direction away.
    ///
    /// # Errors
    /// The first one that the kernel refuses; the others are gone.
    pub fn remove_all(&mut self, engine: &mut Engine, direction: Direction) -> anyhow::Result<()> {
        let subjects: Vec<_> = self.by_subject.keys().cloned().collect();
        subjects.iter().map(|subject| self.remove(engine, subject, direction)).fold(Ok(()), Result::and)
    }

    /// What a limit did so far.
    #[must_use]
    pub fn stats(&self, engine: &Engine, subject: &Subject, direction: Direction) -> ThrottleStats {
        let entry = self.by_subject.get(subject);
        entry.map(|entry| engine.limits.stats(entry.number, direction)).unwrap_or_default()
    }

    /// IP bytes that have passed under a limit and were no TCP, and what it did so far; `None` where there is none.
    #[must_use]
    pub fn use_of(
        &self,
        engine: &Engine,
        subject: &Subject,
        direction: Direction,
    ) -> Option<(u64, ThrottleStats)> {
        let entry = self.by_subject.get(subject)?;
        entry.limits.get(&direction)?;
        let state = engine.limits.state(entry.number, direction);
        Some((state.datagram_bytes, state.stats))
    }

    /// Makes whoever is there already a member, and the owner of the sockets that it has open.
    fn join(&self, engine: &mut Engine, target: &Target) -> anyhow::Result<()> {
        self.announce(engine)?;
        if let Subject::Process(id) | Subject::Descendants(id) = target.subject {
            let others = if self.by_subject.len() > 1 { Processes::now()? } else { Processes::default() };
            self.assign(engine, id, &others)?;
            engine.adopt(id).with_context(|| format!("cannot take hold of the open sockets of {target}"))?;
        }
        match target.subject {
            Subject::Process(_) => {}
            // Twice: what was forked during the first pass, of a process that it had not reached, is found in the second.
            Subject::Descendants(_) => {
                for _ in 0..2 {
                    self.assign_all(engine, target, true)?;
                }
            }
            Subject::Program(_) => {
                for _ in 0..2 {
                    self.assign_all(engine, target, false)?;
                }
                engine.adopt_everything();
            }
            Subject::Cgroup(_) | Subject::User(_) => engine.adopt_everything(),
        }
        Ok(engine.limits.memberships_have_changed()?)
    }

    fn assign_all(&self, engine: &mut Engine, target: &Target, adopt: bool) -> anyhow::Result<()> {
        let processes = Processes::now()?;
        for id in processes.of(&target.subject) {
            self.assign(engine, id, &processes)?;
            if adopt && let Err(error) = engine.adopt(id) {
                log::debug!("sockets of {id} keep their owners: {error}");
            }
        }
        Ok(())
    }

    /// Makes a process a member of the target that is the most specific for it, or of none.
    fn assign(&self, engine: &mut Engine, id: ProcessId, processes: &Processes) -> anyhow::Result<()> {
        let key = tagger::key(id);
        let number = |subject: &Subject| self.by_subject.get(subject).map_or(0, |entry| entry.number);
        let own = number(&Subject::Process(id));
        let inherited = self
            .by_subject
            .iter()
            .filter(|(subject, _)| matches!(subject, Subject::Descendants(_)))
            .filter_map(|(subject, entry)| {
                Some((processes_generations(processes, id, subject)?, entry.number))
            })
            .min()
            .map_or(0, |(_, number)| number);
        let by_program = self
            .by_subject
            .iter()
            .filter(|(subject, _)| matches!(subject, Subject::Program(_)))
            .find(|(subject, _)| belongs(id.pid, subject))
            .map_or(0, |(_, entry)| entry.number);
        let child_target = if inherited == 0 { by_program } else { inherited };
        let target = if own == 0 { child_target } else { own };
        if target == 0 {
            return Ok(absent_is_fine(engine.limits.members.remove(&key))?);
        }
        let flags = if own == 0 && inherited == 0 { MEMBER_BY_PROGRAM } else { 0 };
        engine
            .limits
            .members
            .insert(key, Membership { target, child_target, flags, _padding: 0 }, 0)
            .context("too many limited processes, or no memory for one")
    }

    /// Ends every membership of a target: who was a member is held by the next limit that covers it, if there is one.
    fn leave(&self, engine: &mut Engine, number: u32) -> anyhow::Result<()> {
        // Until there is none: a member may fork meanwhile.
        loop {
            let members: Vec<_> = engine
                .limits
                .members
                .iter()
                .flatten()
                .filter(|(_, member)| member.target == number || member.child_target == number)
                .map(|(key, _)| key)
                .collect();
            if members.is_empty() {
                break;
            }
            let processes = if self.by_subject.is_empty() { Processes::default() } else { Processes::now()? };
            for key in members {
                self.assign(engine, tagger::process(key), &processes)?;
            }
        }
        Ok(engine.limits.memberships_have_changed()?)
    }

    fn announce(&self, engine: &mut Engine) -> anyhow::Result<()> {
        let depths = self.by_subject.values().filter_map(|entry| match entry.place {
            Place::Cgroup { depth, .. } => Some(depth),
            _ => None,
        });
        Ok(engine.announce_limits(self.by_subject.len(), depths)?)
    }

    /// Looks after limits: follows programs and cgroups that were replaced by others of the same name, and forgets members
    /// that had ended already when this was called last, so that a target whose processes come and go does not fill the
    /// table. Not at once: what stands in the queues of a process that has ended is still its own. The process that a
    /// target is named for stays until its limits are taken away.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn maintain(&mut self, engine: &mut Engine) -> anyhow::Result<()> {
        // Both directions ask for it.
        if self.last_look.is_some_and(|last| last.elapsed() < MAINTENANCE_INTERVAL / 2) {
            return Ok(());
        }
        self.last_look = Some(Instant::now());
        self.forget_ended_members(engine);
        let mut have_moved = false;
        for (subject, entry) in &mut self.by_subject {
            // One that is not there now may come again.
            let Ok(now) = place(engine, subject) else { continue };
            if now != entry.place {
                take_place_away(engine, entry.place)?;
                entry.place = now;
                write(engine, subject, entry)?;
                have_moved = true;
            }
        }
        if have_moved {
            self.announce(engine)?;
            engine.limits.memberships_have_changed()?;
        }
        Ok(())
    }

    fn forget_ended_members(&mut self, engine: &mut Engine) {
        let is_named = |process: ProcessId| {
            self.by_subject.contains_key(&Subject::Process(process))
                || self.by_subject.contains_key(&Subject::Descendants(process))
        };
        let ended: HashSet<_> = engine
            .limits
            .members
            .keys()
            .flatten()
            .filter(|key| {
                let process = tagger::process(*key);
                !is_named(process) && !process.is_alive()
            })
            .collect();
        for key in ended.intersection(&self.ended_members) {
            // Gone already is as good.
            let _ = engine.limits.members.remove(key);
        }
        self.ended_members = ended;
    }
}

/// As [`Processes::generations`], also where nobody has looked at /proc: a process is no generation below itself.
fn processes_generations(processes: &Processes, id: ProcessId, subject: &Subject) -> Option<u32> {
    if *subject == Subject::Descendants(id) { Some(0) } else { processes.generations(id, subject) }
}

/// By what the kernel is to know a subject.
fn place(engine: &Engine, subject: &Subject) -> anyhow::Result<Place> {
    Ok(match subject {
        Subject::Process(_) | Subject::Descendants(_) => Place::Members,
        Subject::Program(path) => {
            Place::Program(file_id(path).with_context(|| format!("cannot look at {}", path.display()))?)
        }
        Subject::Cgroup(in_tree) => {
            let path = directory(engine, in_tree)?;
            let metadata = fs::metadata(&path).with_context(|| format!("there is no cgroup {in_tree}"))?;
            let depth = Path::new(in_tree).components().count().saturating_sub(1);
            Place::Cgroup { id: metadata.ino(), depth: u32::try_from(depth)? }
        }
        Subject::User(uid) => Place::User(*uid),
    })
}

/// Where a cgroup is in the file system.
fn directory(engine: &Engine, in_tree: &str) -> anyhow::Result<PathBuf> {
    let root = engine.cgroup();
    match Path::new(in_tree).strip_prefix(&root.in_tree) {
        Ok(below) => Ok(root.path.join(below)),
        Err(_) => bail!(
            "the cgroup {in_tree} is outside {}; choose a --cgroup-root above it, or none",
            root.path.display()
        ),
    }
}

/// Writes all limits of a target, and by what the kernel knows it.
fn write(engine: &mut Engine, subject: &Subject, entry: &Entry) -> anyhow::Result<()> {
    let tgid = subject.process().map_or(0, |id| tagger::key(id).tgid());
    for (&direction, &(rate_bps, leniency)) in &entry.limits {
        let limit = Limit { rate_bps, leniency, traffic: entry.traffic, tgid };
        engine.limits.set(entry.number, direction, Some(limit))?;
    }
    let tables = &mut engine.limits;
    match entry.place {
        Place::Members => Ok(()),
        Place::Program(file) => tables.programs.insert(file, entry.number, 0),
        Place::Cgroup { id, .. } => tables.cgroups.insert(id, entry.number, 0),
        Place::User(uid) => tables.users.insert(uid, entry.number, 0),
    }
    .context("too many limits, or no memory for one")
}

fn take_place_away(engine: &mut Engine, place: Place) -> anyhow::Result<()> {
    let tables = &mut engine.limits;
    Ok(absent_is_fine(match place {
        Place::Members => Ok(()),
        Place::Program(file) => tables.programs.remove(&file),
        Place::Cgroup { id, .. } => tables.cgroups.remove(&id),
        Place::User(uid) => tables.users.remove(&uid),
    })?)
}
