//! Which processes a target is.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::RawFd,
    time::{Duration, Instant},
};

use crate::{
    backends::throttle::{Subject, Target, processes::belonged_lately},
    process::ProcessId,
    sys::{
        pidfd::PidFd,
        proc_children::{children, is_own, ptrace_scope},
        proc_fd::{self, Descriptors},
        tcp_socket::TcpSocket,
    },
};

/// A descriptor that nobody has.
const NO_DESCRIPTOR: RawFd = RawFd::MAX;
/// How often processes are asked again what they are: they may execute another program, or become another user's.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// One process of a target.
#[derive(Debug)]
pub(in crate::backends::throttle) struct Member {
    pub(in crate::backends::throttle) id: ProcessId,
    handle: PidFd,
    descriptors: Descriptors,
}

/// The processes of a target.
#[derive(Debug)]
pub(in crate::backends::throttle) struct Members {
    subject: Subject,
    known: Vec<Member>,
    /// Those that were not when they were last asked, and since when they have been there.
    others: HashMap<i32, Instant>,
    asked_since: Instant,
    /// A child of ours that is none of the target's.
    guard: Option<i32>,
    /// Those that another target holds, whose subject is more specific.
    taken: HashSet<i32>,
    /// Whether their sockets are nothing to us.
    is_list: bool,
}

impl Member {
    /// Takes hold of a process.
    fn open(id: ProcessId) -> io::Result<Self> {
        let handle = PidFd::open(id.pid)?;
        // It may have ended, and its pid may have been given to another, before we had it.
        let descriptors = Descriptors::default();
        if id.is_alive() { Ok(Self { id, handle, descriptors }) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Duplicates one of its descriptors, if that is a TCP socket. To be dropped at once.
    pub(in crate::backends::throttle) fn duplicate(&self, fd: RawFd) -> io::Result<Option<TcpSocket>> {
        TcpSocket::of(self.handle.duplicate(fd)?)
    }

    /// Duplicates one of its descriptors, whatever it is. To be dropped at once.
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables", feature = "throttle-ifb-tc"))]
    pub(in crate::backends::throttle) fn duplicate_any(&self, fd: RawFd) -> io::Result<std::os::fd::OwnedFd> {
        self.handle.duplicate(fd)
    }

    /// Duplicates one of its descriptors, if that is still the socket with this cookie. To be dropped at once.
    pub(in crate::backends::throttle) fn duplicate_known(&self, fd: RawFd, cookie: u64) -> Option<TcpSocket> {
        TcpSocket::known(self.handle.duplicate(fd).ok()?, cookie).ok()?
    }

    /// Whether the kernel lets us take hold of its sockets.
    fn check_access(&self) -> io::Result<()> {
        match self.handle.duplicate(NO_DESCRIPTOR) {
            // Access is checked before the descriptor is looked for (`__pidfd_fget`, kernel/pid.c).
            Err(error) if error.raw_os_error() == Some(nix::libc::EBADF) => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        // To see which there are is another thing to be allowed. Of one that has just ended nothing is.
        proc_fd::check(self.id.pid).map_err(|error| {
            if self.id.is_alive() { error } else { io::Error::from_raw_os_error(nix::libc::ESRCH) }
        })
    }
}

impl Members {
    /// Takes hold of a target.
    ///
    /// # Errors
    /// When it has ended, or is not ours to take hold of (`EPERM`).
    pub(in crate::backends::throttle) fn new(target: &Target, guard: Option<i32>) -> io::Result<Self> {
        Self::all(target, guard, false)
    }

    /// The processes of a target, whether or not we may take hold of their sockets.
    ///
    /// # Errors
    /// When it has ended.
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
    pub(in crate::backends::throttle) fn listed(target: &Target, guard: Option<i32>) -> io::Result<Self> {
        Self::all(target, guard, true)
    }

    fn all(target: &Target, guard: Option<i32>, is_list: bool) -> io::Result<Self> {
        let mut members = Self {
            subject: target.subject.clone(),
            known: Vec::new(),
            others: HashMap::new(),
            asked_since: Instant::now(),
            guard,
            taken: HashSet::new(),
            is_list,
        };
        if let Some(id) = target.subject.process() {
            let member = Member::open(id)?;
            if !is_list {
                member.check_access()?;
            }
            members.known.push(member);
        }
        members.refresh();
        Ok(members)
    }

    /// The sockets that they have open, by inode, with who has each as what. Unless they are looked at `afresh`, a
    /// descriptor that was there the last time is taken for what it was.
    pub(in crate::backends::throttle) fn sockets(&mut self, afresh: bool) -> HashMap<u32, Vec<(i32, RawFd)>> {
        let mut open: HashMap<u32, Vec<_>> = HashMap::new();
        for member in &mut self.known {
            let pid = member.id.pid;
            for (fd, inode) in member.descriptors.sockets(pid, afresh).unwrap_or_default() {
                open.entry(inode).or_default().push((pid, fd));
            }
        }
        open
    }

    /// The processes.
    pub(in crate::backends::throttle) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.known.iter()
    }

    /// The process with this pid, if it is one.
    pub(in crate::backends::throttle) fn get(&self, pid: i32) -> Option<&Member> {
        self.known.iter().find(|member| member.id.pid == pid)
    }

    /// Leaves these processes to other targets, and takes those back that no other one has any more.
    pub(in crate::backends::throttle) fn leave_out(&mut self, taken: &HashSet<i32>) {
        if self.taken != *taken {
            self.taken.clone_from(taken);
            self.known.retain(|member| !taken.contains(&member.id.pid));
            self.others.clear();
            self.refresh();
        }
    }

    /// Forgets those that have ended, and takes hold of those that have come since.
    pub(in crate::backends::throttle) fn refresh(&mut self) {
        self.known.retain(|member| !member.handle.has_ended());
        match self.subject {
            Subject::Process(_) => {}
            Subject::Descendants(first) => self.find_descendants(first),
            Subject::Program(_) | Subject::Cgroup(_) | Subject::User(_) => self.find_others_of_a_kind(),
        }
    }

    fn find_descendants(&mut self, first: ProcessId) {
        // What lost its parent is ours (see `adopt_orphans`). Nothing else that we start lives longer than a moment.
        let mut parents: Vec<i32> = vec![std::process::id().cast_signed()];
        if self.get(first.pid).is_none() && first.is_alive() {
            if self.taken.contains(&first.pid) {
                parents.push(first.pid);
            } else {
                self.add(first.pid);
            }
        }
        parents.extend(self.known.iter().map(|member| member.id.pid));
        while let Some(parent) = parents.pop() {
            for pid in children(parent) {
                if self.guard == Some(pid) {
                    continue;
                }
                // What the children of another target's process are is not said by that.
                if self.taken.contains(&pid) || self.get(pid).is_none() && self.add(pid) {
                    parents.push(pid);
                }
            }
        }
    }

    fn find_others_of_a_kind(&mut self) {
        let now = Instant::now();
        let asks_all = now - self.asked_since > ASK_AGAIN;
        if asks_all {
            self.asked_since = now;
            let subject = &self.subject;
            self.known.retain(|member| belonged_lately(member.id.pid, subject));
        }
        // Who cannot be listed cannot be found; the next time will tell.
        let Ok(pids) = proc_fd::pids() else { return };
        let pids: HashSet<i32> = pids.collect();
        self.others.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            if self.taken.contains(&pid) || self.guard == Some(pid) || self.get(pid).is_some() {
                continue;
            }
            // A new one each time: it moves to its cgroup, becomes its user and executes its program some moments after
            // it was forked.
            let is_settled = *self.others.entry(pid).or_insert(now) + ASK_AGAIN < now;
            if (asks_all || !is_settled) && belonged_lately(pid, &self.subject) && self.add(pid) {
                self.others.remove(&pid);
            }
        }
    }

    /// Takes hold of a process, if it is still there.
    fn add(&mut self, pid: i32) -> bool {
        let Some(member) = ProcessId::running(pid).ok().and_then(|id| Member::open(id).ok()) else {
            return false;
        };
        if !self.is_list
            && let Err(error) = member.check_access()
        {
            if error.raw_os_error() == Some(nix::libc::ESRCH) {
                return false;
            }
            log::warn!("what process {pid} sends and receives is not limited: {}", why_denied(pid, &error));
        }
        self.known.push(member);
        true
    }
}

/// Why we may not take hold of a process's sockets, and what helps.
pub(in crate::backends::throttle) fn why_denied(pid: i32, error: &io::Error) -> String {
    if error.raw_os_error() == Some(nix::libc::EACCES) {
        return "it runs as another user, and what it has open cannot be listed without CAP_DAC_READ_SEARCH (sudo)".into();
    }
    if error.raw_os_error() != Some(nix::libc::EPERM) {
        return format!("cannot take hold of its sockets: {error}");
    }
    let cause = match ptrace_scope() {
        _ if !is_own(pid) => "it runs as another user".to_owned(),
        Some(scope @ 1..) => format!("kernel.yama.ptrace_scope is {scope}, and it was not started by us"),
        _ => "it has privileges that we do not have".to_owned(),
    };
    format!(
        "{cause}; without CAP_SYS_PTRACE (sudo) only one's own processes can be limited, and where \
         kernel.yama.ptrace_scope is not 0 only those that `chadthrottle run` starts"
    )
}
