//! Whom a limit covers on the simulated host, and how much of its traffic.

use std::path::Path;

use super::{
    programs::{PROGRAMS, Program},
    world::identity,
};
use crate::backends::throttle::{Subject, TrafficType};

/// Whether a limit is about a program.
pub(super) fn covers(subject: &Subject, program: &Program) -> bool {
    match subject {
        Subject::Process(id) => identity(program.pid) == *id,
        Subject::Descendants(id) => {
            let mut at = Some(program);
            while let Some(one) = at {
                if identity(one.pid) == *id {
                    return true;
                }
                at = PROGRAMS.iter().find(|other| other.pid == one.parent);
            }
            false
        }
        Subject::Program(path) => path == Path::new(program.exe),
        Subject::Cgroup(path) => program
            .cgroup
            .strip_prefix(path.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || path == "/"),
        Subject::User(uid) => user_id(program.user) == *uid,
    }
}

/// How much of a program's traffic is of a kind, in thousandths.
pub(super) const fn kind_share(kind: TrafficType, program: &Program) -> u64 {
    match kind {
        TrafficType::All => 1000,
        TrafficType::Local => program.local,
        TrafficType::Internet => 1000 - program.local,
    }
}

/// Users by name, as in the passwd(5) that this host would have.
const USERS: [(&str, u32); 8] = [
    ("root", 0),
    ("_apt", 42),
    ("www-data", 33),
    ("ada", 1000),
    ("ben", 1001),
    ("postgres", 70),
    ("systemd-resolve", 991),
    ("debian-transmission", 117),
];

/// The number of a user.
pub(super) fn user_id(name: &str) -> u32 {
    let known = USERS.iter().find(|(known, _)| *known == name).map(|(_, uid)| *uid);
    known.or_else(|| name.parse().ok()).unwrap_or(990)
}
