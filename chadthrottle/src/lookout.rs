//! What the screen asks for on demand, beside the figures that come every second: connections, command lines, ancestors,
//! backends, the history. Whoever answers may take its time; it has a thread of its own.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use procfs::process::Process;

use crate::{
    backends::registry::{Backends, Listing, Wanted},
    connections::{self, Connection, Connections},
    history::past::{Asked, Past, Source},
    process::ProcessId,
    session,
    sys::proc_fd,
};

/// A process above another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Who.
    pub id: ProcessId,
    /// Its command name.
    pub name: String,
}

/// What is asked for when somebody looks closely.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Program and arguments; what is not UTF-8 is replaced.
    pub command_line: Vec<String>,
    /// The user that it runs as.
    pub uid: Option<u32>,
    /// From its parent up to the first process of all.
    pub ancestors: Vec<Ancestor>,
}

/// What a limit on some processes would touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// How many processes.
    pub processes: usize,
    /// How many connections they have. `None` where some of them may not be looked into.
    pub connections: Option<usize>,
    /// Who else has some of these connections open, and how many.
    pub shared: Vec<(Ancestor, usize)>,
    /// The user that the first of them runs as.
    pub uid: Option<u32>,
}

/// Answers questions about processes and backends.
pub trait Lookout: Send {
    /// A process's connections at `now` (since any fixed instant).
    ///
    /// # Errors
    /// When they may not be read, in words.
    fn connections(&mut self, process: ProcessId, now: Duration) -> Result<Vec<Connection>, String>;

    /// What else is known of a process. None where it has ended.
    fn facts(&mut self, process: ProcessId) -> Option<ProcessFacts>;

    /// Who is above each of these, from the parent up. Empty where a process has ended.
    fn ancestors(&mut self, processes: &[ProcessId]) -> Vec<(ProcessId, Vec<Ancestor>)>;

    /// What a limit on these processes would touch.
    fn reach(&mut self, processes: &[ProcessId]) -> Reach;

    /// The processes that this terminal hangs on: to cut one of them off is to lose the session.
    fn session(&mut self) -> Vec<Ancestor>;

    /// Every backend, whether it works here, and why not.
    ///
    /// # Errors
    /// When one was asked for by a name that does not exist, in words.
    fn backends(&mut self) -> Result<Listing, String>;

    /// What was used.
    ///
    /// # Errors
    /// When there is nothing to read: why, and the way out.
    fn past(&mut self, asked: &Asked) -> Result<Past, String>;
}

/// Something to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Everything about one process.
    Look(ProcessId),
    /// Who is above these.
    Kin(Vec<ProcessId>),
    /// What a limit on these would touch.
    Reach(Vec<ProcessId>),
    /// What this terminal hangs on.
    Session,
    /// Which backends there are.
    Backends,
    /// What was used.
    Past(Asked),
}

/// One look at a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// At whom.
    pub process: ProcessId,
    /// When, since any fixed instant.
    pub at: Duration,
    /// Its connections, or why they cannot be read.
    pub connections: Result<Vec<Connection>, String>,
    /// None where it has ended.
    pub facts: Option<ProcessFacts>,
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::Look`].
    Look(Box<Look>),
    /// To [`Question::Kin`].
    Kin(Vec<(ProcessId, Vec<Ancestor>)>),
    /// To [`Question::Reach`], about these.
    Reach(Vec<ProcessId>, Reach),
    /// To [`Question::Session`].
    Session(Vec<Ancestor>),
    /// To [`Question::Backends`].
    Backends(Result<Listing, String>),
    /// To [`Question::Past`], about this.
    Past(Asked, Box<Result<Past, String>>),
}

/// Answers a question, at `now` since any fixed instant.
pub fn answer(lookout: &mut dyn Lookout, question: Question, now: Duration) -> Answer {
    match question {
        Question::Look(process) => Answer::Look(Box::new(Look {
            process,
            at: now,
            connections: lookout.connections(process, now),
            facts: lookout.facts(process),
        })),
        Question::Kin(processes) => Answer::Kin(lookout.ancestors(&processes)),
        Question::Reach(processes) => {
            let reach = lookout.reach(&processes);
            Answer::Reach(processes, reach)
        }
        Question::Session => Answer::Session(lookout.session()),
        Question::Backends => Answer::Backends(lookout.backends()),
        Question::Past(asked) => {
            let past = lookout.past(&asked);
            Answer::Past(asked, Box::new(past))
        }
    }
}

/// This host.
pub struct Here {
    connections: Connections,
    backends: Backends,
    wanted: Wanted,
    history: Source,
    /// Parents do not change but when they end: then a process is its grandparent's, and looked at again.
    parents: HashMap<i32, (Ancestor, i32)>,
}

/// No tree of processes is deeper; keeps a pid that was used again from leading in a circle.
const DEEPEST: usize = 64;

impl Here {
    /// Answers from /proc, the kernel and this history.
    #[must_use]
    pub fn new(backends: Backends, wanted: Wanted, history: Source) -> Self {
        Self { connections: Connections::default(), backends, wanted, history, parents: HashMap::new() }
    }

    /// A process and its parent's pid.
    fn seen(&mut self, pid: i32) -> Option<(Ancestor, i32)> {
        if let Some(seen) = self.parents.get(&pid) {
            return Some(seen.clone());
        }
        let stat = Process::new(pid).and_then(|process| process.stat()).ok()?;
        let id = ProcessId { pid, start_time: stat.starttime };
        let seen = (Ancestor { id, name: stat.comm }, stat.ppid);
        self.parents.insert(pid, seen.clone());
        Some(seen)
    }

    fn above(&mut self, process: ProcessId) -> Vec<Ancestor> {
        let Some((first, mut parent)) = self.seen(process.pid) else { return Vec::new() };
        let mut ancestors = Vec::new();
        if first.id != process {
            return ancestors;
        }
        while parent > 0 && ancestors.len() < DEEPEST {
            let Some((ancestor, next)) = self.seen(parent) else { break };
            ancestors.push(ancestor);
            parent = next;
        }
        ancestors
    }
}

impl Lookout for Here {
    fn connections(&mut self, process: ProcessId, now: Duration) -> Result<Vec<Connection>, String> {
        self.connections.of(process, now).map_err(|error| error.to_string())
    }

    fn facts(&mut self, process: ProcessId) -> Option<ProcessFacts> {
        if !process.is_alive() {
            return None;
        }
        self.parents.clear();
        let read = Process::new(process.pid).ok()?;
        Some(ProcessFacts {
            command_line: read.cmdline().unwrap_or_default(),
            uid: read.uid().ok(),
            ancestors: self.above(process),
        })
    }

    fn ancestors(&mut self, processes: &[ProcessId]) -> Vec<(ProcessId, Vec<Ancestor>)> {
        self.parents.clear();
        processes.iter().map(|&process| (process, self.above(process))).collect()
    }

    fn reach(&mut self, processes: &[ProcessId]) -> Reach {
        let mut inodes = HashSet::new();
        let mut all_read = true;
        for &process in processes {
            match connections::read(process) {
                Ok(sockets) => inodes.extend(sockets.into_iter().flatten().map(|socket| socket.inode)),
                Err(_) => all_read = false,
            }
        }
        let ours: HashSet<i32> = processes.iter().map(|process| process.pid).collect();
        let mut shared = Vec::new();
        let others = proc_fd::pids().into_iter().flatten().filter(|pid| !ours.contains(pid));
        for pid in others {
            let Ok(sockets) = proc_fd::sockets(pid) else { continue };
            let common: HashSet<u32> =
                sockets.into_iter().map(|(_, inode)| inode).filter(|inode| inodes.contains(inode)).collect();
            if let (1.., Some((who, _))) = (common.len(), self.seen(pid)) {
                shared.push((who, common.len()));
            }
        }
        shared.sort_by_key(|(who, count)| (std::cmp::Reverse(*count), who.id));
        let first = processes.first().filter(|first| first.is_alive());
        let uid = first.and_then(|first| Process::new(first.pid).and_then(|process| process.uid()).ok());
        Reach { processes: processes.len(), connections: all_read.then_some(inodes.len()), shared, uid }
    }

    fn session(&mut self) -> Vec<Ancestor> {
        session::carriers()
    }

    fn backends(&mut self) -> Result<Listing, String> {
        self.backends.list(&self.wanted).map_err(|error| error.to_string())
    }

    fn past(&mut self, asked: &Asked) -> Result<Past, String> {
        self.history.look(asked, Timestamp::now(), TimeZone::system())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn here() -> (Here, ProcessId) {
        let own = ProcessId::running(std::process::id().cast_signed()).expect("we run");
        (Here::new(Backends::default(), Wanted::default(), Source::own(None, false)), own)
    }

    #[test]
    fn we_have_a_command_line_and_a_parent() {
        let (mut here, own) = here();
        let facts = here.facts(own).expect("we run");
        assert!(!facts.command_line.is_empty());
        let parent = facts.ancestors.first().map(|parent| parent.id.pid);
        assert_eq!(parent, Some(std::os::unix::process::parent_id().cast_signed()));
        assert_eq!(here.ancestors(&[own]), [(own, facts.ancestors.clone())]);
        let session = here.session();
        assert!(
            facts.ancestors.iter().filter(|above| above.id.pid != 1).all(|above| session.contains(above))
        );
        assert_eq!(here.facts(ProcessId { start_time: own.start_time + 1, ..own }), None);
    }

    #[test]
    fn a_limit_on_us_touches_our_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let _stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (mut here, own) = here();
        let reach = here.reach(&[own]);
        assert_eq!(reach.processes, 1);
        assert!(reach.connections.is_some_and(|count| count >= 2), "{reach:?}");
    }
}
