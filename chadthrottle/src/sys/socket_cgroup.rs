//! The cgroups (v1) of `net_cls` and `net_prio`, which a socket has from whoever *received it last*.
//!
//! Who takes a duplicate of somebody's socket gives it his own (`receive_fd`, fs/file.c, since Linux 5.9; `__receive_sock`,
//! net/core/sock.c), and with them other filters, classes and priorities than its owner's administrator has chosen. So a
//! duplicate is taken by a thread that is in the owner's cgroups. It ends there: a way back is one more move, and older kernels
//! take all sockets of a process along with any thread of it (`update_classid_task`, `net/core/netclassid_cgroup.c`, which
//! looks at the first thread alone by now), those duplicates included that its other threads have at the time.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    str,
    sync::{LazyLock, Once},
    thread,
};

use super::proc_text;

const CONTROLLERS: [&str; 2] = ["net_cls", "net_prio"];

/// Does what takes a socket of a process's, and leaves the socket the cgroups of that process.
///
/// # Errors
/// Those of `receive`, and when no thread can be made. That the process's cgroups are out of reach is told once, and no
/// error: what is asked for is a limit.
pub fn received_for<T: Send>(pid: i32, receive: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    if !are_in_use() {
        return receive();
    }
    let others = elsewhere(pid);
    if others.is_empty() {
        return receive();
    }
    let in_their_place = move || {
        for theirs in &others {
            if let Err(error) = enter(theirs) {
                tell(pid, theirs, &error);
            }
        }
        receive()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("receiver".into()).spawn_scoped(scope, in_their_place)?;
        thread.join().map_err(|_| io::Error::other("the thread that was to take a socket has panicked"))?
    })
}

/// A cgroup of one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    controller: &'static str,
    in_tree: PathBuf,
}

/// Whether anybody can be in another one than the root. The file stays open, since this is asked for each duplicate.
fn are_in_use() -> bool {
    static FILE: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/cgroups").ok());
    let mut text = [0; 4096];
    let length = FILE.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
    length.is_some_and(|length| str::from_utf8(&text[..length]).is_ok_and(has_groups))
}

/// From the format of /proc/cgroups (cgroups(7)): name, number of the hierarchy, number of cgroups.
fn has_groups(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_ours = words.next().is_some_and(|name| CONTROLLERS.contains(&name));
        let is_mounted = words.next().is_some_and(|hierarchy| hierarchy != "0");
        is_ours && is_mounted && words.next().is_some_and(|cgroups| cgroups != "1")
    })
}

/// Where a process is and this thread is not.
fn elsewhere(pid: i32) -> Vec<Place> {
    let (Ok(theirs), Ok(ours)) =
        (fs::read(format!("/proc/{pid}/cgroup")), fs::read("/proc/thread-self/cgroup"))
    else {
        // It has ended.
        return Vec::new();
    };
    let ours = places(&ours);
    places(&theirs).into_iter().filter(|place| !ours.contains(place)).collect()
}

fn places(text: &[u8]) -> Vec<Place> {
    let place = |controller| {
        let in_tree = proc_text::cgroup_path_in(text, |_, all| all.split(',').any(|one| one == controller))?;
        Some(Place { controller, in_tree })
    };
    CONTROLLERS.into_iter().filter_map(place).collect()
}

/// Moves this thread, and no other one. `0` is who writes: for another number the kernel holds up whoever forks
/// meanwhile (`cgroup_procs_write_start`, kernel/cgroup/cgroup.c).
fn enter(Place { controller, in_tree }: &Place) -> io::Result<()> {
    let mount = mount_of(controller)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is not mounted as a whole here"))?;
    let below = in_tree.strip_prefix("/").unwrap_or(in_tree);
    fs::write(mount.join(below).join("tasks"), "0")
}

fn mount_of(controller: &str) -> Option<PathBuf> {
    let mounts = proc_text::read("/proc/self/mountinfo").unwrap_or_default();
    let mut all = proc_text::cgroup_mounts(&mounts).filter(|mount| mount.is_v1);
    all.find(|mount| mount.has(controller)).map(|mount| mount.point.into())
}

fn tell(pid: i32, Place { controller, in_tree }: &Place, error: &io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        log::warn!(
            "the cgroup {} of {controller}, which process {pid} is in, cannot be entered: {error}; sockets that are limited \
             have the {controller} of chadthrottle from now on (start chadthrottle where {controller} is mounted)",
            in_tree.display()
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_somebody_made_cgroups_does_it_matter() {
        let head = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t40\t1\n";
        for (line, expected) in [
            ("net_cls\t0\t1\t1\n", false),
            ("net_cls\t10\t1\t1\n", false),
            ("net_cls\t10\t2\t1\n", true),
            ("net_cls\t0\t140\t1\n", false),
            ("net_prio\t3\t5\t1\n", true),
            ("broken\n", false),
        ] {
            assert_eq!(has_groups(&format!("{head}{line}")), expected, "{line}");
        }
    }

    #[test]
    fn a_process_may_be_elsewhere_in_either_or_both() {
        let place = |controller, path: &str| Place { controller, in_tree: path.into() };
        let both = places(b"5:net_cls,net_prio:/a\n3:cpu:/b\n0::/c\n");
        assert_eq!(both, [place("net_cls", "/a"), place("net_prio", "/a")]);
        assert_eq!(places(b"4:net_prio:/\n0::/c\n"), [place("net_prio", "/")]);
        assert!(elsewhere(std::process::id().cast_signed()).is_empty());
    }
}
