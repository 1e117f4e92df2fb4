//! Answers to questions about the simulated host.

use std::{net::SocketAddr, time::Duration};

use super::{
    CAPABILITIES, Demo, NAME, Part,
    members::user_id,
    past::DemoPast,
    programs::{PROGRAMS, Program},
    world::{CROWD, identity, mixed, portion},
};
use crate::{
    backends::{
        BackendPriority,
        registry::{Listed, Listing},
    },
    connections::Connection,
    history::past::{Asked, Past},
    lookout::{Ancestor, Lookout, ProcessFacts, Reach},
    process::ProcessId,
    stats::Traffic,
    sys::inet_diag::{Protocol, State},
};

/// Its end of connections to the world, and to containers.
const OUTSIDE: &str = "192.168.1.20";
const OUTSIDE_V6: &str = "2001:db8:1::20";
const INSIDE: &str = "172.17.0.2";
/// As many as a proxy of some size has.
const MANY: u32 = 20_000;
/// The login that somebody who tries the demo sits at.
const OWN_SHELL: i32 = 3830;

/// Knows what the simulated host knows.
pub struct DemoLookout {
    demo: Demo,
}

impl DemoLookout {
    pub(super) const fn new(demo: Demo) -> Self {
        Self { demo }
    }
}

fn program(process: ProcessId) -> Option<&'static Program> {
    PROGRAMS.iter().find(|program| identity(program.pid) == process)
}

/// The first of a crowd has very many connections, for measuring.
fn of_crowd(process: ProcessId) -> Vec<Connection> {
    let count = if process.pid == CROWD { MANY } else { 0 };
    let connection = |index: u32| {
        let [_, a, b, c] = index.to_be_bytes();
        let local = SocketAddr::from(([192, 168, 1, 20], 40_000));
        Connection {
            protocol: Protocol::Tcp,
            local,
            remote: Some(SocketAddr::from(([10, a, b, c], 443))),
            state: State::Established,
            total: Some(Traffic { upload: u64::from(index), download: 0 }),
            rtt: Some(Duration::from_micros(u64::from(index))),
            retransmits: Some(0),
            age: None,
            seen: Duration::from_secs(1),
        }
    };
    (0..count).map(connection).collect()
}

fn above(program: &Program) -> Vec<Ancestor> {
    let mut ancestors = Vec::new();
    let mut parent = program.parent;
    while let Some(next) = PROGRAMS.iter().find(|program| program.pid == parent) {
        ancestors.push(Ancestor { id: identity(next.pid), name: next.name.into() });
        parent = next.parent;
    }
    ancestors
}

impl Lookout for DemoLookout {
    fn connections(&mut self, process: ProcessId, _: Duration) -> Result<Vec<Connection>, String> {
        self.demo.panic_as_told(Part::Lookout);
        let Some(program) = program(process) else { return Ok(of_crowd(process)) };
        let (now, total) = self.demo.world().so_far(process);
        let age = now.saturating_sub(Duration::from_secs(program.life.0));
        let peers = u64::try_from(program.peers.len()).unwrap_or(u64::MAX);
        let pid = u64::from(program.pid.unsigned_abs());
        let connection = |(index, (peer, rtt)): (u64, &(&str, u64))| {
            let (protocol, remote) = peer.split_once(' ')?;
            let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
            let remote: SocketAddr = remote.parse().ok()?;
            let own = match remote {
                SocketAddr::V6(_) => OUTSIDE_V6,
                SocketAddr::V4(v4) if v4.ip().octets().starts_with(&[172, 17]) => INSIDE,
                SocketAddr::V4(_) => OUTSIDE,
            };
            let port = 32_768 + mixed(pid, index, 7) % 28_000;
            // The first has the most.
            let share = if index == 0 { 1000 - 90 * (peers - 1) } else { 90 };
            let is_tcp = protocol == Protocol::Tcp;
            Some(Connection {
                protocol,
                local: SocketAddr::new(own.parse().ok()?, u16::try_from(port).ok()?),
                remote: Some(remote),
                state: State::Established,
                total: is_tcp.then(|| portion(total, share)),
                rtt: is_tcp
                    .then(|| Duration::from_micros(rtt + mixed(pid, index, now.as_secs()) % (rtt / 9 + 9))),
                retransmits: is_tcp.then(|| u32::try_from(mixed(pid, index, 3) % 5).unwrap_or_default()),
                age: (program.life.0 > 0).then_some(age),
                seen: age,
            })
        };
        Ok((0..).zip(program.peers).filter_map(connection).collect())
    }

    fn facts(&mut self, process: ProcessId) -> Option<ProcessFacts> {
        let program = program(process)?;
        let arguments = program.arguments.split(' ').filter(|word| !word.is_empty());
        Some(ProcessFacts {
            command_line: std::iter::once(program.exe).chain(arguments).map(str::to_owned).collect(),
            uid: Some(user_id(program.user)),
            ancestors: above(program),
        })
    }

    fn ancestors(&mut self, processes: &[ProcessId]) -> Vec<(ProcessId, Vec<Ancestor>)> {
        let of = |&process: &ProcessId| (process, program(process).map(above).unwrap_or_default());
        processes.iter().map(of).collect()
    }

    fn reach(&mut self, processes: &[ProcessId]) -> Reach {
        let programs: Vec<_> = processes.iter().filter_map(|&process| program(process)).collect();
        let connections = programs.iter().map(|program| program.peers.len()).sum();
        // nginx's workers share what the master listens on.
        let workers = programs.iter().filter(|program| program.name == "nginx").count();
        let others = PROGRAMS.iter().filter(|other| {
            workers > 0 && other.name == "nginx" && !processes.contains(&identity(other.pid))
        });
        let shared =
            others.map(|other| (Ancestor { id: identity(other.pid), name: other.name.into() }, workers));
        let uid = programs.first().map(|program| user_id(program.user));
        Reach { processes: processes.len(), connections: Some(connections), shared: shared.collect(), uid }
    }

    fn session(&mut self) -> Vec<Ancestor> {
        let Some(shell) = PROGRAMS.iter().find(|program| program.pid == OWN_SHELL) else { return Vec::new() };
        above(shell).into_iter().filter(|ancestor| ancestor.id.pid != 1).collect()
    }

    fn backends(&mut self) -> Result<Listing, String> {
        let listed = |name, priority, reason: Option<&str>| Listed {
            name,
            priority,
            available: reason.is_none(),
            selected: name == NAME,
            reason: reason.map(str::to_owned),
            tagger: None,
            capabilities: CAPABILITIES,
        };
        let demo = || listed(NAME, BackendPriority::Fallback, None);
        let real = |name| {
            let reason = "this is a simulated host; start chadthrottle without --demo";
            listed(name, BackendPriority::Best, Some(reason))
        };
        Ok(Listing {
            monitor: vec![real("ebpf"), demo()],
            upload: vec![real("ebpf_cgroup"), demo()],
            download: vec![real("ebpf_cgroup"), demo()],
        })
    }

    fn past(&mut self, asked: &Asked) -> Result<Past, String> {
        DemoPast::look(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_can_be_asked_about() {
        let mut lookout = Demo::new(1, Duration::from_secs(200), 0).lookout();
        for program in PROGRAMS {
            let id = identity(program.pid);
            assert!(lookout.facts(id).is_some_and(|facts| !facts.command_line.is_empty()));
            let connections = lookout.connections(id, Duration::ZERO).expect("it tells");
            assert_eq!(connections.len(), program.peers.len(), "{}", program.name);
            let top = lookout.ancestors(&[id])[0].1.last().map(|ancestor| ancestor.id.pid);
            assert_eq!(top, (program.pid != 1).then_some(1), "{}", program.name);
        }
        assert!(lookout.session().iter().any(|ancestor| ancestor.name == "sshd"));
    }
}
