//! `status`: every limit in force, whoever set it.

use std::io::Write;

use nix::unistd::geteuid;
use serde::Serialize;

use super::tell;
use crate::{
    instances::{self, Direction, Held, Instance, Stale, Traffic, Unreadable, Whom},
    process::{ProcessId, UserNames},
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
}

#[derive(Serialize)]
struct JsonInstance {
    #[serde(flatten)]
    process: ProcessId,
    uid: u32,
    /// Whether pids are to be understood as those of whoever asks.
    same_pid_namespace: bool,
}

/// Prints a line for each limit, or one JSON object. What else is to be known goes to stderr.
///
/// # Errors
/// When `out` cannot be written.
pub fn run(json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let all = instances::all();
    let limits: Vec<(&Instance, &Held)> =
        all.running.iter().flat_map(|one| one.limits.iter().map(move |held| (one, held))).collect();
    if json {
        let limits = limits.iter().map(|(instance, held)| JsonLimit::new(instance, held)).collect();
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

impl JsonLimit<'_> {
    const fn new<'a>(instance: &Instance, held: &'a Held) -> JsonLimit<'a> {
        let Instance { process, uid, shares_pids, .. } = *instance;
        JsonLimit { instance: JsonInstance { process, uid, same_pid_namespace: shares_pids }, held }
    }
}

fn print(limits: &[(&Instance, &Held)], out: &mut impl Write) -> anyhow::Result<()> {
    let mut users = UserNames::default();
    let heading = ["BY", "USER", "SINCE", "", "RATE/s", "BACKEND", "TRAFFIC", "WHOM"].map(str::to_owned);
    let mut rows = vec![heading];
    for (instance, held) in limits {
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
            instance.process.to_string(),
            users.name(instance.uid),
            held.since.clone(),
            direction.to_owned(),
            if held.limit == 0 { "blocked".to_owned() } else { scaled(held.limit) },
            held.backend.clone(),
            traffic.to_owned(),
            whom(held),
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

fn whom(held: &Held) -> String {
    let name = &held.name;
    match &held.subject {
        Whom::Process { pid, .. } => format!("{name} ({pid})"),
        Whom::Descendants { pid, .. } => format!("{name} ({pid} with what it starts)"),
        Whom::Program { path } => format!("every {path}"),
        Whom::Cgroup { path } => format!("all in {path}"),
        Whom::User { uid } => format!("all of user {name} ({uid})"),
    }
}
