//! `status`: every limit in force, whoever set it.

use std::{io::Write, path::PathBuf};

use nix::unistd::geteuid;
use serde::Serialize;

use super::tell;
use crate::{
    daemon::{
        client::{Client, Place, Reached},
        protocol::{Hello, SetBy},
    },
    instances::{self, Direction, Held, Instance, Stale, Traffic, Unreadable, Whom},
    process::{KnownNames, ProcessId},
    rate::scaled,
};

/// All of it as JSON.
#[derive(Serialize)]
struct Json<'a> {
    limits: Vec<JsonLimit<'a>>,
    stale: &'a [Stale],
    unreadable: &'a [Unreadable],
}

#[derive(Serialize)]
struct JsonLimit<'a> {
    instance: JsonInstance,
    #[serde(flatten)]
    held: &'a Held,
    /// Who has asked the daemon for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_by: Option<SetBy>,
}

#[derive(Serialize)]
struct JsonInstance {
    #[serde(flatten)]
    process: ProcessId,
    uid: u32,
    /// Whether pids are to be understood as those of whoever asks.
    same_pid_namespace: bool,
}

/// A limit, and who holds it.
struct Limit {
    process: ProcessId,
    uid: u32,
    shares_pids: bool,
    held: Held,
    set_by: Option<SetBy>,
}

/// Prints a line for each limit, or one JSON object. What else is to be known goes to stderr.
///
/// # Errors
/// When `out` cannot be written, or a daemon that is asked for by its path does not answer.
pub fn run(json: bool, place: &Place, out: &mut impl Write) -> anyhow::Result<()> {
    let mut all = instances::all();
    let mut reached = vec![place.reach()?];
    if *place == Place::Usual {
        reached.extend(elsewhere(&all.running));
    }
    let mut limits = Vec::new();
    for daemon in &mut reached {
        if let Reached::Daemon(client) = daemon {
            limits.extend(of_daemon(client)?);
            // What it tells everybody it has told us better.
            all.running.retain(|instance| instance.process.pid != client.daemon.pid || !instance.shares_pids);
        }
    }
    if reached.iter().any(|daemon| matches!(daemon, Reached::Closed)) {
        tell("a daemon runs whose limits root and members of its group see (docs/DAEMON.md)");
    }
    limits.extend(all.running.into_iter().flat_map(|instance| {
        let Instance { process, uid, shares_pids, limits, socket: _ } = instance;
        limits.into_iter().map(move |held| Limit { process, uid, shares_pids, held, set_by: None })
    }));
    if json {
        let limits = limits.iter().map(JsonLimit::new).collect();
        let json = Json { limits, stale: &all.stale, unreadable: &all.unreadable };
        writeln!(out, "{}", serde_json::to_string(&json)?)?;
    } else if limits.is_empty() {
        tell("no limit is in force");
    } else {
        print(&limits, out)?;
    }
    out.flush()?;
    for Stale { process, path } in &all.stale {
        tell(format_args!(
            "process {process} has ended, and its limits with it, and has left {}; `chadthrottle cleanup` removes that",
            path.display()
        ));
    }
    for Unreadable { path, reason } in &all.unreadable {
        tell(format_args!("limits are not known: {}: {reason}", path.display()));
    }
    if !geteuid().is_root() {
        tell("without root only root's limits and your own are seen; sudo shows everybody's");
    }
    Ok(())
}

/// Daemons that listen where nobody looks who is not told where.
fn elsewhere(running: &[Instance]) -> Vec<Reached> {
    // Where anybody else may have us connect to is not believed.
    let is_believed = |instance: &&Instance| instance.uid == 0 || instance.uid == geteuid().as_raw();
    let sockets = running.iter().filter(is_believed).filter_map(|instance| instance.socket.as_ref());
    let reach = |path: &PathBuf| match Client::connect(path) {
        Ok(client) => Reached::Daemon(Box::new(client)),
        Err(error) => {
            log::info!("the daemon at {} is not asked: {error}", path.display());
            if error.is_denial() { Reached::Closed } else { Reached::Nobody }
        }
    };
    sockets.map(reach).collect()
}

/// What a daemon holds.
fn of_daemon(client: &mut Client) -> anyhow::Result<Vec<Limit>> {
    let Hello { pid, start_time, uid, upload, download, .. } = client.daemon.clone();
    let mut limits = Vec::new();
    for in_force in client.status()?.limits {
        let directions = [
            (Direction::Upload, in_force.upload, upload.clone()),
            (Direction::Download, in_force.download, download.clone().unwrap_or_default()),
        ];
        for (direction, limit, backend) in directions {
            let Some(limit) = limit else { continue };
            let held = Held {
                subject: in_force.subject.clone(),
                name: in_force.name.clone(),
                direction,
                limit,
                backend,
                traffic: in_force.traffic,
                since: in_force.since.clone(),
                rule: in_force.rule.clone(),
            };
            limits.push(Limit {
                process: ProcessId { pid, start_time },
                uid,
                shares_pids: true,
                held,
                set_by: in_force.set_by,
            });
        }
    }
    Ok(limits)
}

impl<'a> JsonLimit<'a> {
    fn new(limit: &'a Limit) -> Self {
        let Limit { process, uid, shares_pids, ref held, set_by } = *limit;
        let instance = JsonInstance { process, uid, same_pid_namespace: shares_pids };
        Self { instance, held, set_by }
    }
}

fn print(limits: &[Limit], out: &mut impl Write) -> anyhow::Result<()> {
    let mut names = KnownNames::default();
    let heading = ["BY", "USER", "SINCE", "", "RATE/s", "BACKEND", "TRAFFIC", "WHOM"].map(str::to_owned);
    let mut rows = vec![heading];
    for limit in limits {
        let held = &limit.held;
        let direction = match held.direction {
            Direction::Upload => "up",
            Direction::Download => "down",
        };
        let traffic = match held.traffic {
            Traffic::All => "all",
            Traffic::Internet => "internet",
            Traffic::Local => "local",
        };
        rows.push([
            limit.process.to_string(),
            names.user(limit.uid),
            held.since.clone(),
            direction.to_owned(),
            if held.limit == 0 { "blocked".to_owned() } else { scaled(held.limit) },
            held.backend.clone(),
            traffic.to_owned(),
            whom(held) + &why(limit),
        ]);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        // Names are other people's: nothing in them moves the cursor.
        let line: String = cells.collect::<Vec<_>>().join("  ").trim_end().chars().map(plain).collect();
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn plain(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

/// Why the daemon holds it.
fn why(limit: &Limit) -> String {
    let rule = limit.held.rule.as_ref().map(|rule| format!(", by rule {rule}"));
    let set_by = limit.set_by.map(|SetBy { pid, .. }| format!(", for process {pid}"));
    rule.or(set_by).unwrap_or_default()
}

fn whom(held: &Held) -> String {
    let name = &held.name;
    match &held.subject {
        Whom::Process { pid, .. } => format!("{name} ({pid})"),
        Whom::Descendants { pid, .. } => format!("{name} ({pid} with what it starts)"),
        Whom::Program { path } => format!("every {path}"),
        // A container has a name that its cgroup does not tell.
        Whom::Cgroup { path } if !name.is_empty() && !path.ends_with(name.as_str()) => {
            format!("all in {path} ({name})")
        }
        Whom::Cgroup { path } => format!("all in {path}"),
        Whom::User { uid } => format!("all of user {name} ({uid})"),
    }
}
