//! By what the kernel knows that somebody is of a target, where that is not their process alone.
//!
//! Programs and cgroups stand in two tables each: by what they are, and by name. The second one is for their replacements:
//! an upgraded program is another file, and a unit that is restarted another cgroup.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use aya::{
    Ebpf, Pod,
    maps::{HashMap, IterableMap, MapData, MapError},
};
use chadthrottle_common::{CgroupPath, FileId, ProgramPlace};

use super::{Engine, limits::absent_is_fine, object::take};
use crate::{
    backends::throttle::Subject,
    sys::{bpf_map, file_id::file_id},
};

/// The id of a cgroup that is not there: the root's is 1 (`cgroup_id()`, include/linux/cgroup.h; fs/kernfs).
const ABSENT: u64 = 0;

/// By what the kernel knows a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// By its members alone.
    Members,
    /// By a file, and by where that is.
    Program(FileId, Option<Box<ProgramPlace>>),
    /// By an id, and by a path in the tree.
    Cgroup(u64, Option<Box<CgroupPath>>),
    /// By a user id.
    User(u32),
}

/// The tables, each with the number of the target.
pub(super) struct Places {
    programs: HashMap<MapData, FileId, u32>,
    programs_by_name: HashMap<MapData, ProgramPlace, u32>,
    cgroups: HashMap<MapData, u64, u32>,
    cgroups_by_path: HashMap<MapData, CgroupPath, u32>,
    users: HashMap<MapData, u32, u32>,
}

impl Place {
    /// Looks for what a subject names.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) fn of(engine: &Engine, subject: &Subject) -> anyhow::Result<Self> {
        Ok(match subject {
            Subject::Process(_) | Subject::Descendants(_) => Self::Members,
            Subject::Program(path) => {
                let file = file_id(path).with_context(|| format!("cannot look at {}", path.display()))?;
                Self::Program(file, named(path).map(Box::new))
            }
            Subject::Cgroup(in_tree) => {
                let directory = directory(engine, in_tree)?;
                let path = path_in_tree(in_tree).map(Box::new);
                match fs::metadata(&directory) {
                    Ok(metadata) => Self::Cgroup(metadata.ino(), path),
                    // The kernel notices when one of this path is made: a unit may not have been started yet.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_some() => {
                        Self::Cgroup(ABSENT, path)
                    }
                    Err(error) => {
                        return Err(error).with_context(|| format!("there is no cgroup {in_tree}"));
                    }
                }
            }
            Subject::User(uid) => Self::User(*uid),
        })
    }
}

impl Places {
    pub(super) fn take(programs: &mut Ebpf) -> anyhow::Result<Self> {
        Ok(Self {
            programs: take(programs, "CHAD_LIM_PROG")?,
            programs_by_name: take(programs, "CHAD_LIM_PLACE")?,
            cgroups: take(programs, "CHAD_LIM_CGROUP")?,
            cgroups_by_path: take(programs, "CHAD_LIM_PATH")?,
            users: take(programs, "CHAD_LIM_USER")?,
        })
    }

    /// Has the kernel know a place, or know it no longer, by what `others` has: every target that there is, with its
    /// place. Several may have the same: one file has several names.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn settle<'a>(
        &mut self,
        place: &Place,
        others: &(impl Iterator<Item = (&'a Place, u32)> + Clone),
    ) -> anyhow::Result<()> {
        let number = |is_same: &dyn Fn(&Place) -> bool| {
            others.clone().find(|(other, _)| is_same(other)).map(|(_, number)| number)
        };
        match place {
            Place::Members => Ok(()),
            Place::Program(file, by_name) => {
                let target = number(&|other| matches!(other, Place::Program(other, _) if other == file));
                write(&mut self.programs, file, target)?;
                let Some(by_name) = by_name else { return Ok(()) };
                let target =
                    number(&|other| matches!(other, Place::Program(_, Some(other)) if other == by_name));
                write(&mut self.programs_by_name, by_name, target)
            }
            Place::Cgroup(id, path) => {
                let target = number(&|other| matches!(other, Place::Cgroup(other, _) if other == id));
                // Nobody is in one that is not there, and a key for it might be taken for one that is.
                if *id != ABSENT {
                    write(&mut self.cgroups, id, target)?;
                }
                let Some(path) = path else { return Ok(()) };
                let target = number(&|other| matches!(other, Place::Cgroup(_, Some(other)) if other == path));
                write(&mut self.cgroups_by_path, path, target)
            }
            Place::User(uid) => write(&mut self.users, uid, number(&|other| other == place)),
        }
    }

    /// Forgets the cgroups of a target that the kernel has added by itself, but for the one that it has now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn forget_former_cgroups(&mut self, target: u32, now: Option<u64>) -> anyhow::Result<()> {
        let mut former = Vec::new();
        bpf_map::read_all(self.cgroups.map().fd(), 1, |id: u64, number: &[u32]| {
            if number.first() == Some(&target) && Some(id) != now {
                former.push(id);
            }
        })?;
        for id in former {
            absent_is_fine(self.cgroups.remove(&id))?;
        }
        Ok(())
    }
}

fn write<K: Pod>(table: &mut HashMap<MapData, K, u32>, key: &K, target: Option<u32>) -> anyhow::Result<()> {
    let written: Result<(), MapError> = match target {
        Some(target) => table.insert(key, target, 0),
        None => absent_is_fine(table.remove(key)),
    };
    written.context("too many limits, or no memory for one")
}

/// A file's name, and the directory that has it.
fn named(path: &Path) -> Option<ProgramPlace> {
    let directory = file_id(path.parent()?).ok()?;
    let name = padded(path.file_name()?.as_bytes())?;
    Some(ProgramPlace { directory, name })
}

/// A cgroup's path. Of a longer one only userspace sees that it is made again.
fn path_in_tree(in_tree: &str) -> Option<CgroupPath> {
    // The one byte less is that by which the kernel knows what it has not cut off.
    padded(in_tree.as_bytes())
        .filter(|bytes: &[u8; _]| bytes[bytes.len() - 2] == 0)
        .map(|bytes| CgroupPath { bytes })
}

/// With zero bytes behind, one at least.
fn padded<const LENGTH: usize>(text: &[u8]) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    bytes.get_mut(..text.len())?.copy_from_slice(text);
    (text.len() < LENGTH).then_some(bytes)
}

/// Where a cgroup is in the file system.
fn directory(engine: &Engine, in_tree: &str) -> anyhow::Result<PathBuf> {
    let root = engine.cgroup();
    match Path::new(in_tree).strip_prefix(&root.in_tree) {
        Ok(below) => Ok(root.path.join(below)),
        Err(_) => bail!(
            "the cgroup {in_tree} is outside {}; choose a --cgroup-root above it, or none",
            root.path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_zero_byte_at_their_end_and_none_is_cut_off() {
        assert_eq!(padded::<4>(b"abc"), Some(*b"abc\0"));
        assert_eq!(padded::<4>(b"abcd"), None);
        assert_eq!(padded::<4>(b"abcde"), None);
        assert!(path_in_tree(&"x".repeat(254)).is_some());
        assert!(path_in_tree(&"x".repeat(255)).is_none());
    }
}
