//! Which sockets a process has open, by inode, as /proc tells anybody of their own processes.

use std::{
    collections::HashMap,
    ffi::CString,
    fs, io,
    os::fd::{AsFd, RawFd},
};

use nix::{
    NixPath,
    dir::Dir,
    fcntl::{AT_FDCWD, OFlag, readlinkat},
    libc,
    sys::stat::Mode,
};

/// The processes that /proc shows us, in no order.
///
/// # Errors
/// When /proc cannot be read.
pub fn pids() -> io::Result<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// The descriptors of a process that are sockets of any family, with their inodes.
///
/// # Errors
/// When the process has ended, or is not ours to look into, or we [cannot look](is_our_lack).
pub fn sockets(pid: i32) -> io::Result<Vec<(RawFd, u32)>> {
    let mut descriptors = Descriptors::default();
    descriptors.look(pid, true)?;
    Ok(descriptors.known_sockets())
}

/// Whether we may see which descriptors a process has (`proc_fd_permission`, fs/proc/fd.c).
///
/// # Errors
/// `EACCES` when it is not ours to look into, and `CAP_DAC_READ_SEARCH` is missing.
pub fn check(pid: i32) -> io::Result<()> {
    fs::read_dir(format!("/proc/{pid}/fd")).map(drop)
}

/// What the descriptors of a process were when it was last looked at. To list them costs little, to ask what each is
/// costs most.
#[derive(Debug, Default)]
pub struct Descriptors {
    known: HashMap<RawFd, Option<u32>>,
}

impl Descriptors {
    /// The same as [`sockets`]. Unless all are looked at `afresh`, a descriptor that was there the last time is taken
    /// for what it was; and so are all of them where it is we who cannot look for the moment.
    ///
    /// # Errors
    /// When the process has ended, or is not ours to look into.
    pub fn sockets(&mut self, pid: i32, afresh: bool) -> io::Result<Vec<(RawFd, u32)>> {
        match self.look(pid, afresh) {
            Err(error) if !is_our_lack(&error) => Err(error),
            _ => Ok(self.known_sockets()),
        }
    }

    fn look(&mut self, pid: i32, afresh: bool) -> io::Result<()> {
        let listed = list(pid);
        // Of one that is gone nothing is known.
        let before = match &listed {
            Err(error) if is_our_lack(error) => HashMap::new(),
            _ => std::mem::take(&mut self.known),
        };
        let (directory, names) = listed?;
        for name in &names {
            let Some(fd) = name.to_str().ok().and_then(|name| name.parse().ok()) else { continue };
            let known = before.get(&fd).copied().filter(|_| !afresh);
            self.known.insert(fd, known.unwrap_or_else(|| socket_inode(&directory, name.as_c_str())));
        }
        Ok(())
    }

    fn known_sockets(&self) -> Vec<(RawFd, u32)> {
        self.known.iter().filter_map(|(fd, inode)| Some((*fd, (*inode)?))).collect()
    }
}

/// Whether we have no descriptor or memory left to look with, which says nothing of whom we look at.
#[must_use]
pub fn is_our_lack(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// The names of a process's descriptors, and where they are.
fn list(pid: i32) -> io::Result<(Dir, Vec<CString>)> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut directory = Dir::open(format!("/proc/{pid}/fd").as_str(), flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in directory.iter() {
        // The process may end, and close its descriptors, while we read: what is gone is not there.
        let Ok(entry) = entry else { break };
        names.push(entry.file_name().to_owned());
    }
    Ok((directory, names))
}

/// Whether a process's descriptor is (still) the socket with this inode.
#[must_use]
pub fn has_socket(pid: i32, fd: RawFd, inode: u32) -> bool {
    socket_inode(AT_FDCWD, format!("/proc/{pid}/fd/{fd}").as_str()) == Some(inode)
}

/// The number in `socket:[123]`, which is what such a link in /proc leads to (`proc_pid_fd(5)`).
fn socket_inode<Fd: AsFd, P: ?Sized + NixPath>(directory: Fd, link: &P) -> Option<u32> {
    inode_in(readlinkat(directory, link).ok()?.to_str()?)
}

fn inode_in(target: &str) -> Option<u32> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Of any text.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(target: &str) {
    if let Some(inode) = inode_in(target) {
        assert_eq!(inode_in(&format!("socket:[{inode}]")), Some(inode));
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsRawFd, unix::net::UnixDatagram};

    use super::*;

    #[test]
    fn our_own_socket_is_found_until_it_is_closed() {
        let pid = std::process::id().cast_signed();
        let socket = UnixDatagram::unbound().expect("descriptors are left");
        let fd = socket.as_raw_fd();
        let open = sockets(pid).expect("we may look at ourselves");
        let &(_, inode) = open.iter().find(|(number, _)| *number == fd).expect("it is open");
        assert!(has_socket(pid, fd, inode));
        assert!(!has_socket(pid, fd, inode.wrapping_add(1)));
        drop(socket);
        assert!(!has_socket(pid, fd, inode));
        assert!(pids().expect("/proc is there").any(|number| number == pid));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_and_no_panic() {
        assert!(sockets(i32::MAX).is_err());
        assert!(!has_socket(i32::MAX, 0, 0));
    }
}
