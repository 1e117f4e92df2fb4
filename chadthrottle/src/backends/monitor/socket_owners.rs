//! Which process has a socket open, by the socket's inode: a search through /proc, for who hears of a socket the
//! moment it is used and before its process may be gone.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    os::fd::RawFd,
    time::{Duration, Instant},
};

use procfs::process::{Process, Stat};

use crate::{
    process::{KnownNames, ProcessId, ProcessInfo},
    sys::{cgroup::CgroupRoot, proc_fd},
};

/// Searching costs at most a tenth of one CPU in the long run, however many processes and descriptors there are, and
/// however fast connections come and go.
const SHARE: u32 = 10;
/// What can be saved up of it. A program that starts opens several connections within milliseconds, and may be gone
/// after some more: they must not wait.
const MOST_SAVED: Duration = Duration::from_millis(200);
/// Sockets that are remembered. More than that are open on no ordinary host; then the search starts anew.
const MOST_KNOWN: usize = 65_536;
/// How far up a socket's way from parent to child is followed.
const MOST_GENERATIONS: usize = 16;

/// A process that has a socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) id: ProcessId,
    pub(super) fd: RawFd,
    pub(super) inode: u32,
}

impl Holder {
    /// Whether it still has it open.
    pub(super) fn holds(&self) -> bool {
        proc_fd::has_socket(self.id.pid, self.fd, self.inode)
    }
}

/// A holder, and whether it is one of those that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) holder: Holder,
    pub(super) counts: bool,
}

/// What a search brought.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// By inode.
    pub(super) found: HashMap<u32, Found>,
    /// About processes that were found for the first time.
    pub(super) infos: Vec<ProcessInfo>,
}

impl Findings {
    /// Inodes and owners, of those that are asked for.
    #[cfg(feature = "monitor-sock-diag")]
    pub(super) fn ids(&self) -> impl Iterator<Item = (u32, ProcessId)> {
        let counting = self.found.iter().filter(|(_, found)| found.counts);
        counting.map(|(&inode, found)| (inode, found.holder.id))
    }
}

/// Looks for owners.
#[derive(Debug)]
pub(super) struct SocketOwners {
    /// Only processes in it count.
    root: Option<CgroupRoot>,
    names: KnownNames,
    known: HashMap<u32, Found>,
    /// Who was there at the last search.
    seen: HashSet<i32>,
    budget: Budget,
}

/// How much time searches may take.
#[derive(Clone, Copy, Debug)]
struct Budget {
    saved: Duration,
    /// Until when it has been saved up. In the future where there is a debt to be paid first.
    at: Instant,
}

impl SocketOwners {
    pub(super) fn new(root: Option<CgroupRoot>) -> Self {
        // Whoever is not among them later is new, and looked at first.
        let seen = proc_fd::pids().map(Iterator::collect).unwrap_or_default();
        let budget = Budget { saved: MOST_SAVED, at: Instant::now() };
        Self { root, names: KnownNames::default(), known: HashMap::new(), seen, budget }
    }

    /// The owner of a socket that was found before, if it still has it open.
    #[cfg(any(test, feature = "monitor-pnet"))]
    pub(super) fn known(&self, inode: u32) -> Option<Found> {
        self.known.get(&inode).copied().filter(|found| found.holder.holds())
    }

    /// How long the next search has to wait.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.budget.rest(Instant::now())
    }

    /// The processes that have the sockets with these inodes open.
    ///
    /// Of several that share one it is the oldest: who inherits a connection is younger. It ends with the last socket
    /// found, and begins with who is likely to have it: processes that were not there at the last search, then those
    /// that have sockets, then the youngest. A new process's first packet finds it in the time that reading the list
    /// of processes takes.
    pub(super) fn search(&mut self, inodes: &HashSet<u32>) -> Findings {
        let start = Instant::now();
        let mut findings = Findings::default();
        match proc_fd::pids() {
            Ok(pids) => self.search_in(pids.collect(), inodes, &mut findings),
            Err(error) => log::warn!("sockets have no owner: cannot read /proc: {error}"),
        }
        if self.known.len() + findings.found.len() > MOST_KNOWN {
            self.known.clear();
        }
        self.known.extend(&findings.found);
        let took = start.elapsed();
        self.budget.spend(start, took);
        log::trace!("{} of {} sockets have an owner, found in {took:?}", findings.found.len(), inodes.len());
        findings
    }

    fn search_in(&mut self, mut pids: Vec<i32>, inodes: &HashSet<u32>, findings: &mut Findings) {
        let holders: HashSet<i32> = self.known.values().map(|found| found.holder.id.pid).collect();
        pids.sort_by_key(|pid| (self.seen.contains(pid), !holders.contains(pid), Reverse(*pid)));
        let mut pass = Pass::default();
        let mut missing = inodes.clone();
        for &pid in &pids {
            if missing.is_empty() {
                break;
            }
            let open: Vec<_> =
                pass.sockets(pid).iter().copied().filter(|(_, inode)| missing.contains(inode)).collect();
            for (fd, inode) in open {
                let (pid, fd) = pass.eldest(pid, fd, inode);
                let Some(info) = pass.info(pid, &mut self.names) else { continue };
                let holder = Holder { id: info.id, fd, inode };
                // The pid may have become another's since the descriptors were read; that one does not have the
                // socket. One that has ended since is who it was.
                if holder.holds() || !holder.id.is_alive() {
                    let counts = self.root.as_ref().is_none_or(|root| {
                        // A cgroup that cannot be read is the process's last moment.
                        info.cgroup.as_deref().is_some_and(|path| root.contains(path))
                    });
                    findings.found.insert(inode, Found { holder, counts });
                    missing.remove(&inode);
                }
            }
        }
        findings.infos.extend(pass.infos.into_values().flatten());
        self.seen = pids.into_iter().collect();
    }
}

/// What one search has read, each of it once.
#[derive(Debug, Default)]
struct Pass {
    sockets: HashMap<i32, Vec<(RawFd, u32)>>,
    parents: HashMap<i32, Option<i32>>,
    infos: HashMap<i32, Option<ProcessInfo>>,
}

impl Pass {
    /// The sockets of a process; none where it has ended or is not ours to look into.
    fn sockets(&mut self, pid: i32) -> &[(RawFd, u32)] {
        self.sockets.entry(pid).or_insert_with(|| proc_fd::sockets(pid).unwrap_or_default())
    }

    fn parent(&mut self, pid: i32) -> Option<i32> {
        *self.parents.entry(pid).or_insert_with(|| stat(pid).map(|stat| stat.ppid))
    }

    fn info(&mut self, pid: i32, names: &mut KnownNames) -> Option<&ProcessInfo> {
        let read = || ProcessInfo::read(ProcessId { pid, start_time: stat(pid)?.starttime }, names);
        self.infos.entry(pid).or_insert_with(read).as_ref()
    }

    /// The oldest of a process and its forebears that have this socket, without a gap. The first process of all only
    /// keeps sockets for those that it starts.
    fn eldest(&mut self, pid: i32, fd: RawFd, inode: u32) -> (i32, RawFd) {
        let mut eldest = (pid, fd);
        for _ in 0..MOST_GENERATIONS {
            let Some(parent) = self.parent(eldest.0).filter(|&parent| parent > 1) else { break };
            let inherited = self.sockets(parent).iter().find(|(_, other)| *other == inode);
            let Some(&(fd, _)) = inherited else { break };
            eldest = (parent, fd);
        }
        eldest
    }
}

fn stat(pid: i32) -> Option<Stat> {
    Process::new(pid).and_then(|process| process.stat()).ok()
}

impl Budget {
    fn rest(&self, now: Instant) -> Option<Duration> {
        let rest = self.at.saturating_duration_since(now);
        (!rest.is_zero()).then_some(rest)
    }

    fn spend(&mut self, now: Instant, took: Duration) {
        let saved = self.saved + now.saturating_duration_since(self.at) / SHARE;
        let saved = saved.min(MOST_SAVED);
        // What it took more than there was has to be waited for.
        let debt = took.saturating_sub(saved);
        *self = Self { saved: saved.saturating_sub(took), at: now + took + debt * SHARE };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{
            fd::{AsRawFd, OwnedFd},
            unix::net::UnixDatagram,
        },
        process::Command,
        thread,
    };

    use proptest::prelude::*;

    use super::*;

    fn inode_of(socket: &UnixDatagram) -> u32 {
        let pid = std::process::id().cast_signed();
        let sockets = proc_fd::sockets(pid).expect("we may look at ourselves");
        sockets.iter().find(|(fd, _)| *fd == socket.as_raw_fd()).expect("it is open").1
    }

    #[test]
    fn our_own_socket_is_ours_until_it_is_closed() {
        let socket = UnixDatagram::unbound().expect("descriptors are left");
        let inode = inode_of(&socket);
        let mut owners = SocketOwners::new(None);
        let findings = owners.search(&HashSet::from([inode, u32::MAX]));
        let us = ProcessId::running(std::process::id().cast_signed()).expect("we run");
        let found = findings.found[&inode];
        assert_eq!((found.holder.id, found.holder.fd, found.counts), (us, socket.as_raw_fd(), true));
        assert_eq!(findings.found.len(), 1);
        assert_eq!(findings.infos[0].id, us);
        assert_eq!(owners.known(inode), Some(found));
        drop(socket);
        assert_eq!(owners.known(inode), None);
    }

    /// Starts a process that has a socket, and nobody else has it, and searches for that until the process has been
    /// killed after `life`. Returns who else was found.
    fn strangers_found(life: Duration) -> Vec<ProcessId> {
        let socket = UnixDatagram::unbound().expect("descriptors are left");
        let inode = inode_of(&socket);
        let mut command = Command::new("sleep");
        let mut child = command.arg("60").stdin(OwnedFd::from(socket)).spawn().expect("it can be started");
        drop(command);
        let pid = child.id().cast_signed();
        let killer = thread::spawn(move || {
            thread::sleep(life);
            child.kill().and_then(|()| child.wait()).expect("it is ours");
        });
        let (mut owners, mut strangers) = (SocketOwners::new(None), Vec::new());
        while !killer.is_finished() {
            let findings = owners.search(&HashSet::from([inode]));
            if let Some(Found { holder, .. }) = findings.found.get(&inode) {
                assert!(findings.infos.iter().any(|info| info.id == holder.id));
                // What another test here starts has it too, until it has become its program.
                let is_ours = |stat: Stat| stat.ppid == std::process::id().cast_signed();
                if holder.id.pid != pid && !stat(holder.id.pid).is_none_or(is_ours) {
                    strangers.push(holder.id);
                }
            }
            let _ = owners.known(inode);
        }
        killer.join().expect("no panic");
        assert_eq!(owners.known(inode), None);
        strangers
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_socket_is_its_processs_until_that_vanishes(life in 0_u64..5000) {
            prop_assert_eq!(strangers_found(Duration::from_micros(life)), []);
        }
    }

    #[test]
    fn searches_may_follow_each_other_until_they_have_cost_too_much() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut budget = Budget { saved: MOST_SAVED, at: start };
        let took = Duration::from_millis(100);
        budget.spend(start, took);
        assert_eq!(budget.rest(after(100)), None);
        budget.spend(after(100), took);
        assert_eq!(budget.rest(after(200)), None);
        // Nothing is left; this one has to be paid for tenfold.
        budget.spend(after(200), took);
        assert_eq!(budget.rest(after(300)), Some(Duration::from_secs(1)));
        assert_eq!(budget.rest(after(1300)), None);
        budget.spend(after(60_000), took);
        assert_eq!(
            (budget.saved, budget.rest(after(60_100))),
            (took, None),
            "no more is saved than the most"
        );
    }
}
