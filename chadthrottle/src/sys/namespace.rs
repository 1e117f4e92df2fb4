//! Which namespaces processes and sockets are in, and a way into them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    thread,
};

use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{proc_fd, proc_text};

/// Inode numbers of the first namespace of each kind (`PROC_PID_INIT_INO` and the like,
/// `include/uapi/linux/nsfs.h` and, in older kernels, `include/linux/proc_ns.h`).
const FIRST: [(&str, u64); 2] = [("pid", 0xEFFF_FFFC), ("time", 0xEFFF_FFFA)];

/// The first of these kinds of namespace that is not the one that the host booted with.
///
/// Where the kernel has no namespaces of a kind, there is nothing to be apart in.
#[must_use]
pub fn first_that_is_not_the_hosts(kinds: &[&'static str]) -> Option<&'static str> {
    kinds.iter().copied().find(|kind| {
        let first = FIRST.iter().find(|(name, _)| name == kind).map(|(_, inode)| *inode);
        let ours = fs::metadata(format!("/proc/self/ns/{kind}")).map(|metadata| metadata.ino());
        matches!((first, ours), (Some(first), Ok(ours)) if first != ours)
    })
}

/// The number that the kernel gives to a socket's network namespace, never the same one again (`SO_NETNS_COOKIE`, since
/// Linux 5.14).
///
/// # Errors
/// When the kernel does not tell.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: the kernel writes at most `length` bytes to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(cookie)
}

/// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The same for the network namespace of the calling thread.
///
/// # Errors
/// When the kernel does not tell.
pub fn own_netns_cookie() -> io::Result<u64> {
    netns_cookie(socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Does `work` in the network namespace of a process: on this thread where it is ours too, else on one that enters it
/// and ends with the work. What is opened there stays there.
///
/// # Errors
/// What `work` failed with; `NotFound` when the process has ended, `PermissionDenied` when it is not ours to look into
/// or to follow (`CAP_SYS_ADMIN`, setns(2)).
pub fn in_network_of<T: Send>(pid: i32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let theirs = format!("/proc/{pid}/ns/net");
    if identity(Path::new(&theirs))? == identity(Path::new("/proc/thread-self/ns/net"))? {
        return work();
    }
    let namespace = File::open(&theirs)?;
    thread::scope(|scope| {
        let enter = || {
            // The thread's own: this process stays where it is.
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        let thread = thread::Builder::new().name("namespace".into()).spawn_scoped(scope, enter)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether a process is in the network namespace of the calling thread.
///
/// # Errors
/// `NotFound` when it has ended, `PermissionDenied` when it is not ours to look into.
pub fn shares_network(pid: i32) -> io::Result<bool> {
    let theirs = identity(Path::new(&format!("/proc/{pid}/ns/net")))?;
    Ok(theirs == identity(Path::new("/proc/thread-self/ns/net"))?)
}

/// What tells namespaces apart: device and inode of the files that stand for them (namespaces(7)).
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The network namespaces that there are: those of processes, and those that have a name.
///
/// # Errors
/// When /proc is not there.
pub fn networks() -> io::Result<BTreeSet<u64>> {
    let of_process = |pid| fs::metadata(format!("/proc/{pid}/ns/net")).map(|metadata| metadata.ino());
    let mut networks: BTreeSet<u64> = proc_fd::pids()?.filter_map(|pid| of_process(pid).ok()).collect();
    networks.extend(proc_text::named_networks(&proc_text::read("/proc/self/mountinfo")?));
    Ok(networks)
}

/// The network namespace that this thread is in, by its inode.
///
/// # Errors
/// When /proc is not there.
pub fn own_network() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}
