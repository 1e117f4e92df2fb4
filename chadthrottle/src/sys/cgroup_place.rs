//! Cgroups that processes are moved to for what their sockets then belong to: of cgroup v2, or of `net_cls` (v1), whose
//! number the packets of a process can be known by (`net_cls.classid`).

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use procfs::process::Process;

use super::proc_text::{self, CgroupMount};

/// Which tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The one of cgroup v2. A socket belongs for ever to the cgroup that it was made in (`cgroup_sk_alloc`,
    /// kernel/cgroup/cgroup.c).
    V2,
    /// The one of `net_cls`. Open sockets follow their process (`update_classid_task`,
    /// `net/core/netclassid_cgroup.c`).
    NetCls,
}

/// A tree of cgroups that is mounted as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Which.
    pub kind: Kind,
    /// Where.
    pub mount: PathBuf,
}

/// How often what is in the way of removal is looked at, and how long to wait between.
const ATTEMPTS: u32 = 100;
const WAIT: Duration = Duration::from_millis(5);
/// `PROC_CGROUP_INIT_INO` (`include/linux/proc_ns.h`): the namespace in which depths are counted from the true root.
const FIRST_NAMESPACE: u64 = 0xefff_fffb;

impl Tree {
    /// The trees that are mounted here.
    #[must_use]
    pub fn all() -> Vec<Self> {
        parse(&proc_text::read("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Whether depths in it are what the kernel counts: not in a container's view of it.
    #[must_use]
    pub fn is_whole() -> bool {
        fs::metadata("/proc/thread-self/ns/cgroup").is_ok_and(|metadata| metadata.ino() == FIRST_NAMESPACE)
    }

    /// The path of a process's cgroup in it, from its root. None where the process has ended, or its cgroup is gone.
    #[must_use]
    pub fn path_of(&self, pid: i32) -> Option<PathBuf> {
        proc_text::cgroup_path(&Process::new(pid).ok()?, |hierarchy, controllers| match self.kind {
            Kind::V2 => hierarchy == "0",
            Kind::NetCls => controllers.split(',').any(|controller| controller == "net_cls"),
        })
    }

    /// Where a cgroup is in the file system, by its path from the root.
    #[must_use]
    pub fn directory(&self, in_tree: &Path) -> PathBuf {
        self.mount.join(in_tree.strip_prefix("/").unwrap_or(in_tree))
    }
}

fn parse(mounts: &str) -> Vec<Tree> {
    let tree = |mount: CgroupMount<'_>| {
        let kind = match mount.is_v1 {
            false => Kind::V2,
            true if mount.has("net_cls") => Kind::NetCls,
            true => return None,
        };
        Some(Tree { kind, mount: mount.point.into() })
    };
    proc_text::cgroup_mounts(mounts).filter_map(tree).collect()
}

/// How deep a cgroup is in its tree; the root is 0.
#[must_use]
pub fn depth(in_tree: &Path) -> u32 {
    let names = in_tree.components().filter(|part| matches!(part, Component::Normal(_)));
    u32::try_from(names.count()).unwrap_or(u32::MAX)
}

/// Whether a path is in a tree of cgroups.
#[must_use]
pub fn is_cgroup(directory: &Path) -> bool {
    let kind = statfs(directory).map(|kind| kind.filesystem_type());
    kind.is_ok_and(|kind| kind == CGROUP2_SUPER_MAGIC || kind == CGROUP_SUPER_MAGIC)
}

/// Moves a process, with all its threads.
///
/// # Errors
/// `ESRCH` where it has ended; else why the kernel does not.
pub fn move_to(directory: &Path, pid: i32) -> io::Result<()> {
    fs::write(directory.join("cgroup.procs"), pid.to_string())
}

/// The processes in a cgroup, not those below it; those too of which only a thread is there. None where it is gone.
#[must_use]
pub fn processes(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Whether a process is in a cgroup of ours itself. Else a thread of ours is, for as long as it takes a socket
/// ([`socket_cgroup`](super::socket_cgroup)), and whoever moved its process would move all of it.
#[must_use]
pub fn holds(directory: &Path, pid: i32) -> bool {
    let name = directory.file_name().unwrap_or_default().as_encoded_bytes();
    // No other one has its name, in any tree.
    let cgroups = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    cgroups.split(|byte| matches!(byte, b'/' | b'\n')).any(|part| part == name)
}

/// Gives a cgroup of `net_cls` its number.
///
/// # Errors
/// Why the kernel does not.
pub fn set_class(directory: &Path, class: u32) -> io::Result<()> {
    fs::write(directory.join("net_cls.classid"), class.to_string())
}

/// Removes a cgroup, once what is in it is in the one around it: whoever was moved here, and their children. That it is
/// not there (any more) is no error.
///
/// # Errors
/// Why the kernel does not.
pub fn dissolve(directory: &Path) -> io::Result<()> {
    let around = directory.parent().unwrap_or(directory);
    let mut attempts = 0;
    loop {
        // Again and again, because they may start others meanwhile.
        for pid in processes(directory).into_iter().filter(|pid| holds(directory, *pid)) {
            // It has ended.
            let _ = move_to(around, pid);
        }
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempts < ATTEMPTS => {
                attempts += 1;
                thread::sleep(WAIT);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_found_where_they_are_mounted_as_a_whole() {
        let mounts = "24 30 0:22 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
                      25 24 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n\
                      26 24 0:24 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n\
                      27 24 0:25 / /sys/fs/cgroup/net_cls,net_prio rw - cgroup cgroup rw,net_cls,net_prio\n\
                      28 24 0:23 /system.slice /mnt rw - cgroup2 cgroup2 rw\n\
                      broken\n";
        let tree = |kind, mount: &str| Tree { kind, mount: mount.into() };
        let net_cls = tree(Kind::NetCls, "/sys/fs/cgroup/net_cls,net_prio");
        assert_eq!(parse(mounts), [tree(Kind::V2, "/sys/fs/cgroup/unified"), net_cls.clone()]);
        assert_eq!(net_cls.directory(Path::new("/")), net_cls.mount.join(""));
        assert_eq!(net_cls.directory(Path::new("/a/b")), net_cls.mount.join("a/b"));
    }

    #[test]
    fn the_root_is_at_depth_0() {
        for (path, expected) in [("/", 0), ("/a.slice", 1), ("/user.slice/user-0.slice/x.scope", 3)] {
            assert_eq!(depth(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn other_directories_are_no_cgroups() {
        assert!(!is_cgroup(Path::new("/tmp")) && !is_cgroup(Path::new("/no/such")));
        assert!(dissolve(Path::new("/tmp/no-such-cgroup")).is_ok());
    }
}
