//! The search for a target's new sockets.

use std::time::{Duration, Instant};

use super::{Limited, TICK, admit, forget};
use crate::{
    backends::throttle::flow::{setting::apply, socket::Kind},
    sys::cpu_time,
};

/// How often new sockets are looked for, where that costs little: it takes no more than a hundredth of one CPU.
const SCAN: Duration = Duration::from_millis(10);
const LONGEST_SCAN: Duration = Duration::from_millis(200);
/// The same where there are more sockets than this: hardly one of them is new.
const LONGEST_SCAN_OF_MANY: Duration = Duration::from_millis(500);
const MANY: usize = 256;
const SCAN_SHARE: u32 = 100;
/// Where no new socket has been seen for so long, one is looked for as often as this: to wake up costs most of it.
const CALM: Duration = Duration::from_secs(2);
const CALM_SCAN: Duration = Duration::from_millis(25);

impl Limited {
    /// Looks for new sockets, where that is due. The time that may be spent is shared by so many `targets`.
    pub(super) fn scan_if_due(&mut self, targets: u32) {
        let now = Instant::now();
        if now < self.next_scan {
            return;
        }
        let before = cpu_time::of_this_thread();
        self.scan();
        let took = cpu_time::of_this_thread().saturating_sub(before);
        let usual = if now - self.last_new < CALM { SCAN } else { CALM_SCAN };
        let longest = if self.sockets.len() > MANY { LONGEST_SCAN_OF_MANY } else { LONGEST_SCAN };
        self.next_scan = now + usual.max(took * SCAN_SHARE * targets).min(longest * targets);
        // Once awake, both.
        if self.next_scan + SCAN / 2 > self.next_tick && self.next_scan < self.next_tick + SCAN {
            self.next_scan = self.next_tick;
        }
    }

    /// Looks for sockets that are new, and forgets those that are gone.
    pub(super) fn scan(&mut self) {
        let now = self.start.elapsed().as_secs_f64();
        // One that was closed and at once opened again as another is seen a tick later.
        let tick = TICK.max(self.next_tick.saturating_duration_since(self.last_tick));
        let afresh = now - self.looked_afresh >= tick.as_secs_f64();
        if afresh {
            self.looked_afresh = now;
        }
        self.members.refresh();
        let open = self.members.sockets(afresh);
        self.others.retain(|inode| open.contains_key(inode));
        let Self { sockets, upload, download, guard, .. } = self;
        sockets.retain(|inode, socket| {
            let is_open = open.contains_key(inode);
            if !is_open {
                socket.leave_to(guard.as_deref());
                forget(socket, upload, download);
            }
            is_open
        });
        for (inode, holders) in open {
            if let Some(socket) = self.sockets.get_mut(&inode) {
                socket.holders = holders;
                // One that is quiet is looked at in ticks.
                if socket.is_fresh() && (afresh || !socket.is_quiet()) {
                    socket.with(&self.members, |socket, duplicate| {
                        let window = socket.window;
                        let info = duplicate.info()?;
                        match &mut socket.clamp {
                            Some(clamp) if clamp.may_be_undone(&info) => clamp.apply(duplicate, window)?,
                            _ => {}
                        }
                        socket.tell(self.guard.as_deref())
                    });
                }
                // One that was still connecting.
                let is_unknown =
                    self.download.as_ref().is_some_and(|limit| !limit.control.knows(socket.cookie()));
                if is_unknown {
                    socket.with(&self.members, |socket, duplicate| socket.read(duplicate, now));
                    admit(socket, &mut self.upload, &mut self.download);
                    apply(
                        socket,
                        &self.members,
                        self.guard.as_deref(),
                        self.upload.as_ref(),
                        self.download.as_ref(),
                    );
                }
            } else if !self.others.contains(&inode) {
                self.last_new = Instant::now();
                self.look_at(inode, holders, now);
            }
        }
    }

    fn look_at(&mut self, inode: u32, holders: Vec<(i32, i32)>, now: f64) {
        let Some(&(pid, fd)) = holders.first() else { return };
        match Kind::of(&self.members, (pid, fd), inode, &self.counted, now) {
            Ok(Kind::Connection(mut socket)) => {
                socket.holders = holders;
                admit(&socket, &mut self.upload, &mut self.download);
                apply(
                    &mut socket,
                    &self.members,
                    self.guard.as_deref(),
                    self.upload.as_ref(),
                    self.download.as_ref(),
                );
                self.sockets.insert(inode, *socket);
            }
            Ok(Kind::Other) => {
                self.others.insert(inode);
            }
            // Closed meanwhile, or no descriptor is left for us: the next scan will see.
            Ok(Kind::NotYet) | Err(_) => {}
        }
    }
}
