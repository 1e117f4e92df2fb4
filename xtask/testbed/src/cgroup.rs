//! Cgroups (v2): where the hierarchy is mounted, and directories in it that are ours.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use crate::poll;

/// Dying processes keep their cgroup busy until the last of their threads has gone, which takes milliseconds.
const REMOVAL: Duration = Duration::from_secs(5);

/// Where cgroup v2 is mounted: `/sys/fs/cgroup` on most hosts, a directory below it on hybrid ones.
pub(crate) fn mount_point() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    parse_mount_point(&mounts).ok_or_else(|| {
        anyhow!("cgroup v2 is not mounted: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`")
    })
}

fn parse_mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// The directory and all below it, parents first.
pub(crate) fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while next < found.len() {
        // A cgroup may vanish while we walk; then it has no children either.
        let entries = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        let mut below: Vec<_> =
            entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
        below.sort();
        found.extend(below);
        next += 1;
    }
    found
}

/// The processes in the cgroup and below it.
pub(crate) fn processes_in(directory: &Path) -> Vec<i32> {
    let read = |path: PathBuf| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    tree(directory)
        .into_iter()
        .map(read)
        .flat_map(|pids| pids.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Removes the cgroup and all below it, which must have no more than dying processes in them.
pub(crate) fn remove(directory: &Path) -> anyhow::Result<()> {
    let what = format!("{} could be removed (processes still in it?)", directory.display());
    poll::until(&what, REMOVAL, || {
        if !directory.exists() {
            return Ok(Some(()));
        }
        for path in tree(directory).iter().rev() {
            match fs::remove_dir(path).map_err(|error| error.kind()) {
                Ok(()) | Err(ErrorKind::NotFound | ErrorKind::ResourceBusy) => {}
                Err(kind) => bail!("cannot remove the cgroup {}: {kind}", path.display()),
            }
        }
        Ok(None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_unified_hierarchy() {
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(parse_mount_point(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(
            parse_mount_point("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"),
            Some("/sys/fs/cgroup".into())
        );
        assert_eq!(parse_mount_point("tmpfs /run tmpfs rw 0 0\n"), None);
    }
}
