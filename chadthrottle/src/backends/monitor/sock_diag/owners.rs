//! Which process has a socket open: a search through /proc, made only when there is something to be found.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use procfs::process::Process;

use crate::{
    process::{ProcessId, ProcessInfo, UserNames},
    sys::{cgroup::CgroupRoot, proc_fd},
};

/// The next search is not before so many times as long as the last one took: searching costs at most a tenth of one
/// CPU, however many processes and descriptors there are, and however fast connections come and go.
const REST: u32 = 10;

/// Looks for owners.
#[derive(Debug)]
pub(super) struct Search {
    /// Only processes in it own anything.
    root: Option<CgroupRoot>,
    not_before: Option<Instant>,
}

impl Search {
    pub(super) const fn new(root: Option<CgroupRoot>) -> Self {
        Self { root, not_before: None }
    }

    /// The processes that have sockets with these inodes open, unless the last search was too short a time ago.
    pub(super) fn run(
        &mut self,
        sought: &HashSet<u32>,
        users: &mut UserNames,
    ) -> Option<HashMap<u32, ProcessInfo>> {
        let start = Instant::now();
        if sought.is_empty() || self.not_before.is_some_and(|instant| start < instant) {
            return None;
        }
        let found = self.search(sought, users);
        let took = start.elapsed();
        self.not_before = Some(start + took * (REST + 1));
        log::debug!("{} of {} sockets have an owner, found in {took:?}", found.len(), sought.len());
        Some(found)
    }

    fn search(&self, sought: &HashSet<u32>, users: &mut UserNames) -> HashMap<u32, ProcessInfo> {
        let mut owners: HashMap<u32, ProcessInfo> = HashMap::new();
        let pids = match proc_fd::pids() {
            Ok(pids) => pids,
            Err(error) => {
                log::warn!("sockets have no owner: cannot read /proc: {error}");
                return owners;
            }
        };
        for pid in pids {
            // It has ended, or is another user's.
            let Ok(sockets) = proc_fd::sockets(pid) else { continue };
            let open: Vec<_> = sockets.into_iter().filter(|(_, inode)| sought.contains(inode)).collect();
            let Some(info) = self.identify(pid, &open, users) else { continue };
            for (_, inode) in open {
                // Of several that share a socket it is the oldest one's: who inherits a connection is younger.
                let age = |info: &ProcessInfo| (info.id.start_time, info.id.pid);
                if owners.get(&inode).is_none_or(|other| age(&info) < age(other)) {
                    owners.insert(inode, info.clone());
                }
            }
        }
        owners
    }

    /// Who has these sockets open. `None` where it is not one that counts, or has ended.
    fn identify(&self, pid: i32, open: &[(i32, u32)], users: &mut UserNames) -> Option<ProcessInfo> {
        let &(fd, inode) = open.first()?;
        let start_time = Process::new(pid).and_then(|process| process.stat()).ok()?.starttime;
        let info = ProcessInfo::read(ProcessId { pid, start_time }, users)?;
        if let Some(root) = &self.root
            && !info.cgroup.as_deref().is_some_and(|path| root.contains(path))
        {
            return None;
        }
        // The pid may have become another's since the descriptors were read; that one does not have the socket.
        proc_fd::has_socket(pid, fd, inode).then_some(info)
    }
}
