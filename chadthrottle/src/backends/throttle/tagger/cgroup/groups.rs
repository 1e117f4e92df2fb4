//! The cgroups of ours that the processes of one target are in, each below the one that they were in.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::libc;

use super::journal::{Moved, PREFIX};
use crate::{
    backends::throttle::{Subject, processes::belongs},
    sys::{
        cgroup_place::{Kind, Tree, depth, dissolve, holds, move_to, processes, set_class},
        kernel_version::kernel_version,
        nft::Expression,
    },
};

/// Before that the two kinds of membership of a socket shut each other out (`sock_cgroup_data`).
const BOTH_KINDS: (u32, u32) = (5, 15);

/// The tree whose cgroups tell more. In cgroup v2 the rules count depths, which are others in a container.
pub(super) fn tree() -> Option<Tree> {
    let mut all = Tree::all();
    all.retain(|tree| tree.kind == Kind::NetCls || Tree::is_whole());
    let is_harmless = kernel_version().is_none_or(|version| version >= BOTH_KINDS);
    let wanted = if is_harmless { Kind::NetCls } else { Kind::V2 };
    let best = all.iter().position(|tree| tree.kind == wanted).unwrap_or(0);
    (!all.is_empty()).then(|| all.swap_remove(best))
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Its path in the tree.
    pub(super) in_tree: PathBuf,
    directory: PathBuf,
    /// What its packets are known by.
    pub(super) known_by: Expression<'static>,
}

impl Group {
    /// The cgroup that is to be around that of a process: its own, or the one that it was in before it was moved.
    pub(super) fn around(in_tree: &Path) -> &Path {
        let is_ours =
            in_tree.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        if is_ours { in_tree.parent().unwrap_or(in_tree) } else { in_tree }
    }

    /// What is noted of one of this path.
    pub(super) fn noted(tree: &Tree, in_tree: &Path) -> Moved {
        Moved { mount: tree.mount.clone(), directory: tree.directory(in_tree) }
    }

    /// Makes it. It is noted by now.
    pub(super) fn make(tree: &Tree, in_tree: &Path, class: u32) -> io::Result<Self> {
        let directory = tree.directory(in_tree);
        fs::create_dir(&directory)?;
        let known_by = match tree.kind {
            // Its number is that of its directory (`cgroup_id`).
            Kind::V2 => fs::metadata(&directory)
                .map(|metadata| Expression::Cgroup { level: depth(in_tree), id: metadata.ino() }),
            Kind::NetCls => set_class(&directory, class).map(|()| Expression::Class(class)),
        };
        let known_by = known_by.inspect_err(|_| drop(fs::remove_dir(&directory)))?;
        Ok(Self { in_tree: in_tree.to_owned(), directory, known_by })
    }

    pub(super) fn is_empty(&self) -> bool {
        processes(&self.directory).is_empty()
    }

    /// Takes a process in. None is there any more is no error.
    pub(super) fn take(&self, pid: i32) -> io::Result<()> {
        match move_to(&self.directory, pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Sends those away that are in it because somebody started them who is, and whom the target does not cover.
    pub(super) fn send_others_away(&self, subject: &Subject, members: &HashSet<i32>) {
        let is_other =
            |pid: &i32| !members.contains(pid) && !belongs(*pid, subject) && holds(&self.directory, *pid);
        for pid in processes(&self.directory).into_iter().filter(is_other) {
            if let Some(around) = self.directory.parent() {
                // It has ended.
                let _ = move_to(around, pid);
            }
        }
    }

    /// Moves everybody back, and removes it.
    pub(super) fn dissolve(&self) -> io::Result<()> {
        dissolve(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_moved_already_belongs_where_he_was() {
        let around = |path| Group::around(Path::new(path)).to_str().unwrap_or_default().to_owned();
        assert_eq!(around("/"), "/");
        assert_eq!(around("/a.slice/b.service"), "/a.slice/b.service");
        assert_eq!(around("/a.slice/chadthrottle-tag-1-2-3"), "/a.slice");
        assert_eq!(around("/chadthrottle-tag-1-2-3"), "/");
    }
}
