//! What people call containers: a cgroup has a container's number, and only its runtime knows the name.
//!
//! The runtime is not asked, which may take as long as it likes: what it has written down is read. Root's
//! files name containers whose cgroups root has made. Another user's files name those in cgroups which that user has made,
//! and such a name begins with the user's (`ada/web`): nobody's file says anything of somebody else's container, and no
//! container of a user's is taken for one of root's.

mod stores;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::unistd::{Uid, User, geteuid};

use self::stores::{Runtime, Shelf};
use crate::sys::cgroup::CgroupRoot;

/// For so long a name is believed: a container may be given another one.
const BELIEVED: Duration = Duration::from_secs(2);
/// So many cgroups are remembered; with more, all are forgotten.
const MOST_KNOWN: usize = 4096;
const ROOT: u32 = 0;
/// A number has so many digits.
const DIGITS: usize = 64;
/// Runtimes by what they put before the number of a container in the name of its cgroup.
const PREFIXES: [(&str, Runtime); 4] = [
    ("docker-", Runtime::Docker),
    ("libpod-", Runtime::Podman),
    // Both keep their containers in the same storage.
    ("crio-", Runtime::Podman),
    ("nerdctl-", Runtime::Nerdctl),
];

/// Finds names of containers, and remembers them for a moment.
#[derive(Debug)]
pub struct Containers {
    /// Where files are looked for: `/`.
    root: PathBuf,
    /// Where the tree of cgroups is mounted. None where it is not.
    cgroups: Option<PathBuf>,
    /// Whose the files below `root` are: root's.
    system: u32,
    /// Whose containers have their names alone: root's and our own.
    plain: [u32; 2],
    shelf: Shelf,
    /// By cgroup.
    known: HashMap<String, (Instant, Option<String>)>,
    owners: HashMap<u32, Option<Owner>>,
}

/// Somebody with containers.
#[derive(Clone, Debug)]
struct Owner {
    name: String,
    /// Where the user's own stores are.
    data: PathBuf,
}

impl Default for Containers {
    /// Those of this host.
    fn default() -> Self {
        let cgroups = CgroupRoot::open(None).ok().map(|root| root.path);
        Self::below(PathBuf::from("/"), cgroups)
    }
}

impl Containers {
    /// Those whose runtimes have their files below `root`, and whose cgroups are below `cgroups`.
    fn below(root: PathBuf, cgroups: Option<PathBuf>) -> Self {
        Self {
            root,
            cgroups,
            system: ROOT,
            plain: [ROOT, geteuid().as_raw()],
            shelf: Shelf::default(),
            known: HashMap::new(),
            owners: HashMap::new(),
        }
    }

    /// What the innermost container is called that a cgroup is of, by its path in the tree: `web`, or `ada/web` where it is
    /// another user's. None where it is of none, or nobody has written down what it is called.
    pub fn name(&mut self, cgroup: &str) -> Option<String> {
        let (path, runtime, number) = numbered(cgroup)?;
        let now = Instant::now();
        if let Some((at, name)) = self.known.get(path)
            && now.duration_since(*at) < BELIEVED
        {
            return name.clone();
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
            self.owners.clear();
        }
        let name = self.read(path, runtime, number);
        self.known.insert(path.to_owned(), (now, name.clone()));
        name
    }

    fn read(&mut self, path: &str, runtime: Runtime, number: &str) -> Option<String> {
        let owner = self.owner(path)?;
        if owner == self.system {
            return self.shelf.name(runtime, &runtime.system(&self.root), owner, number);
        }
        let Owner { name: user, data } = self.described(owner)?;
        let name = self.shelf.name(runtime, &runtime.users(&data), owner, number)?;
        Some(if self.plain.contains(&owner) { name } else { format!("{user}/{name}") })
    }

    /// Who has made a cgroup: whose the one above it is. Its own may have been given to the container.
    fn owner(&self, path: &str) -> Option<u32> {
        let (above, _) = path.rsplit_once('/')?;
        let above = self.cgroups.as_ref()?.join(above.trim_start_matches('/'));
        Some(fs::metadata(above).ok()?.uid())
    }

    fn described(&mut self, uid: u32) -> Option<Owner> {
        if let Some(known) = self.owners.get(&uid) {
            return known.clone();
        }
        let described = || {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
            let home = user.dir.strip_prefix("/").ok()?.to_owned();
            Some(Owner { name: user.name, data: self.root.join(home).join(".local/share") })
        };
        let owner = described();
        self.owners.insert(uid, owner.clone());
        owner
    }
}

/// Whether a cgroup, by its path in the tree, is that of a container, and not below it.
#[must_use]
pub fn is_one(cgroup: &str) -> bool {
    numbered(cgroup).is_some_and(|(path, ..)| path == cgroup)
}

/// The innermost cgroup of a path that has a container's number: its path, who has given it, and the number.
fn numbered(cgroup: &str) -> Option<(&str, Runtime, &str)> {
    let mut path = cgroup;
    loop {
        let (above, part) = path.rsplit_once('/')?;
        if let Some((runtime, number)) = number(above, part) {
            return Some((path, runtime, number));
        }
        path = above;
    }
}

fn number<'a>(above: &str, part: &'a str) -> Option<(Runtime, &'a str)> {
    let prefixed = PREFIXES.iter().find_map(|(prefix, runtime)| Some((*runtime, part.strip_prefix(prefix)?)));
    let (runtime, rest) = match prefixed {
        Some((runtime, rest)) => (runtime, rest.trim_end_matches(".scope")),
        // Without systemd Docker has cgroups below one of its own.
        None if above.ends_with("/docker") => (Runtime::Docker, part),
        None => return None,
    };
    is_number(rest).then_some((runtime, rest))
}

/// Whether it is the number of a container. None has a slash or a dot in it.
fn is_number(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whatever a cgroup is called, its number is one that can be a file's name; and whatever a store says, a name is one that
/// can be shown.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some((path, _, number)) = numbered(&text) {
        assert!(text.starts_with(path) && path.contains(number) && is_number(number));
    }
    stores::fuzz(bytes);
}

#[cfg(test)]
mod tests;
