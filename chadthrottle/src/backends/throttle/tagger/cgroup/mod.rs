//! Tags by membership, where neither packets nor sockets can be tagged: the processes of a target are moved to cgroups of
//! ours, and a table of our own gives what their sockets send a priority.
//!
//! - Each of those cgroups is below the one that its processes were in, so that the limits of that one (of memory, of
//!   CPU) go on counting for them, and where they belong is said by where they are: who moves back goes one up.
//! - Which packets are a cgroup's is said by the socket: in cgroup v2 by the one that it was made in, so that sockets which
//!   are open already are not covered; with `net_cls` by the one that its process is in now.
//! - What a process starts is in its cgroup by itself. Whom the target does not cover is sent back within 20 ms.
//! - Cgroups outlive us. They are noted before they are made, and the guard, the next start or `chadthrottle cleanup`
//!   move everybody back.

mod groups;
mod journal;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

pub(in crate::backends::throttle) use journal::of;
pub use journal::{Leftover, leftovers};

use self::{
    groups::{Group, tree},
    journal::{PREFIX, next_number},
};
use super::{Tag, TagError, Tagger, can_be_held};
use crate::{
    backends::{
        BackendError,
        throttle::{
            Subject, Target,
            flow::{members::Members, rank, refused},
            guard::Guard,
            notes::Noted,
        },
    },
    process::ProcessId,
    sys::{
        cgroup_place::{Kind, Tree},
        cpu_time,
        nft::{Chain, Expression, NewRule, Table},
        proc_children::adopt_orphans,
    },
};

/// How often new processes are looked for, where that costs no more than a hundredth of a CPU.
const SCAN: Duration = Duration::from_millis(20);
const LONGEST_SCAN: Duration = Duration::from_millis(500);
const SHARE: u32 = 100;
/// What all that is sent goes through, just before the rules of the backend that reads priorities.
const SENT: Chain<'_> = Chain { name: "sent", hooked_at: Some(i32::MAX - 1) };
/// The first process of all stays where it is.
const FIRST: i32 = 1;

/// Tags by cgroup. Its thread runs while there are tags.
#[derive(Debug)]
pub struct CgroupTagger(Arc<Engine>);

#[derive(Debug)]
struct Engine {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    us: ProcessId,
    /// This tagger's number, which its note has.
    number: u32,
    targets: BTreeMap<Subject, Tagged>,
    /// Gives priorities, as long as there are cgroups.
    table: Option<Table>,
    noted: Option<Noted>,
    /// Those of former targets that could not be dissolved.
    left: Vec<Group>,
    runs: bool,
}

/// A target with its tag.
#[derive(Debug)]
struct Tagged {
    members: Members,
    priority: u32,
    groups: Vec<Group>,
    /// Processes that cannot be moved, which is told once.
    stuck: HashSet<i32>,
    next_scan: Instant,
}

impl CgroupTagger {
    /// How it tags, in a word or two.
    const V2: &str = "cgroup v2 membership (processes are moved)";
    const NET_CLS: &str = "net_cls membership (processes are moved)";

    /// What it would be called here. None where it cannot work.
    #[must_use]
    pub fn here() -> Option<&'static str> {
        tree().map(|tree| name(&tree))
    }

    /// Whether the one of that name covers connections that were open before. None where it is the name of another tagger.
    #[must_use]
    pub fn covers_open(name: &str) -> Option<bool> {
        match name {
            Self::V2 => Some(false),
            Self::NET_CLS => Some(true),
            _ => None,
        }
    }

    /// One that moves nobody yet.
    ///
    /// # Errors
    /// When no tree of cgroups is mounted that can be used, with the way out.
    pub fn new() -> io::Result<Self> {
        let us = ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)?;
        let tree = tree().ok_or_else(|| {
            io::Error::other(
                "neither cgroup v2 nor net_cls is mounted as a whole here; mount one (`mount -t cgroup2 none \
                 /sys/fs/cgroup/unified`), or run chadthrottle outside of the container",
            )
        })?;
        let state = State {
            tree,
            us,
            number: next_number(),
            targets: BTreeMap::new(),
            table: None,
            noted: None,
            left: Vec::new(),
            runs: false,
        };
        Ok(Self(Arc::new(Engine { state: Mutex::new(state), changed: Condvar::new() })))
    }
}

const fn name(tree: &Tree) -> &'static str {
    match tree.kind {
        Kind::V2 => CgroupTagger::V2,
        Kind::NetCls => CgroupTagger::NET_CLS,
    }
}

impl Tagger for CgroupTagger {
    fn name(&self) -> &'static str {
        name(&self.0.lock().tree)
    }

    fn check(&self, backend: &'static str, target: &Target) -> Result<(), BackendError> {
        can_be_held(backend, target)
    }

    fn tag(&mut self, target: &Target, tag: Tag) -> Result<(), TagError> {
        let subject = &target.subject;
        if matches!(subject, Subject::Descendants(_)) {
            adopt_orphans()?;
        }
        let mut state = self.0.lock();
        let Some(priority) = tag.priority else {
            return Err(io::Error::other("membership gives packets a priority, and no mark").into());
        };
        // Of another priority than before it begins anew: the cgroups of net_cls have it for their number.
        if state.targets.get(subject).is_some_and(|tagged| tagged.priority != priority) {
            state.remove(subject).unwrap_or_else(|error| log::error!("{error}"));
        }
        if !state.targets.contains_key(subject) {
            let tagged = Tagged::new(target, priority).map_err(|error| refused(target, &error))?;
            state.targets.insert(subject.clone(), tagged);
            // Leaves to others who is theirs.
            state.due(Instant::now());
            if let Err(error) = state.step(subject) {
                state.remove(subject).unwrap_or_else(|error| log::error!("{error}"));
                return Err(TagError::Kernel(error));
            }
        }
        if !state.runs {
            let engine = Arc::clone(&self.0);
            thread::Builder::new().name("tagger".into()).spawn(move || engine.run())?;
            state.runs = true;
        }
        self.0.changed.notify_all();
        Ok(())
    }

    fn untag(&mut self, subject: &Subject) -> io::Result<()> {
        let removed = self.0.lock().remove(subject);
        self.0.changed.notify_all();
        removed
    }

    /// What could not be removed is tried again.
    fn maintain(&mut self) -> Result<(), BackendError> {
        let mut state = self.0.lock();
        // It was told when it was to go.
        let _ = if state.left.is_empty() { Ok(()) } else { state.give_up(Vec::new(), &[], 0) };
        Ok(())
    }
}

impl Drop for CgroupTagger {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let all: Vec<Subject> = state.targets.keys().cloned().collect();
        for subject in all {
            state.remove(&subject).unwrap_or_else(|error| log::error!("{error}"));
        }
        self.0.changed.notify_all();
    }
}

impl Engine {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until no tag is left.
    fn run(&self) {
        let mut state = self.lock();
        while !state.targets.is_empty() {
            let due: Vec<Subject> = state.due(Instant::now());
            for subject in due {
                if let Err(error) = state.step(&subject) {
                    log::warn!("not all of {subject} can be moved to a cgroup: {error}");
                }
            }
            let next = state.targets.values().map(|tagged| tagged.next_scan).min();
            let wait = next.map_or(SCAN, |next| next.saturating_duration_since(Instant::now()));
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.runs = false;
    }
}

impl State {
    /// Who is to be looked at, the most specific first.
    fn due(&mut self, now: Instant) -> Vec<Subject> {
        let mut order: Vec<_> = self.targets.iter_mut().collect();
        order.sort_by_key(|(subject, _)| rank(subject));
        let mut taken = HashSet::new();
        let mut due = Vec::new();
        for (subject, tagged) in order {
            tagged.members.leave_out(&taken);
            taken.extend(tagged.members.iter().map(|member| member.id.pid));
            if tagged.next_scan <= now {
                due.push(subject.clone());
            }
        }
        due
    }

    /// Moves who is to be moved of a target. Where one cannot be, that is told once.
    fn step(&mut self, subject: &Subject) -> io::Result<()> {
        let before = cpu_time::of_this_thread();
        let Some(mut tagged) = self.targets.remove(subject) else { return Ok(()) };
        tagged.members.refresh();
        let done = self.move_all(subject, &mut tagged);
        let pause = cpu_time::of_this_thread().saturating_sub(before).saturating_mul(SHARE);
        tagged.next_scan = Instant::now() + pause.clamp(SCAN, LONGEST_SCAN);
        self.targets.insert(subject.clone(), tagged);
        done
    }

    fn move_all(&mut self, subject: &Subject, tagged: &mut Tagged) -> io::Result<()> {
        let pids: HashSet<i32> = tagged.members.iter().map(|member| member.id.pid).collect();
        let mut result = Ok(());
        let stays = [self.us.pid, FIRST];
        for &pid in pids.iter().filter(|pid| !stays.contains(pid)) {
            if let Err(error) = self.hold(tagged, pid)
                && tagged.stuck.insert(pid)
            {
                let error = io::Error::other(format!("process {pid}: {error}"));
                match subject {
                    // Threads of the kernel among them.
                    Subject::User(_) => log::info!("not moved to a cgroup: {error}"),
                    _ => result = Err(error),
                }
            }
        }
        // What a process starts belongs to it there, also before it is seen.
        if !matches!(subject, Subject::Descendants(_)) {
            for group in &tagged.groups {
                group.send_others_away(subject, &pids);
            }
        }
        let (empty, kept) = std::mem::take(&mut tagged.groups).into_iter().partition(Group::is_empty);
        tagged.groups = kept;
        if !empty.is_empty() {
            self.give_up(empty, &tagged.groups, tagged.priority)
                .unwrap_or_else(|error| log::warn!("an empty cgroup stays: {error}"));
        }
        result
    }

    /// Sees to it that a process is in a cgroup of its target.
    fn hold(&mut self, tagged: &mut Tagged, pid: i32) -> io::Result<()> {
        // It has ended.
        let Some(in_tree) = self.tree.path_of(pid) else { return Ok(()) };
        if tagged.groups.iter().any(|group| group.in_tree == in_tree) {
            return Ok(());
        }
        let around = Group::around(&in_tree);
        if let Some(group) = tagged.groups.iter().find(|group| group.in_tree.parent() == Some(around)) {
            return group.take(pid);
        }
        let path = around.join(format!("{PREFIX}{}-{}-{}", self.us.pid, self.us.start_time, next_number()));
        let mut noted = self.noted(&tagged.groups);
        noted.push(Group::noted(&self.tree, &path));
        journal::note(&mut self.noted, self.number, &noted)?;
        tagged.groups.push(Group::make(&self.tree, &path, tagged.priority)?);
        // The rule first, so that no socket is made meanwhile that has none.
        self.set_rules(&tagged.groups, tagged.priority)?;
        tagged.groups.last().map_or(Ok(()), |group| group.take(pid))
    }

    /// All cgroups of targets, what is left of former ones, and these, as they are noted.
    fn noted(&self, others: &[Group]) -> Vec<journal::Moved> {
        let groups = self.targets.values().flat_map(|tagged| &tagged.groups).chain(&self.left).chain(others);
        groups.map(|group| Group::noted(&self.tree, &group.in_tree)).collect()
    }

    /// Has a table with a rule for each cgroup of targets, and for these. The one before is there until then.
    fn set_rules(&mut self, others: &[Group], priority: u32) -> io::Result<()> {
        let of_targets = self
            .targets
            .values()
            .flat_map(|tagged| tagged.groups.iter().map(|group| (group, tagged.priority)));
        let all = of_targets.chain(others.iter().map(|group| (group, priority)));
        let expressions: Vec<_> =
            all.map(|(group, priority)| [group.known_by, Expression::SetPriority(priority)]).collect();
        if expressions.is_empty() {
            self.table = None;
            return Ok(());
        }
        let rules: Vec<NewRule<'_>> = expressions
            .iter()
            .map(|expressions| NewRule { chain: SENT.name, comment: "", expressions })
            .collect();
        let name = format!("chadthrottle_tags_{}_{}", self.us.pid, next_number());
        let table = Table::create(&name, &[SENT], &rules).map_err(|refusal| {
            io::Error::other(format!(
                "the kernel takes no rule for cgroups (CONFIG_NFT_SOCKET, CONFIG_CGROUP_NET_CLASSID): {refusal}"
            ))
        })?;
        self.table = Some(table);
        Ok(())
    }

    /// Dissolves these cgroups and what was left before, and forgets them. What cannot be dissolved stays noted.
    fn give_up(&mut self, groups: Vec<Group>, kept: &[Group], priority: u32) -> io::Result<()> {
        let mut result = Ok(());
        let former = std::mem::take(&mut self.left);
        for group in groups.into_iter().chain(former) {
            if let Err(error) = group.dissolve() {
                result = Err(io::Error::other(format!("{}: {error}", group.in_tree.display())));
                self.left.push(group);
            }
        }
        result = result.and(self.set_rules(kept, priority));
        let noted = self.noted(kept);
        if !noted.is_empty() {
            result = result.and(journal::note(&mut self.noted, self.number, &noted));
        }
        if let Some(note) = &mut self.noted {
            note.is_left = !self.left.is_empty();
        }
        if noted.is_empty() {
            self.noted = None;
        }
        result
    }

    /// Moves everybody of a target back.
    fn remove(&mut self, subject: &Subject) -> io::Result<()> {
        let Some(tagged) = self.targets.remove(subject) else { return Ok(()) };
        let given_up = self.give_up(tagged.groups, &[], 0);
        // Made and then not taken in.
        if self.targets.is_empty() && self.left.is_empty() {
            self.noted = None;
        }
        given_up.map_err(|error| io::Error::other(format!("{subject} is not all back: {error}")))
    }
}

impl Tagged {
    fn new(target: &Target, priority: u32) -> io::Result<Self> {
        let guard = Guard::get().ok().map(|guard| guard.pid());
        Ok(Self {
            members: Members::listed(target, guard)?,
            priority,
            groups: Vec::new(),
            stuck: HashSet::new(),
            next_scan: Instant::now(),
        })
    }
}
