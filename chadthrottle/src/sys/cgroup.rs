//! The cgroup v2 tree.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use super::proc_text;

/// Why a cgroup could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Nothing is mounted.
    #[error(
        "no cgroup v2 tree is mounted; mount one: mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2"
    )]
    NotMounted,
    /// The path is something else.
    #[error("{0:?} is not in a cgroup v2 tree; `mount -t cgroup2` lists where one is")]
    NotCgroup2(PathBuf),
    /// It cannot be opened.
    #[error("cannot open the cgroup {path:?}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A cgroup that programs can be attached to.
#[derive(Debug)]
pub struct CgroupRoot {
    /// The opened directory.
    pub dir: File,
    /// Its inode number, which is the cgroup's id (`cgroup_id()`, include/linux/cgroup.h).
    pub id: u64,
    /// Where it is in the file system.
    pub path: PathBuf,
    /// Its path from the root of the tree, as in /proc/PID/cgroup: `/` for the root itself.
    pub in_tree: String,
}

impl CgroupRoot {
    /// Opens the cgroup at `path`, or the root of the tree that is mounted.
    ///
    /// # Errors
    /// When there is no tree, or `path` is not in one.
    pub fn open(path: Option<&Path>) -> Result<Self, CgroupError> {
        let mounts = mounts();
        let path = match path {
            Some(path) => path.to_owned(),
            None => mounts.first().cloned().ok_or(CgroupError::NotMounted)?,
        };
        let unreadable = |source| CgroupError::Unreadable { path: path.clone(), source };
        let dir = File::open(&path).map_err(unreadable)?;
        let kind = fstatfs(&dir).map_err(|error| unreadable(error.into()))?.filesystem_type();
        let metadata = dir.metadata().map_err(unreadable)?;
        if kind != CGROUP2_SUPER_MAGIC || !metadata.is_dir() {
            return Err(CgroupError::NotCgroup2(path));
        }
        let real = path.canonicalize().map_err(unreadable)?;
        // The longest mount point wins: a tree may be mounted a second time below the first.
        let below = mounts.iter().filter_map(|mount| real.strip_prefix(mount).ok());
        let in_tree = below
            .min_by_key(|rest| rest.as_os_str().len())
            .map_or_else(String::new, |rest| rest.to_string_lossy().into_owned());
        Ok(Self { dir, id: metadata.ino(), path, in_tree: format!("/{in_tree}") })
    }

    /// Whether a cgroup, by its path in the tree, is this one or below it.
    #[must_use]
    pub fn contains(&self, in_tree: &str) -> bool {
        Path::new(in_tree).starts_with(&self.in_tree)
    }

    /// The paths in the tree of this cgroup and all below it.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut names = CgroupNames::default();
        names.walk(&self.path, self.in_tree.trim_end_matches('/'), DEEPEST);
        let mut paths: Vec<String> = names.known.into_values().chain([self.in_tree.clone()]).collect();
        paths.sort();
        paths
    }

    /// The file that a process writes "0" to, to move itself here.
    #[must_use]
    pub fn procs_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

/// The path in the tree of the cgroup that somebody gives, by that path or by where it is in the file system.
///
/// # Errors
/// In words, when there is none.
pub fn named(root: &CgroupRoot, given: &str) -> Result<String, String> {
    let trimmed = if given == "/" { given } else { given.trim_end_matches('/') };
    let below = Path::new(trimmed).strip_prefix(&root.in_tree).map(|below| root.path.join(below));
    if below.is_ok_and(|path| path.is_dir()) && trimmed.starts_with('/') {
        return Ok(trimmed.to_owned());
    }
    match CgroupRoot::open(Some(Path::new(given))) {
        Ok(found) if root.contains(&found.in_tree) => Ok(found.in_tree),
        _ => Err(format!(
            "there is no cgroup {given:?} in the tree at {}; give its path as in /proc/PID/cgroup",
            root.path.display()
        )),
    }
}

/// The path in the tree of the cgroup of a systemd unit, which has the unit's name.
///
/// # Errors
/// In words, when there is none or more than one.
pub fn unit(root: &CgroupRoot, name: &str) -> Result<String, String> {
    let mut names = CgroupNames::default();
    names.walk(&root.path, root.in_tree.trim_end_matches('/'), DEEPEST);
    let mut found: Vec<String> =
        names.known.into_values().filter(|path| path.rsplit('/').next() == Some(name)).collect();
    found.sort();
    match found.as_slice() {
        [] => Err(format!(
            "no unit {name:?} runs; `systemctl list-units` lists those that do, with their endings"
        )),
        [_] => Ok(found.remove(0)),
        several => Err(format!(
            "several units are called {name:?}; choose one with --cgroup: {}",
            several.join(", ")
        )),
    }
}

/// Paths of cgroups by their ids, for processes that have ended and cannot be asked any more.
#[derive(Debug, Default)]
pub struct CgroupNames {
    known: HashMap<u64, String>,
    /// Whether the tree may have changed since it was walked.
    may_have_changed: bool,
}

impl CgroupNames {
    /// From here on, one who is not known is looked for anew, once.
    pub fn begin(&mut self) {
        self.may_have_changed = true;
    }

    /// The path in the tree of a cgroup that is `root` or below it; `None` where it has been removed.
    pub fn name(&mut self, root: &CgroupRoot, id: u64) -> Option<String> {
        if !self.known.contains_key(&id) && self.may_have_changed {
            self.may_have_changed = false;
            self.known.clear();
            self.known.insert(root.id, root.in_tree.clone());
            self.walk(&root.path, root.in_tree.trim_end_matches('/'), DEEPEST);
        }
        self.known.get(&id).cloned()
    }

    fn walk(&mut self, directory: &Path, in_tree: &str, depth: u32) {
        // What cannot be read is being removed.
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = format!("{in_tree}/{}", entry.file_name().to_string_lossy());
            if depth > 0 {
                self.walk(&entry.path(), &name, depth - 1);
            }
            self.known.insert(entry.ino(), name);
        }
    }
}

/// Deeper cgroups have no names: systemd and container runtimes stay far above.
const DEEPEST: u32 = 64;

/// Where cgroup v2 is mounted.
fn mounts() -> Vec<PathBuf> {
    let text = proc_text::read("/proc/self/mounts").unwrap_or_default();
    mount_points(&text)
}

/// The mount points of type cgroup2 in the format of fstab(5), where blanks are written as `\040`.
fn mount_points(mounts: &str) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| {
                let point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
                PathBuf::from(point.replace("\\134", "\\"))
            })
        })
        .collect()
}

/// Every mount point that is read is one that is written.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(text: &str) {
    assert!(mount_points(text).len() <= text.lines().count());
    let written: String = text.bytes().filter(|byte| *byte != 0).map(char::from).collect();
    let point =
        written.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012");
    assert_eq!(mount_points(&format!("none {point} cgroup2 rw 0 0\n")), [PathBuf::from(written)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_among_others() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n\
                      broken\n";
        assert_eq!(mount_points(mounts), [PathBuf::from("/sys/fs/cgroup/uni fied")]);
    }

    #[test]
    fn a_cgroup_has_the_inode_number_of_its_directory_for_an_id() {
        let tree = tempfile::tempdir().expect("a directory");
        let inner = tree.path().join("a.slice/b.service");
        fs::create_dir_all(&inner).expect("directories");
        let id = |path: &Path| fs::metadata(path).expect("is there").ino();
        let root = CgroupRoot {
            dir: File::open(tree.path()).expect("opens"),
            id: id(tree.path()),
            path: tree.path().to_owned(),
            in_tree: "/x".into(),
        };
        let mut names = CgroupNames::default();
        names.begin();
        assert_eq!(names.name(&root, id(&inner)).as_deref(), Some("/x/a.slice/b.service"));
        assert_eq!(names.name(&root, root.id).as_deref(), Some("/x"));
        let late = inner.join("late");
        fs::create_dir(&late).expect("a directory");
        assert_eq!(names.name(&root, id(&late)), None, "not walked twice");
        names.begin();
        assert_eq!(names.name(&root, id(&late)).as_deref(), Some("/x/a.slice/b.service/late"));
    }

    #[test]
    fn units_are_found_by_their_names() {
        let tree = tempfile::tempdir().expect("a directory");
        for path in ["system.slice/a.service", "user.slice/b.service", "user.slice/x/b.service"] {
            fs::create_dir_all(tree.path().join(path)).expect("directories");
        }
        let root = CgroupRoot {
            dir: File::open(tree.path()).expect("opens"),
            id: 1,
            path: tree.path().to_owned(),
            in_tree: "/".into(),
        };
        assert_eq!(unit(&root, "a.service").as_deref(), Ok("/system.slice/a.service"));
        assert_eq!(named(&root, "/user.slice/").as_deref(), Ok("/user.slice"));
        assert!(
            unit(&root, "b.service")
                .expect_err("two")
                .contains("/user.slice/b.service, /user.slice/x/b.service")
        );
        assert!(unit(&root, "a").expect_err("none").contains("no unit"));
        assert!(named(&root, "/nowhere").expect_err("none").contains("no cgroup"));
        assert!(named(&root, "user.slice").expect_err("no path").contains("no cgroup"));
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        let error = CgroupRoot::open(Some(Path::new("/tmp"))).expect_err("no cgroup");
        assert!(matches!(error, CgroupError::NotCgroup2(_)), "{error}");
        let error = CgroupRoot::open(Some(Path::new("/no/such/place"))).expect_err("nothing there");
        assert!(matches!(error, CgroupError::Unreadable { .. }), "{error}");
    }
}
