//! What processes are, as it was read within the last moment.
//!
//! A thousand limits ask that of every process, one after the other, and each answer takes the kernel some ten
//! microseconds. Within a moment all of them get the same one.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use procfs::process::Process;

use crate::{process::cgroup_path, sys::proc_text::Status};

/// How long a moment is: what is looked for is looked for again as soon (`flow::target::search`).
const MOMENT: Duration = Duration::from_millis(10);

/// Which file it is: device and inode.
type File = (u64, u64);

/// What has been asked so far. `None` of who has ended, or does not tell.
#[derive(Debug, Default)]
struct Moment {
    since: Option<Instant>,
    programs: HashMap<i32, Option<(PathBuf, File)>>,
    files: HashMap<PathBuf, Option<File>>,
    cgroups: HashMap<i32, Option<String>>,
    users: HashMap<i32, Option<u32>>,
}

thread_local! {
    static NOW: RefCell<Moment> = RefCell::default();
}

/// The name of the program that a process executes, as /proc has it, and its file.
pub(super) fn program<T>(pid: i32, look: impl FnOnce(&Path, File) -> T) -> Option<T> {
    let read = || {
        let link = format!("/proc/{pid}/exe");
        Some((fs::read_link(&link).ok()?, file_of(Path::new(&link))?))
    };
    with(|moment| moment.programs.entry(pid).or_insert_with(read).clone())
        .map(|(name, file)| look(&name, file))
}

/// Which file there is at a path.
pub(super) fn file(path: &Path) -> Option<File> {
    with(|moment| {
        if let Some(known) = moment.files.get(path) {
            return *known;
        }
        let file = file_of(path);
        moment.files.insert(path.to_owned(), file);
        file
    })
}

/// Whether a process is in a cgroup, or in one below it.
pub(super) fn is_in(pid: i32, path: &str) -> bool {
    let read = || Process::new(pid).ok().and_then(|process| cgroup_path(&process));
    with(|moment| {
        let cgroup = moment.cgroups.entry(pid).or_insert_with(read);
        cgroup.as_deref().is_some_and(|cgroup| Path::new(cgroup).starts_with(path))
    })
}

/// The effective user of a process.
pub(super) fn user(pid: i32) -> Option<u32> {
    let read = || Some(Status::of(&Process::new(pid).ok()?).ok()?.effective_uid);
    with(|moment| *moment.users.entry(pid).or_insert_with(read))
}

/// Ends the moment: what is asked next is read anew.
pub(super) fn is_over() {
    NOW.with_borrow_mut(|moment| moment.since = None);
}

fn with<T>(ask: impl FnOnce(&mut Moment) -> T) -> T {
    NOW.with_borrow_mut(|moment| {
        if moment.since.is_none_or(|since| since.elapsed() > MOMENT) {
            *moment = Moment { since: Some(Instant::now()), ..Moment::default() };
        }
        ask(moment)
    })
}

fn file_of(path: &Path) -> Option<File> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_has_ended_is_nobody_a_moment_later() -> anyhow::Result<()> {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn()?;
        let pid = child.id().cast_signed();
        assert!(user(pid).is_some() && is_in(pid, "/") && program(pid, |_, _| ()).is_some());
        drop(child.stdin.take());
        child.wait()?;
        testbed::until("the moment is over", Duration::from_secs(10), || {
            let is_known = user(pid).is_some() || is_in(pid, "/") || program(pid, |_, _| ()).is_some();
            Ok((!is_known).then_some(()))
        })
    }

    #[test]
    fn a_file_that_is_replaced_is_another_one_a_moment_later() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("file");
        fs::write(&path, "one")?;
        let first = file(&path);
        assert_eq!(first, file_of(&path));
        // Both are there at once, so that the second one has another inode.
        fs::write(directory.path().join("new"), "two")?;
        fs::rename(directory.path().join("new"), &path)?;
        testbed::until("the moment is over", Duration::from_secs(10), || {
            Ok((file(&path) != first).then_some(()))
        })
    }
}
