//! What carries the session that one is typing in: to limit one of these may be to lose the way to take the limit back.
//!
//! It is every process above this one (shell, sudo, sshd), but for the first of all. Under a terminal multiplexer that ends
//! at its server, which has no terminal: what is above the multiplexer's clients carries the session then.

use std::collections::HashSet;

use procfs::process::Process;

use crate::{
    backends::throttle::Subject,
    lookout::Ancestor,
    process::{ProcessId, cgroup_path},
    sys::proc_text::Status,
};

/// How the command names of terminal multiplexers begin, of servers and clients.
const MULTIPLEXERS: [&str; 5] = ["tmux", "screen", "SCREEN", "zellij", "dtach"];
/// No tree of processes is deeper; keeps a pid that was used again from leading in a circle.
const DEEPEST: usize = 64;
/// The first process of all is everybody's ancestor, and has nothing to do with this session.
const FIRST: i32 = 1;

/// A process as it is needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    who: Ancestor,
    parent: i32,
    uid: u32,
}

/// The processes that this session hangs on, from the nearest up.
#[must_use]
pub fn carriers() -> Vec<Ancestor> {
    let everybody = || procfs::process::all_processes().into_iter().flatten();
    let list = || everybody().filter_map(|process| seen(&process.ok()?)).collect();
    above(std::process::id().cast_signed(), |pid| seen(&Process::new(pid).ok()?), list)
}

/// The first of those that a limit on a subject would touch.
#[must_use]
pub fn touched(subject: &Subject) -> Option<Ancestor> {
    let carriers = carriers();
    // Whoever starts everything has started this session, too.
    if matches!(subject, Subject::Descendants(id) if id.pid == FIRST) {
        return carriers.into_iter().next();
    }
    carriers.into_iter().find(|carrier| covers(subject, carrier.id))
}

fn covers(subject: &Subject, id: ProcessId) -> bool {
    let process = || Process::new(id.pid).ok();
    match subject {
        // Whoever has started one of them carries the session, too.
        Subject::Process(of) | Subject::Descendants(of) => *of == id,
        Subject::Program(path) => process().and_then(|process| process.exe().ok()).as_ref() == Some(path),
        Subject::Cgroup(path) => {
            process().and_then(|process| cgroup_path(&process)).is_some_and(|own| is_within(&own, path))
        }
        Subject::User(uid) => process()
            .and_then(|process| Status::of(&process).ok())
            .is_some_and(|status| [status.real_uid, status.effective_uid].contains(uid)),
    }
}

/// Whether a cgroup is another one or below it.
fn is_within(cgroup: &str, other: &str) -> bool {
    let rest = cgroup.strip_prefix(other.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn seen(process: &Process) -> Option<Seen> {
    let stat = process.stat().ok()?;
    let id = ProcessId { pid: stat.pid, start_time: stat.starttime };
    Some(Seen { who: Ancestor { id, name: stat.comm }, parent: stat.ppid, uid: process.uid().ok()? })
}

/// Who is above a process, and above the clients of a multiplexer that is. `list` has every process.
fn above(pid: i32, find: impl Fn(i32) -> Option<Seen>, list: impl Fn() -> Vec<Seen>) -> Vec<Ancestor> {
    let chain = |first: i32| {
        let mut parent = first;
        let mut chain = Vec::new();
        while parent > FIRST && chain.len() < DEEPEST {
            let Some(seen) = find(parent) else { break };
            parent = seen.parent;
            chain.push(seen);
        }
        chain
    };
    let mut found = chain(find(pid).map_or(0, |own| own.parent));
    let server = found.iter().find_map(|seen| Some((multiplexer(&seen.who.name)?, seen.uid)));
    if let Some((name, uid)) = server {
        let is_other = |seen: &Seen| found.iter().all(|known| known.who.id != seen.who.id);
        let clients = list()
            .into_iter()
            .filter(|seen| multiplexer(&seen.who.name) == Some(name) && seen.uid == uid && is_other(seen));
        let clients: Vec<Seen> = clients.collect();
        for client in clients {
            found.extend(chain(client.who.id.pid));
        }
    }
    let mut known = HashSet::new();
    found.retain(|seen| known.insert(seen.who.id));
    found.into_iter().map(|seen| seen.who).collect()
}

/// Which multiplexer a process belongs to, by its command name.
fn multiplexer(name: &str) -> Option<&'static str> {
    let begins = MULTIPLEXERS.into_iter().find(|multiplexer| name.starts_with(multiplexer))?;
    Some(if begins == "SCREEN" { "screen" } else { begins })
}

/// Why a subject is not limited without `--force`, in a sentence. None where it may be.
#[must_use]
pub fn refusal(subject: &Subject) -> Option<String> {
    let carrier = touched(subject)?;
    Some(format!(
        "{} ({}) carries the session that this was typed in, which a limit slows down or cuts off; --force sets it all \
         the same, and --duration gives it an end",
        carrier.name, carrier.id
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, name: &str, uid: u32) -> Seen {
        Seen { who: Ancestor { id: ProcessId { pid, start_time: 1 }, name: name.to_owned() }, parent, uid }
    }

    fn pids(table: &[Seen], own: i32) -> Vec<i32> {
        let find = |pid| table.iter().find(|seen| seen.who.id.pid == pid).cloned();
        above(own, find, || table.to_vec()).into_iter().map(|ancestor| ancestor.id.pid).collect()
    }

    #[test]
    fn what_is_above_us_carries_us() {
        let table = [
            process(1, 0, "systemd", 0),
            process(10, 1, "sshd", 0),
            process(20, 10, "sshd-session", 0),
            process(21, 20, "sshd-session", 1000),
            process(30, 21, "bash", 1000),
            process(40, 30, "sudo", 0),
            process(50, 40, "chadthrottle", 0),
            process(60, 1, "nginx", 33),
        ];
        assert_eq!(pids(&table, 50), [40, 30, 21, 20, 10]);
        assert_eq!(pids(&table, 60), [0; 0]);
        assert_eq!(pids(&table, 77), [0; 0], "it has ended");
    }

    #[test]
    fn under_a_multiplexer_the_session_is_what_is_above_its_clients() {
        for (server, client) in [("tmux: server", "tmux: client"), ("screen", "screen"), ("SCREEN", "screen")]
        {
            let table = [
                process(1, 0, "systemd", 0),
                process(20, 1, "sshd", 0),
                process(30, 20, "bash", 1000),
                process(40, 30, client, 1000),
                process(50, 1, server, 1000),
                process(60, 50, "bash", 1000),
                process(70, 60, "chadthrottle", 1000),
                // Somebody else's.
                process(80, 20, client, 1001),
            ];
            assert_eq!(pids(&table, 70), [60, 50, 40, 30, 20], "{server}");
        }
    }

    #[test]
    fn our_parent_carries_us_whatever_it_is_called_by() {
        let parent = ProcessId::running(std::os::unix::process::parent_id().cast_signed()).expect("it runs");
        let process = Process::new(parent.pid).expect("it runs");
        let by = |subject| touched(&subject).map(|carrier| carrier.id.pid);
        assert_eq!(by(Subject::Process(parent)), Some(parent.pid));
        assert_eq!(by(Subject::Descendants(parent)), Some(parent.pid));
        assert!(by(Subject::Descendants(ProcessId { pid: 1, start_time: 0 })).is_some());
        assert!(by(Subject::Program(process.exe().expect("it has one"))).is_some());
        assert!(by(Subject::Cgroup("/".into())).is_some());
        assert!(by(Subject::User(process.uid().expect("it runs"))).is_some());
        assert_eq!(by(Subject::Process(ProcessId { start_time: parent.start_time + 1, ..parent })), None);
        assert_eq!(by(Subject::Program("/no/such/program".into())), None);
        assert_eq!(by(Subject::Cgroup("/no/such/cgroup".into())), None);
        assert_eq!(by(Subject::User(u32::MAX - 5)), None);
    }
}
