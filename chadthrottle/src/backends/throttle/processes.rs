//! The processes that a subject covers, as /proc has them at one moment.

mod moment;

use std::{collections::HashMap, io, path::Path};

use procfs::process::all_processes;

use super::Subject;
use crate::process::ProcessId;

/// Generations that are followed: longer chains of parents are not believed.
const MOST_GENERATIONS: u32 = 1024;
/// What the kernel writes after the path of a program whose file has been removed or replaced (proc(5)).
const DELETED: &str = " (deleted)";

/// A process, and who started it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    id: ProcessId,
    parent: i32,
}

/// All processes.
#[derive(Debug, Default)]
pub struct Processes(HashMap<i32, Seen>);

impl Processes {
    /// Looks at /proc.
    ///
    /// # Errors
    /// When it cannot be listed. Who ends meanwhile is left out.
    pub fn now() -> io::Result<Self> {
        let all = all_processes().map_err(io::Error::other)?;
        let seen = all.flatten().filter_map(|process| {
            let stat = process.stat().ok()?;
            let id = ProcessId { pid: stat.pid, start_time: stat.starttime };
            Some((stat.pid, Seen { id, parent: stat.ppid }))
        });
        Ok(Self(seen.collect()))
    }

    /// Those that a subject covers.
    pub fn of<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = ProcessId> + 'a {
        let ids = self.0.values().map(|seen| seen.id);
        ids.filter(move |id| self.generations(*id, subject).is_some() || belongs(id.pid, subject))
    }

    /// Whether it is there, and covered by this subject.
    #[must_use]
    pub fn is_of(&self, id: ProcessId, subject: &Subject) -> bool {
        self.0.get(&id.pid).is_some_and(|seen| seen.id == id)
            && (self.generations(id, subject).is_some() || belongs(id.pid, subject))
    }

    /// How many generations a process is below the one that a subject is named for; `None` where it is not covered by
    /// that.
    #[must_use]
    pub fn generations(&self, id: ProcessId, subject: &Subject) -> Option<u32> {
        let (&first, goes_on) = match subject {
            Subject::Process(first) => (first, false),
            Subject::Descendants(first) => (first, true),
            _ => return None,
        };
        let mut current = id;
        for generation in 0..MOST_GENERATIONS {
            if current == first {
                return Some(generation);
            }
            if !goes_on {
                return None;
            }
            current = self.0.get(&self.0.get(&current.pid)?.parent)?.id;
        }
        None
    }
}

/// Whether a process is one of those that a subject names by what they are. One that has ended is none.
#[must_use]
pub fn belongs(pid: i32, subject: &Subject) -> bool {
    moment::is_over();
    belonged_lately(pid, subject)
}

/// The same as it was up to 10 ms ago, for whoever looks again and again: a thousand subjects ask it of every process.
#[must_use]
pub fn belonged_lately(pid: i32, subject: &Subject) -> bool {
    match subject {
        Subject::Process(_) | Subject::Descendants(_) => false,
        Subject::Program(path) => executes(pid, path),
        Subject::Cgroup(path) => moment::is_in(pid, path),
        Subject::User(uid) => moment::user(pid) == Some(*uid),
    }
}

/// Whether a process executes the file at `path`, by whatever name, or the one that was there when it was started.
fn executes(pid: i32, path: &Path) -> bool {
    let is_it = |name: &Path, (device, inode)| {
        let is_former = match name.to_str().and_then(|text| text.strip_suffix(DELETED)) {
            Some(former) => Path::new(former) == path,
            None => name == path,
        };
        // A container has other files by the same names, on file systems of its own.
        match moment::file(path) {
            Some(file) => device == file.0 && (inode == file.1 || is_former),
            None => {
                is_former && path.parent().and_then(moment::file).is_some_and(|parent| parent.0 == device)
            }
        }
    };
    moment::program(pid, is_it).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use procfs::process::Process;

    use super::*;
    use crate::{process::cgroup_path, sys::proc_text::Status};

    #[test]
    fn a_child_is_covered_by_whatever_it_is() -> io::Result<()> {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn()?;
        let pid = child.id().cast_signed();
        let id = ProcessId::running(pid).expect("it runs");
        let us = ProcessId::running(std::process::id().cast_signed()).expect("so do we");
        let process = Process::new(pid).expect("it runs");
        let program = process.exe().expect("it executes something");
        let cgroup = cgroup_path(&process).expect("it is in a cgroup");
        // Between fork and exec it was us.
        let processes = Processes::now()?;
        for subject in [
            Subject::Process(id),
            Subject::Descendants(id),
            Subject::Descendants(us),
            Subject::Program(program.clone()),
            Subject::Cgroup(cgroup),
            Subject::User(Status::of(&process).expect("it runs").effective_uid),
        ] {
            assert!(processes.is_of(id, &subject), "{subject}");
            assert!(processes.of(&subject).any(|of| of == id), "{subject}");
        }
        for subject in [
            Subject::Process(us),
            Subject::Program(program.join("other")),
            Subject::Cgroup("/no/such".into()),
            Subject::User(54_321),
        ] {
            assert!(!processes.is_of(id, &subject), "{subject}");
        }
        assert_eq!(processes.generations(id, &Subject::Descendants(us)), Some(1));
        assert_eq!(processes.generations(us, &Subject::Descendants(id)), None);
        drop(child.stdin.take());
        child.wait()?;
        assert!(!Processes::now()?.is_of(id, &Subject::Process(id)));
        Ok(())
    }
}
