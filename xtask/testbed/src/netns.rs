//! One network namespace with a name.

use std::fs::{self, File};
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};

use crate::program;

/// Where iproute2 keeps the names.
const DIRECTORY: &str = "/run/netns";

/// A network namespace, open, so that children can enter it without a path look-up.
///
/// Never entered by `ip netns exec`: that remounts `/sys`, and then the child sees no cgroups.
#[derive(Debug, Clone)]
pub(crate) struct Netns {
    name: String,
    file: Arc<File>,
}

impl Netns {
    pub(crate) fn create(name: &str) -> anyhow::Result<Self> {
        program::run(Command::new("ip").args(["netns", "add", name]), "")?;
        let file = File::open(path(name)).with_context(|| format!("cannot open the namespace {name}"))?;
        Ok(Self { name: name.to_owned(), file: Arc::new(file) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace. Safe to call between `fork` and `exec`.
    pub(crate) fn enter(&self) -> std::io::Result<()> {
        Ok(setns(&*self.file, CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs lines of `ip` commands in it, in one process since a bed needs some twenty of them.
    pub(crate) fn ip(&self, lines: &[String]) -> anyhow::Result<String> {
        program::run(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), &lines.join("\n"))
    }
}

/// The names of all namespaces of this machine.
pub(crate) fn names() -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        // The first `ip netns add` after boot makes the directory.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {DIRECTORY}")),
    };
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("cannot read {DIRECTORY}"))?;
    names.sort();
    Ok(names)
}

/// Removes the name. The namespace itself goes when its last process and the last fd on it have gone.
pub(crate) fn remove(name: &str) -> anyhow::Result<()> {
    if path(name).exists() {
        program::run(Command::new("ip").args(["netns", "del", name]), "")?;
    }
    anyhow::ensure!(!path(name).exists(), "{} is still there after `ip netns del`", path(name).display());
    Ok(())
}

/// What identifies a namespace: device and inode of the files that stand for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

/// The namespace that has this name; none where there is no such name.
pub(crate) fn identity(name: &str) -> Option<Identity> {
    identity_of(&path(name))
}

/// Processes whose main thread is in one of these namespaces. Never in our own, whatever name it has been given.
pub(crate) fn processes_in(namespaces: &[Identity]) -> Vec<i32> {
    let own = identity_of(Path::new("/proc/self/ns/net"));
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let identity = identity_of(Path::new(&format!("/proc/{pid}/ns/net")));
            identity != own && identity.is_some_and(|identity| namespaces.contains(&identity))
        })
        .collect()
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn identity_of(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|metadata| Identity(metadata.st_dev(), metadata.st_ino()))
}
