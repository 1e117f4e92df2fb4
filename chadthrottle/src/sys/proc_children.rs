//! Whose children a process's are.

use std::{fs, io, os::unix::fs::MetadataExt};

use nix::unistd::geteuid;

/// The processes that any of a process's threads has started and that have not ended, by `/proc/PID/task/TID/children`
/// (`CONFIG_PROC_CHILDREN`). None where it has ended.
#[must_use]
pub fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|line| line.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// From now on a descendant of this process whose own parent ends becomes its child (`PR_SET_CHILD_SUBREAPER`), and
/// does not get lost to the first process of all. It is to be waited for.
///
/// # Errors
/// When the kernel refuses.
pub fn adopt_orphans() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// What `kernel.yama.ptrace_scope` says, where this kernel has it: 0 for one's own processes, 1 for descendants, more
/// for nobody without privilege.
#[must_use]
pub fn ptrace_scope() -> Option<u32> {
    fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?.trim().parse().ok()
}

/// Whether this process runs as the user that another one does.
#[must_use]
pub fn is_own(pid: i32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|metadata| metadata.uid() == geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_seen_until_it_has_been_waited_for() -> io::Result<()> {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn()?;
        let (ours, pid) = (std::process::id().cast_signed(), child.id().cast_signed());
        assert!(children(ours).contains(&pid));
        assert!(is_own(pid));
        drop(child.stdin.take());
        child.wait()?;
        assert!(!children(ours).contains(&pid));
        Ok(())
    }
}
