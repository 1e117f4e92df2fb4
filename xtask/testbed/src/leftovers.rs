//! The names of what a bed makes, and the removal of it: by the bed itself and, after a kill, by the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{cgroup, netns, poll};

/// What every namespace and cgroup of every bed begins with, before the pid of the process that made it.
const PREFIX: &str = "chadtest-";

/// The first part of the names of this process's bed.
pub(crate) fn name(bed: &str) -> String {
    // A test's path makes a good name for a bed, but not for a file.
    let bed: String = bed.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
    format!("{PREFIX}{}-{bed}", std::process::id())
}

/// Kills what still runs in the namespaces and the cgroup of one bed, and removes them. Does all that it can and
/// then reports every error.
pub(crate) fn remove(namespaces: &[String], cgroups: &[PathBuf]) -> anyhow::Result<()> {
    // Before the names go: without them we could not find the processes.
    let killed = kill_all(namespaces, cgroups);
    let results = std::iter::once(killed)
        .chain(namespaces.iter().map(|name| netns::remove(name)))
        .chain(cgroups.iter().map(|path| cgroup::remove(path)));
    let errors: Vec<String> =
        results.filter_map(Result::err).map(|error: anyhow::Error| format!("{error:#}")).collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(anyhow!("the bed left something behind: {}", errors.join("; ")))
    }
}

/// Removes what killed runs left. Only to be called with the machine-wide lock held.
pub(crate) fn sweep(cgroup_mount: &Path) -> anyhow::Result<()> {
    let namespaces: Vec<_> = netns::names()?.into_iter().filter(|name| is_leftover(name)).collect();
    let entries =
        fs::read_dir(cgroup_mount).with_context(|| format!("cannot read {}", cgroup_mount.display()))?;
    let cgroups: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_leftover))
        .map(|entry| entry.path())
        .collect();
    remove(&namespaces, &cgroups).context("cannot remove what a killed run left")
}

/// Whether this is the name of something that a bed made and no living bed owns.
fn is_leftover(name: &str) -> bool {
    let Some(owner) = owner(name) else { return false };
    // With the lock held no bed of this process is alive, so what has our pid is from an older process of that pid.
    owner.cast_unsigned() == std::process::id() || kill(Pid::from_raw(owner), None) == Err(Errno::ESRCH)
}

/// The pid in a name of ours.
fn owner(name: &str) -> Option<i32> {
    let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    // Nothing but a positive number, since zero and negative ones are process groups to kill(2).
    pid.parse().ok().filter(|pid| *pid > 0)
}

/// Kills every process that is in one of the namespaces or cgroups, which nobody but a bed puts one into.
fn kill_all(namespaces: &[String], cgroups: &[PathBuf]) -> anyhow::Result<()> {
    let identities: Vec<_> = namespaces.iter().filter_map(|name| netns::identity(name)).collect();
    let me = std::process::id().cast_signed();
    // Again and again: a process may fork between the look and the kill.
    poll::until("the bed's processes are dead", Duration::from_secs(5), || {
        let mut pids = netns::processes_in(&identities);
        pids.extend(cgroups.iter().flat_map(|path| cgroup::processes_in(path)));
        pids.retain(|pid| *pid != me && *pid > 0);
        for pid in &pids {
            // One that has died meanwhile is as good as killed.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        Ok(pids.is_empty().then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_have_an_owner() {
        assert_eq!(owner("chadtest-12-upload-client"), Some(12));
        for other in [
            "chadtest-",
            "chadtest-12",
            "chadtest-0-a",
            "chadtest--1-a",
            "chadtest-x-a",
            "web",
            "x-chadtest-1-a",
        ] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_living_process_owns_is_no_leftover() {
        assert!(!is_leftover("chadtest-1-init"));
        // Larger than any pid can be (2^22).
        assert!(is_leftover("chadtest-2147483647-x"));
    }

    #[test]
    fn a_test_path_becomes_a_file_name() {
        assert!(name("throttle::up/down").ends_with("-throttle--up-down"));
    }
}
