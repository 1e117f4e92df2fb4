//! Tags by socket option: `SO_PRIORITY` and `SO_MARK` on the sockets of a target, which `pidfd_getfd(2)` lets us take
//! hold of.
//!
//! A socket is found within 10 ms of being opened; what it sends before carries no tag. What the application sets
//! itself meanwhile (`IP_TOS` sets the priority too) is replaced within 200 ms, remembered, and put back at the end. A mark
//! that is somebody else's is never replaced, since routes hang on it: a VPN program's packets would go back into its own
//! tunnel. Its socket is left out.

mod socket;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    os::fd::RawFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use self::socket::{Set, Socket, original};
use super::{Tag, TagError, Tagger, can_be_held};
use crate::{
    backends::BackendError,
    backends::throttle::{
        Subject, Target,
        flow::{members::Members, rank, refused},
        guard::Guard,
    },
    sys::{
        cpu_time,
        proc_children::adopt_orphans,
        socket_tag::{Field, TaggedSocket},
    },
};

/// How often new sockets are looked for, and how often those that are known are looked at, where that costs little.
const SCAN: Duration = Duration::from_millis(10);
const CHECK: Duration = Duration::from_millis(200);
/// Of one CPU, each takes no more than a hundredth.
const SHARE: u32 = 100;
const LONGEST_SCAN: Duration = Duration::from_millis(200);
const LONGEST_CHECK: Duration = Duration::from_secs(2);

/// Tags on sockets. Its thread runs while there are tags.
#[derive(Debug, Default)]
pub struct SocketTagger(Arc<Engine>);

#[derive(Debug, Default)]
struct Engine {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    targets: BTreeMap<Subject, Tagged>,
    runs: bool,
}

/// A target with its tag.
#[derive(Debug)]
struct Tagged {
    /// What it is called.
    name: String,
    /// Whether it was said that sockets of it are left out.
    has_told: bool,
    members: Members,
    tag: Tag,
    /// By inode.
    sockets: HashMap<u32, Socket>,
    /// Inodes of what sends nothing by an interface, or has a mark that is not ours.
    others: HashSet<u32>,
    next_scan: Instant,
    next_check: Instant,
    /// Takes tags away when we are killed.
    guard: Option<Guard>,
}

/// What a socket turns out to be.
enum Look {
    Tagged(Socket),
    /// There is nothing to tag.
    Nothing,
    /// It has a mark that is not ours.
    Marked(u32),
}

impl SocketTagger {
    /// How it tags, in a word or two.
    pub const NAME: &str = "socket options";
}

impl Tagger for SocketTagger {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn check(&self, backend: &'static str, target: &Target) -> Result<(), BackendError> {
        can_be_held(backend, target)
    }

    fn tag(&mut self, target: &Target, tag: Tag) -> Result<(), TagError> {
        if matches!(target.subject, Subject::Descendants(_)) {
            adopt_orphans()?;
        }
        let mut state = self.0.lock();
        if !state.targets.contains_key(&target.subject) {
            let tagged = Tagged::new(target).map_err(|error| refused(target, &error))?;
            state.targets.insert(target.subject.clone(), tagged);
            state.share_out();
        }
        if let Some(tagged) = state.targets.get_mut(&target.subject) {
            tagged.set(tag);
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
        let mut state = self.0.lock();
        // What is dropped puts its options back.
        state.targets.remove(subject);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl Drop for SocketTagger {
    fn drop(&mut self) {
        self.0.lock().targets.clear();
        self.0.changed.notify_all();
    }
}

impl State {
    /// Leaves each process to the most specific of the targets that cover it, as flow control does.
    fn share_out(&mut self) {
        let mut order: Vec<_> = self.targets.iter_mut().collect();
        order.sort_by_key(|(subject, _)| rank(subject));
        let mut taken = HashSet::new();
        for (_, tagged) in order {
            tagged.leave_out(&taken);
            taken.extend(tagged.members.iter().map(|member| member.id.pid));
        }
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
            state.share_out();
            let count = u32::try_from(state.targets.len()).unwrap_or(u32::MAX);
            let next = state.targets.values_mut().map(|tagged| tagged.step(count)).min();
            let wait = next.map_or(SCAN, |next| next.saturating_duration_since(Instant::now()));
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.runs = false;
    }
}

impl Tagged {
    fn new(target: &Target) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            name: target.to_string(),
            has_told: false,
            members: Members::new(target, None)?,
            tag: Tag::default(),
            sockets: HashMap::new(),
            others: HashSet::new(),
            next_scan: now,
            next_check: now,
            guard: guard(),
        })
    }

    /// Sets or changes the tag; the sockets that are open have it when this returns.
    fn set(&mut self, tag: Tag) {
        if tag != self.tag {
            self.restore();
        }
        self.tag = tag;
        self.scan(true);
    }

    /// Does what is due, and says when to come again. With more targets each comes more rarely.
    fn step(&mut self, targets: u32) -> Instant {
        let now = Instant::now();
        let timed = |work: &mut dyn FnMut()| {
            let before = cpu_time::of_this_thread();
            work();
            cpu_time::of_this_thread().saturating_sub(before).saturating_mul(SHARE.saturating_mul(targets))
        };
        if now >= self.next_scan {
            let pause = timed(&mut || {
                self.members.refresh();
                self.scan(false);
            });
            self.next_scan = now + pause.clamp(SCAN, LONGEST_SCAN.saturating_mul(targets));
        }
        if now >= self.next_check {
            let pause = timed(&mut || {
                self.scan(true);
                self.check();
            });
            self.next_check = now + pause.clamp(CHECK, LONGEST_CHECK.saturating_mul(targets));
        }
        self.next_scan.min(self.next_check)
    }

    /// Leaves these processes, and the sockets that nobody else has, to other targets.
    fn leave_out(&mut self, taken: &HashSet<i32>) {
        let is_left = |socket: &Socket| socket.holders.iter().all(|(pid, _)| taken.contains(pid));
        for (_, socket) in self.sockets.extract_if(|_, socket| is_left(socket)) {
            socket.restore(&self.members, self.guard.as_ref());
        }
        self.members.leave_out(taken);
    }

    /// Looks for sockets that are new, and forgets those that are gone. Unless they are looked at `afresh`, a descriptor
    /// that was there the last time is taken for what it was.
    fn scan(&mut self, afresh: bool) {
        let open = self.members.sockets(afresh);
        self.others.retain(|inode| open.contains_key(inode));
        for (_, socket) in self.sockets.extract_if(|inode, _| !open.contains_key(inode)) {
            socket.leave_to(self.guard.as_ref());
        }
        for (inode, holders) in open {
            if let Some(socket) = self.sockets.get_mut(&inode) {
                socket.holders = holders;
            } else if !self.others.contains(&inode) {
                // Closed meanwhile, or no descriptor is left for us: the next scan will see.
                let Ok(found) = self.look_at(inode, holders) else { continue };
                match found {
                    Look::Tagged(socket) => drop(self.sockets.insert(inode, socket)),
                    Look::Nothing => drop(self.others.insert(inode)),
                    Look::Marked(mark) => {
                        self.others.insert(inode);
                        self.tell_of(mark);
                    }
                }
            }
        }
    }

    /// Says once that sockets are left out.
    fn tell_of(&mut self, mark: u32) {
        if !std::mem::replace(&mut self.has_told, true) {
            log::warn!(
                "{}: a socket with a mark of its own ({mark:#x}) keeps that and is not limited, and so does any other that has \
                 one",
                self.name
            );
        }
    }

    /// Tags a new socket.
    fn look_at(&self, inode: u32, holders: Vec<(i32, RawFd)>) -> io::Result<Look> {
        let found = holders.iter().find_map(|&(pid, fd)| self.members.get(pid)?.duplicate_any(fd).ok());
        let Some(duplicate) = found else { return Err(io::ErrorKind::NotFound.into()) };
        let Some(duplicate) = TaggedSocket::new(duplicate) else { return Ok(Look::Nothing) };
        let cookie = duplicate.cookie()?;
        let mut socket = Socket { cookie, inode, holders, options: Vec::new() };
        let wanted = [(Field::Priority, self.tag.priority), (Field::Mark, self.tag.mark)];
        for (field, value) in wanted.into_iter().filter_map(|(field, value)| Some((field, value?))) {
            let found = duplicate.field(field)?;
            let Some(original) = original(field, found) else { return Ok(Look::Marked(found)) };
            socket.options.push(Set { field, value, original });
        }
        // Before it is done, so that it is undone whenever we are killed.
        socket.tell(self.guard.as_ref(), socket.originals());
        for option in &socket.options {
            duplicate.set_field(option.field, option.value)?;
        }
        Ok(Look::Tagged(socket))
    }

    /// Sets again what the application has set itself, but for a mark.
    fn check(&mut self) {
        let has_lost_guard = self.guard.as_ref().is_some_and(|guard| !guard.is_there());
        if has_lost_guard {
            self.guard = guard();
        }
        let Self { members, sockets, guard, .. } = self;
        let mut marked = None;
        for socket in sockets.values_mut() {
            let Some(duplicate) = socket.duplicate(members) else { continue };
            let known = socket.originals();
            socket.options.retain_mut(|option| {
                let Ok(value) = duplicate.field(option.field) else { return true };
                if value == option.value {
                    return true;
                }
                let Some(original) = original(option.field, value) else {
                    marked = Some(value);
                    return false;
                };
                if duplicate.set_field(option.field, option.value).is_ok() {
                    option.original = original;
                }
                true
            });
            if has_lost_guard || socket.originals() != known {
                socket.tell(guard.as_ref(), socket.originals());
            }
        }
        if let Some(mark) = marked {
            self.tell_of(mark);
        }
    }

    /// Puts everything back, but for what the application has set itself meanwhile.
    fn restore(&mut self) {
        for (_, socket) in self.sockets.drain() {
            socket.restore(&self.members, self.guard.as_ref());
        }
    }
}

/// The guard, where one starts: tags alone limit nobody, so that without one there is nothing to be refused.
fn guard() -> Option<Guard> {
    Guard::get().inspect_err(|error| log::debug!("tags are not guarded: {error}")).ok()
}

impl Drop for Tagged {
    fn drop(&mut self) {
        self.restore();
    }
}
