//! The cgroups that processes were moved to, noted before they are made, since they outlive a SIGKILL.
//!
//! Each is below the one that its processes were in, so that the note says all that there is to say of where they belong.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::{
    backends::throttle::notes::{self, Left, Noted},
    process::ProcessId,
    sys::cgroup_place::{dissolve, is_cgroup},
};

/// What the names of notes begin with; the number of the tagger follows.
const KIND: &str = "cgroups";
/// How the names of our cgroups begin.
pub(super) const PREFIX: &str = "chadthrottle-tag-";

/// A number that nothing else of this process has: taggers, which have a note each, cgroups and tables are told apart by
/// it. While one backend takes over from another there are two taggers.
pub(super) fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A cgroup of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moved {
    /// Where its tree is mounted.
    pub(super) mount: PathBuf,
    /// Where it is.
    pub(super) directory: PathBuf,
}

/// Notes that these are there, or about to be, in the note of the tagger with that number.
pub(super) fn note(noted: &mut Option<Noted>, tagger: u32, all: &[Moved]) -> io::Result<()> {
    if let Some(noted) = noted {
        return noted.write(&all);
    }
    *noted = Some(Noted::new(&format!("{KIND}-{tagger}"), &all)?);
    Ok(())
}

/// What one killed program left.
#[derive(Debug)]
pub struct Leftover(Left<Vec<Moved>>);

/// What killed programs left, in whatever network namespace they ran: cgroups go with none.
///
/// # Errors
/// When the notes cannot be read.
pub fn leftovers() -> io::Result<Vec<Leftover>> {
    let left = notes::of_any_network(KIND, |maker| !maker.is_alive())?;
    Ok(left.into_iter().map(Leftover).collect())
}

/// What a process that has just ended left.
pub(in crate::backends::throttle) fn of(process: ProcessId) -> io::Result<Vec<Leftover>> {
    Ok(notes::of_any_network(KIND, |maker| maker == process)?.into_iter().map(Leftover).collect())
}

impl Leftover {
    /// What it is, a line each.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let Left { maker, what, .. } = &self.0;
        let line =
            |moved: &Moved| format!("the cgroup {}, left by process {maker}", moved.directory.display());
        what.iter().map(line).collect()
    }

    /// Moves the processes back and removes the cgroups. What is not there any more is left alone.
    ///
    /// # Errors
    /// What could not be removed; everything else has been.
    pub fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for moved in &self.0.what {
            if let Err(error) = remove(moved) {
                result = Err(io::Error::other(format!("{}: {error}", moved.directory.display())));
            }
        }
        result.and_then(|()| self.0.forget())
    }
}

/// Whatever a note says, nothing else than a cgroup with a name of ours is removed.
fn remove(moved: &Moved) -> io::Result<()> {
    if !is_sound(moved) {
        return Err(io::Error::other("that is none of our cgroups"));
    }
    if !is_cgroup(&moved.mount) {
        let why = format!("no cgroups are mounted at {} here", moved.mount.display());
        return Err(io::Error::other(why));
    }
    dissolve(&moved.directory)
}

fn is_sound(Moved { mount, directory }: &Moved) -> bool {
    let is_ours =
        directory.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
    is_ours
        && directory.starts_with(mount)
        && directory.components().all(|part| part.as_os_str() != Path::new(".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_what_has_our_name_is_removed() {
        let moved = |directory: &str| Moved { mount: "/sys/fs/cgroup".into(), directory: directory.into() };
        assert!(is_sound(&moved("/sys/fs/cgroup/a.slice/chadthrottle-tag-7-9-1")));
        for other in [
            "/sys/fs/cgroup/a.slice",
            "/sys/fs/cgroup",
            "/tmp/chadthrottle-tag-7-9-1",
            "/sys/fs/cgroup/../../tmp/chadthrottle-tag-7-9-1",
        ] {
            assert!(remove(&moved(other)).is_err(), "{other}");
        }
        let elsewhere = Moved { mount: "/tmp".into(), directory: "/tmp/chadthrottle-tag-7-9-1".into() };
        assert!(remove(&elsewhere).expect_err("no cgroups").to_string().contains("no cgroups are mounted"));
    }
}
