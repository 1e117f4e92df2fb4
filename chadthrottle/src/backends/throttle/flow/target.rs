//! One target: its processes, their sockets, and the controllers of its limits.

mod search;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Achievable, Behind, Counted, Direction, Passed,
    control::{Open, Pace},
    limit::Limit,
    members::Members,
    setting::{apply, restore_pacing, restore_window},
    socket::{ESTABLISHED, Socket},
};
use crate::{
    backends::throttle::{Subject, Target, guard::Guard},
    sys::cpu_time,
};

/// How often all sockets are looked at, where that costs little: it takes no more than a thirtieth of one CPU.
const TICK: Duration = Duration::from_millis(50);
const LONGEST_TICK: Duration = Duration::from_millis(500);
const TICK_SHARE: u32 = 30;
/// Idle sockets are looked at in every so-manieth tick; where there are more than this, more rarely.
const IDLE_TICKS: u64 = 4;
const IDLE_AT_ONCE: u64 = 64;

/// What flow control is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It holds limits by itself.
    Alone,
    /// Something behind it holds what it cannot, and drops what is over.
    InFront {
        /// It also says how high to aim, so that what was missed is not made up for.
        steers: bool,
    },
}

/// What whoever is behind has seen of a target, where there is somebody.
pub(super) type Meter<'a> = dyn Fn(&Subject, Direction) -> Option<Behind> + 'a;

/// A target with its limits.
#[derive(Debug)]
pub(super) struct Limited {
    target: Target,
    members: Members,
    counted: Counted,
    place: Place,
    /// Puts options back when we are killed.
    guard: Option<Arc<Guard>>,
    start: Instant,
    /// By inode.
    sockets: HashMap<u32, Socket>,
    /// Inodes of descriptors that are nothing to us.
    others: HashSet<u32>,
    upload: Option<Limit<Pace>>,
    download: Option<Limit<Open>>,
    /// When a socket was last seen that was not there before, or had just begun.
    last_new: Instant,
    /// When all descriptors were last asked what they are, in seconds.
    looked_afresh: f64,
    ticks: u64,
    last_tick: Instant,
    next_tick: Instant,
    next_scan: Instant,
}

impl Limited {
    /// Takes hold of a target. Nothing is limited yet.
    ///
    /// # Errors
    /// When it has ended, or is not ours to take hold of (`EPERM`).
    pub(super) fn new(
        target: &Target,
        counted: &Counted,
        place: Place,
        guard: Option<Arc<Guard>>,
    ) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            target: target.clone(),
            members: Members::new(target, guard.as_ref().map(|guard| guard.pid()))?,
            counted: counted.clone(),
            place,
            guard,
            start: now,
            sockets: HashMap::new(),
            others: HashSet::new(),
            upload: None,
            download: None,
            last_new: now,
            looked_afresh: 0.0,
            ticks: 0,
            last_tick: now,
            next_tick: now,
            next_scan: now,
        })
    }

    /// Changes which connections count.
    pub(super) fn count(&mut self, counted: &Counted) {
        if self.counted == *counted {
            return;
        }
        self.counted = counted.clone();
        let Self { sockets, others, members, guard, upload, download, .. } = self;
        others.clear();
        sockets.retain(|_, socket| {
            let counts = socket.counts(counted);
            if !counts {
                restore_pacing(socket, members, guard.as_deref());
                restore_window(socket, members, guard.as_deref());
                forget(socket, upload, download);
            }
            counts
        });
    }

    /// Leaves these processes, and the sockets that nobody else has, to other targets.
    pub(super) fn leave_out(&mut self, taken: &HashSet<i32>) {
        let Self { sockets, members, guard, upload, download, .. } = self;
        sockets.retain(|_, socket| {
            let stays = socket.holders.iter().any(|(pid, _)| !taken.contains(pid));
            if !stays {
                restore_pacing(socket, members, guard.as_deref());
                restore_window(socket, members, guard.as_deref());
                forget(socket, upload, download);
            }
            stays
        });
        self.members.leave_out(taken);
    }

    /// The processes that it holds.
    pub(super) fn processes(&self) -> impl Iterator<Item = i32> {
        self.members.iter().map(|member| member.id.pid)
    }

    /// Sets or changes a limit; it is in force when this returns. A socket that is open and busy tells whether it can
    /// be held.
    pub(super) fn set(&mut self, direction: Direction, limit: u64) -> Achievable {
        // Sockets tell what of an upload was dropped behind; what of a download, nobody.
        let is_capped = match self.place {
            Place::Alone => false,
            Place::InFront { steers } => steers || direction == Direction::Download,
        };
        match direction {
            Direction::Upload => Limit::set(&mut self.upload, limit, is_capped),
            Direction::Download => Limit::set(&mut self.download, limit, is_capped),
        }
        self.scan();
        let Self { sockets, upload, download, .. } = self;
        for socket in sockets.values() {
            admit(socket, upload, download);
        }
        self.apply();
        match direction {
            Direction::Upload => Achievable::Yes,
            Direction::Download => self.download.as_ref().map_or(Achievable::Yes, Limit::achievable),
        }
    }

    /// Changes a limit, if there is one; in force with the next tick.
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc"))]
    pub(super) fn adjust(&mut self, direction: Direction, limit: u64) {
        match (direction, &mut self.upload, &mut self.download) {
            (Direction::Upload, Some(old), _) => old.control.set_limit(limit),
            (Direction::Download, _, Some(old)) => old.control.set_limit(limit),
            _ => {}
        }
    }

    /// Takes a limit away and puts the options of every socket back. True when none is left.
    pub(super) fn remove(&mut self, direction: Direction) -> bool {
        let Self { sockets, members, guard, .. } = self;
        let guard = guard.as_deref();
        match direction {
            Direction::Upload if self.upload.take().is_some() => {
                for socket in sockets.values_mut() {
                    restore_pacing(socket, members, guard);
                }
            }
            Direction::Download if self.download.take().is_some() => {
                for socket in sockets.values_mut() {
                    restore_window(socket, members, guard);
                }
            }
            _ => {}
        }
        self.is_free()
    }

    /// The limit in IP bytes a second.
    pub(super) fn limit(&self, direction: Direction) -> Option<u64> {
        match direction {
            Direction::Upload => self.upload.as_ref().map(|limit| limit.control.limit()),
            Direction::Download => self.download.as_ref().map(|limit| limit.control.limit()),
        }
    }

    /// Goes on without the guard: it has ended.
    pub(super) fn lose_guard(&mut self) {
        self.guard = None;
    }

    /// Whether no limit is left.
    pub(super) const fn is_free(&self) -> bool {
        self.upload.is_none() && self.download.is_none()
    }

    /// Whether it has connections that are held.
    pub(super) fn has_connections(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// Bytes that were written to its sockets and not sent yet, when they were last read.
    pub(super) fn held_back(&self) -> Option<u64> {
        self.upload.as_ref()?;
        Some(self.sockets.values().map(|socket| u64::from(socket.info().unsent)).sum())
    }

    /// What has passed under it.
    pub(super) fn passed(&self, direction: Direction) -> Passed {
        let passed = match direction {
            Direction::Upload => self.upload.as_ref().map(Limit::passed),
            Direction::Download => self.download.as_ref().map(Limit::passed),
        };
        passed.unwrap_or_default()
    }

    /// Does what is due, and says when something is again. The time that may be spent is shared by so many `targets`.
    pub(super) fn step(&mut self, targets: u32, behind: &Meter<'_>) -> Instant {
        self.scan_if_due(targets);
        let now = Instant::now();
        if now >= self.next_tick {
            let before = cpu_time::of_this_thread();
            self.tick(now, behind);
            let took = cpu_time::of_this_thread().saturating_sub(before);
            self.next_tick = now + TICK.max(took * TICK_SHARE * targets).min(LONGEST_TICK * targets);
        }
        self.next_scan.min(self.next_tick)
    }

    /// Reads what every socket has done, and sets what it may do.
    fn tick(&mut self, now: Instant, behind: &Meter<'_>) {
        let dt = now.duration_since(self.last_tick).as_secs_f64().max(1e-3);
        self.last_tick = now;
        self.ticks += 1;
        let at = self.start.elapsed().as_secs_f64();
        let idle = self.sockets.values().filter(|socket| self.is_idle(socket)).count() as u64;
        let every = IDLE_TICKS.max(idle / IDLE_AT_ONCE);
        let (mut sent, mut received, mut stuck) = (Vec::new(), Vec::new(), Vec::new());
        let due: Vec<u32> = self
            .sockets
            .iter()
            .filter(|(inode, socket)| {
                !self.is_idle(socket) || (self.ticks + u64::from(**inode)).is_multiple_of(every)
            })
            .map(|(inode, _)| *inode)
            .collect();
        for inode in &due {
            let Some(socket) = self.sockets.get_mut(inode) else { continue };
            if let Some((outgoing, incoming)) =
                socket.with(&self.members, |socket, duplicate| socket.read(duplicate, at))
            {
                if outgoing.taken() == 0 && outgoing.is_waiting && socket.info().unacked == 0 {
                    stuck.push(*inode);
                }
                sent.push(outgoing);
                received.push(incoming);
            }
        }
        let subject = &self.target.subject;
        if let Some(limit) = &mut self.upload {
            limit.tick(dt, &sent, behind(subject, Direction::Upload));
        }
        if let Some(limit) = &mut self.download {
            limit.tick(dt, &received, behind(subject, Direction::Download));
        }
        self.warn_if_hopeless();
        self.apply();
        self.offer_again(&stuck);
    }

    /// What was not taken from a socket TCP offers again with the next acknowledgement; where nothing is on its way, after
    /// 200 ms (`tcp_probe0_base`, include/net/tcp.h). Where the limit has room that is too late.
    fn offer_again(&mut self, stuck: &[u32]) {
        let has_room = self.upload.as_ref().is_some_and(|limit| limit.control.has_room());
        if self.place == Place::Alone || !has_room {
            return;
        }
        for inode in stuck {
            if let Some(socket) = self.sockets.get_mut(inode) {
                socket.with(&self.members, |_, duplicate| duplicate.push());
            }
        }
    }

    fn is_idle(&self, socket: &Socket) -> bool {
        let cookie = socket.cookie();
        self.upload.as_ref().is_none_or(|limit| limit.control.is_idle(cookie))
            && self.download.as_ref().is_none_or(|limit| limit.control.is_idle(cookie))
    }

    /// Sets every socket to what its controller wants.
    fn apply(&mut self) {
        for socket in self.sockets.values_mut() {
            apply(socket, &self.members, self.guard.as_deref(), self.upload.as_ref(), self.download.as_ref());
        }
    }

    fn warn_if_hopeless(&mut self) {
        let Some(floor) = self.download.as_mut().and_then(Limit::hopeless) else { return };
        // What is behind holds it; the less comes, the less has to be dropped there.
        if self.place == Place::Alone {
            log::warn!("{} is not held to its download limit: {}", self.target, super::too_low(floor));
        }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.remove(Direction::Upload);
        self.remove(Direction::Download);
    }
}

/// Tells the controllers of a socket that they do not know.
fn admit(socket: &Socket, upload: &mut Option<Limit<Pace>>, download: &mut Option<Limit<Open>>) {
    let info = socket.info();
    if let Some(limit) = upload
        && !limit.control.knows(socket.cookie())
    {
        limit.control.admit(&socket.outgoing(0.0, info.sent));
    }
    // Before it is connected its round trip is not known, and its window would be told to the peer in units that are
    // too small for ever after (`tcp_select_initial_window`).
    if let Some(limit) = download
        && info.state == ESTABLISHED
        && !limit.control.knows(socket.cookie())
    {
        limit.control.admit(&socket.incoming(0.0, info.received));
    }
}

fn forget(socket: &Socket, upload: &mut Option<Limit<Pace>>, download: &mut Option<Limit<Open>>) {
    if let Some(limit) = upload {
        limit.control.forget(socket.cookie());
    }
    if let Some(limit) = download {
        limit.control.forget(socket.cookie());
    }
}
