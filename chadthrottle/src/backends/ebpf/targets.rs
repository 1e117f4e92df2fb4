//! Which processes are limited, and how: userspace's side of the limits in the kernel.
//!
//! A target is a number. Processes are its members, at most one target's each; limits belong to the target, one a
//! direction, so that members share them. Whoever is forked or executed while a limit is in force becomes a member in the
//! kernel (`membership`, chadthrottle-ebpf); userspace only sees to those that are there already.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::Context;
use chadthrottle_common::{Membership, ProcessKey, ThrottleStats};

use super::{
    Engine,
    limits::{Asked, Direction, Leniency, Limit, Means, Numbers, absent_is_fine},
    places::Place,
    tagger,
};
use crate::{
    backends::throttle::{
        Subject, Target, TrafficType,
        manager::MAINTENANCE_INTERVAL,
        processes::{Processes, belongs},
    },
    process::ProcessId,
    sys::proc_fd,
};

/// One limited target.
#[derive(Debug)]
struct Entry {
    number: u32,
    traffic: TrafficType,
    /// As they were asked for.
    limits: BTreeMap<Direction, Asked>,
    /// By what the kernel knows it.
    place: Place,
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
        self.by_subject.get(subject)?.limits.get(&direction).map(|asked| asked.rate_bps)
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
        asked: Asked,
    ) -> anyhow::Result<()> {
        let subject = &target.subject;
        let is_new = !self.by_subject.contains_key(subject);
        if is_new {
            let place = Place::of(engine, subject)?;
            let number = self.numbers.take().context("there are too many limits")?;
            engine.limits.clear(number)?;
            let entry = Entry { number, traffic: target.traffic, limits: BTreeMap::new(), place };
            self.by_subject.insert(subject.clone(), entry);
        }
        let Some(entry) = self.by_subject.get_mut(subject) else { return Ok(()) };
        entry.limits.insert(direction, asked);
        let written = entry.write(engine, target, direction);
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
        // As long as the kernel has it, it can be taken away again.
        if entry.limits.contains_key(&direction) {
            engine.limits.set(entry.number, direction, None)?;
            entry.limits.remove(&direction);
        }
        let number = entry.number;
        if entry.limits.is_empty()
            && let Some(entry) = self.by_subject.remove(subject)
        {
            self.settle(engine, &entry.place)?;
            if matches!(entry.place, Place::Cgroup(..)) {
                engine.limits.places.forget_former_cgroups(number, None)?;
            }
            self.leave(engine, number)?;
            self.announce(engine)?;
            self.numbers.give_back(number);
        }
        Ok(())
    }

    /// Takes every limit of one direction away that is held by these means; what another backend holds stays.
    ///
    /// # Errors
    /// The first one that the kernel refuses; the others are gone.
    pub fn remove_all(
        &mut self,
        engine: &mut Engine,
        direction: Direction,
        means: Means,
    ) -> anyhow::Result<()> {
        let is_held = |entry: &Entry| entry.limits.get(&direction).is_some_and(|asked| asked.means == means);
        let held = self.by_subject.iter().filter(|(_, entry)| is_held(entry));
        let subjects: Vec<_> = held.map(|(subject, _)| subject.clone()).collect();
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

    /// IP bytes that wait in queues of interfaces for an upload limit.
    ///
    /// # Errors
    /// When the host has no clock.
    pub fn waiting_bytes(&self, engine: &Engine, subject: &Subject) -> anyhow::Result<u64> {
        let Some(entry) = self.by_subject.get(subject) else { return Ok(0) };
        let limit = entry.limits.get(&Direction::Upload);
        limit.map_or(Ok(0), |asked| engine.limits.waiting_bytes(entry.number, asked.rate_bps))
    }

    /// Makes whoever is there already a member, and the owner of the sockets that it has open.
    fn join(&self, engine: &mut Engine, target: &Target) -> anyhow::Result<()> {
        if let Some(entry) = self.by_subject.get(&target.subject) {
            self.settle(engine, &entry.place)?;
        }
        self.announce(engine)?;
        if let Subject::Process(id) | Subject::Descendants(id) = target.subject {
            let others = if self.by_subject.len() > 1 { Processes::now()? } else { Processes::default() };
            self.assign(engine, id, &others)?;
            engine.adopt(id).with_context(|| format!("cannot take hold of the open sockets of {target}"))?;
        }
        // Twice: what was forked during the first pass, of a process that it had not reached, is found in the second.
        let passes = match target.subject {
            Subject::Descendants(_) | Subject::Program(_) => 2,
            Subject::Process(_) | Subject::Cgroup(_) | Subject::User(_) => 0,
        };
        for _ in 0..passes {
            self.assign_all(engine, target)?;
        }
        // Also for a process: it may be handed a socket that another one has had open for long.
        engine.adopt_the_rest();
        Ok(engine.limits.memberships_have_changed()?)
    }

    fn assign_all(&self, engine: &mut Engine, target: &Target) -> anyhow::Result<()> {
        let is_program = matches!(target.subject, Subject::Program(_));
        // Most programs are executed by nobody: then there is no need to look at whose child everybody is.
        if is_program && !proc_fd::pids()?.any(|pid| belongs(pid, &target.subject)) {
            return Ok(());
        }
        let processes = Processes::now()?;
        for id in processes.of(&target.subject) {
            self.assign(engine, id, &processes)?;
            if !is_program && let Err(error) = engine.adopt(id) {
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
        let membership = Membership { own, inherited, by_program, ..Membership::default() };
        if membership.target() == 0 {
            return Ok(absent_is_fine(engine.limits.members.remove(&key))?);
        }
        let written = engine.limits.members.insert(key, membership, 0);
        written.context("too many limited processes, or no memory for one")
    }

    /// Ends every membership of a target: who was a member is held by the next limit that covers it, if there is one.
    fn leave(&self, engine: &mut Engine, number: u32) -> anyhow::Result<()> {
        // Until there is none: a member may fork meanwhile.
        loop {
            let members = engine.limits.members_of(number)?;
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
        Ok(engine.announce_limits(self.by_subject.values().map(|entry| &entry.place))?)
    }

    /// Has the kernel know a place by the targets that there are now.
    fn settle(&self, engine: &mut Engine, place: &Place) -> anyhow::Result<()> {
        let places = self.by_subject.values().map(|entry| (&entry.place, entry.number));
        engine.limits.places.settle(place, &places)
    }

    /// Looks after limits: reads the interfaces anew, since their queues may be others, follows programs and cgroups that were replaced by others of the same name, and forgets members
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
        engine.refresh_network()?;
        self.forget_ended_members(engine);
        // One that is not there now may come again.
        let places = self.by_subject.iter().filter_map(|(subject, entry)| {
            let now = Place::of(engine, subject).ok()?;
            (now != entry.place).then(|| (subject.clone(), now))
        });
        let moved: Vec<_> = places.collect();
        for (subject, now) in &moved {
            let Some(entry) = self.by_subject.get_mut(subject) else { continue };
            let number = entry.number;
            let before = std::mem::replace(&mut entry.place, now.clone());
            self.settle(engine, &before)?;
            self.settle(engine, now)?;
            if let Place::Cgroup(id, _) = now {
                engine.limits.places.forget_former_cgroups(number, Some(*id))?;
            }
        }
        if !moved.is_empty() {
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

impl Entry {
    /// Writes a limit that has been set, and the other direction's where that is for other traffic from here on.
    fn write(&mut self, engine: &mut Engine, target: &Target, set: Direction) -> anyhow::Result<()> {
        let tgid = target.subject.process().map_or(0, |id| tagger::key(id).tgid());
        let is_other_traffic = self.traffic != target.traffic;
        self.traffic = target.traffic;
        for (&direction, &asked) in &self.limits {
            if direction != set && !is_other_traffic {
                continue;
            }
            // Nobody was promised anything by the change of the other one.
            let grace = if direction == set { asked.leniency.grace } else { Duration::ZERO };
            let asked = Asked { leniency: Leniency { grace, ..asked.leniency }, ..asked };
            let limit = Limit { asked, traffic: self.traffic, tgid };
            engine.limits.set(self.number, direction, Some(limit))?;
        }
        Ok(())
    }
}
