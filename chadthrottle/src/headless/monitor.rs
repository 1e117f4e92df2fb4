//! `monitor`: what every process sends and receives, as lines.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde::Serialize;

use super::connections::{Connected, JsonConnections};
use crate::{
    backends::{
        monitor::MonitorBackend,
        registry::{Backends, Wanted},
    },
    rate::scaled,
    stats::{ProcessRow, Snapshot, Stats},
    sys::{
        capability::{self, NET_ADMIN},
        signals::Signals,
    },
};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// One JSON object a line.
    pub json: bool,
    /// Time between two lines.
    pub interval: Duration,
    /// End after this many.
    pub count: Option<u64>,
    /// Only these; all where it is empty.
    pub pids: Vec<i32>,
    /// With the connections of each of `pids`.
    pub connections: bool,
}

/// Prints one snapshot an interval, until a signal or the last one asked for.
///
/// # Errors
/// When no monitor works here, or it fails, or stdout cannot be written.
pub fn run(backends: &Backends, wanted: &Wanted, options: &Options) -> anyhow::Result<()> {
    let signals = Signals::hold()?;
    let mut monitor = backends.select_monitor_backend(wanted.monitor.as_deref())?;
    monitor.init()?;
    if let Some(missing) = what_is_not_seen(monitor.as_ref()) {
        eprintln!("chadthrottle: {missing}");
    }
    let start = Instant::now();
    let mut stats = Stats::default();
    stats.advance(Duration::ZERO, &monitor.update()?);
    log::info!("{} is counting", monitor.name());
    let mut deadline = start;
    let mut printed = 0;
    let mut connected = options.connections.then(Connected::default);
    while options.count.is_none_or(|count| printed < count) {
        // From deadline to deadline and not from now: otherwise the lines would drift.
        deadline += options.interval;
        if is_told_to_end(&signals, deadline)? {
            break;
        }
        let mut snapshot = stats.advance(start.elapsed(), &monitor.update()?);
        if let Some(connected) = &mut connected {
            connected.look(&mut snapshot, &options.pids, start.elapsed());
        }
        // Locked for the line alone, and flushed: whoever reads it waits for it.
        let mut out = io::stdout().lock();
        if options.json {
            serde_json::to_writer(
                &mut out,
                &Line::new(monitor.name(), &snapshot, &options.pids, connected.as_ref()),
            )?;
            writeln!(out)?;
        } else {
            print_table(&snapshot, &options.pids, connected.as_ref(), &mut out)?;
        }
        out.flush()?;
        printed += 1;
    }
    monitor.cleanup()?;
    Ok(())
}

/// What this monitor leaves out, in a sentence: silence must not be taken for quiet.
fn what_is_not_seen(monitor: &dyn MonitorBackend) -> Option<String> {
    if monitor.capabilities().udp {
        return None;
    }
    let name = monitor.name();
    Some(if capability::first_missing(&[NET_ADMIN]).is_some() {
        format!(
            "{name} sees TCP alone, no UDP (QUIC, DNS), and without privilege it knows only your own processes; sudo \
             adds the rest"
        )
    } else {
        format!("{name} sees TCP alone, no UDP (QUIC, DNS); --list-backends tells which monitors see more")
    })
}

fn is_told_to_end(signals: &Signals, deadline: Instant) -> io::Result<bool> {
    loop {
        match signals.wait(Some(deadline))? {
            None => return Ok(false),
            Some(Signal::SIGCHLD) => {}
            Some(_) => return Ok(true),
        }
    }
}

/// One line of JSON. Rates are bytes a second over the interval, totals bytes since the start.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    interval_s: f64,
    monitor: &'a str,
    processes: Vec<JsonProcess<'a>>,
    unattributed: JsonTotals,
    lost_events: u64,
}

#[derive(Serialize)]
struct JsonProcess<'a> {
    pid: i32,
    start_time: u64,
    name: &'a str,
    exe: Option<String>,
    user: Option<&'a str>,
    cgroup: Option<&'a str>,
    upload_bytes_per_s: u64,
    download_bytes_per_s: u64,
    upload_bytes_total: u64,
    download_bytes_total: u64,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
    upload_dropped_bytes_total: u64,
    download_dropped_bytes_total: u64,
    alive: bool,
    /// Left out where they were not asked for; null where they cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<JsonConnections>,
}

#[derive(Serialize)]
struct JsonTotals {
    upload_bytes_total: u64,
    download_bytes_total: u64,
}

impl<'a> Line<'a> {
    fn new(monitor: &'a str, snapshot: &'a Snapshot, pids: &[i32], connected: Option<&Connected>) -> Self {
        Self {
            time: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            interval_s: snapshot.interval.as_secs_f64(),
            monitor,
            processes: wanted(snapshot, pids).map(|row| JsonProcess::new(row, connected)).collect(),
            unattributed: JsonTotals {
                upload_bytes_total: snapshot.unattributed.upload,
                download_bytes_total: snapshot.unattributed.download,
            },
            lost_events: snapshot.lost_events,
        }
    }
}

impl<'a> JsonProcess<'a> {
    fn new(row: &'a ProcessRow, connected: Option<&Connected>) -> Self {
        let info = &row.info;
        Self {
            pid: info.id.pid,
            start_time: info.id.start_time,
            name: &info.name,
            exe: info.exe.as_ref().map(|exe| exe.to_string_lossy().into_owned()),
            user: info.user.as_deref(),
            cgroup: info.cgroup.as_deref(),
            upload_bytes_per_s: row.rate.upload,
            download_bytes_per_s: row.rate.download,
            upload_bytes_total: row.total.upload,
            download_bytes_total: row.total.download,
            // This form sets no limits, and those of other instances are theirs to tell.
            upload_limit: None,
            download_limit: None,
            upload_dropped_bytes_total: 0,
            download_dropped_bytes_total: 0,
            alive: row.alive,
            connections: connected.map(|connected| connected.json(info.id)),
        }
    }
}

fn wanted<'a>(snapshot: &'a Snapshot, pids: &[i32]) -> impl Iterator<Item = &'a ProcessRow> {
    snapshot.processes.iter().filter(move |row| pids.is_empty() || pids.contains(&row.info.id.pid))
}

/// The snapshot for people: busiest first, and only who did something in this interval.
fn print_table(
    snapshot: &Snapshot,
    pids: &[i32],
    connected: Option<&Connected>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut rows: Vec<_> =
        wanted(snapshot, pids).filter(|row| row.rate.sum() > 0 || !pids.is_empty()).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.rate.sum(), row.total.sum())));
    writeln!(out, "{:>8} {:<16} {:>8} {:>8} {:>8} {:>8}", "PID", "NAME", "UP/s", "DOWN/s", "UP", "DOWN")?;
    for row in rows {
        let name: String = row.info.name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        writeln!(
            out,
            "{:>8} {name:<16} {:>8} {:>8} {:>8} {:>8}",
            row.info.id.pid,
            scaled(row.rate.upload),
            scaled(row.rate.download),
            scaled(row.total.upload),
            scaled(row.total.download),
        )?;
        if let Some(connected) = connected {
            connected.print(row.info.id, out)?;
        }
    }
    let (unowned, lost) = (snapshot.unattributed, snapshot.lost_events);
    writeln!(
        out,
        "{:>8} of no process: {} up, {} down",
        "",
        scaled(unowned.upload),
        scaled(unowned.download)
    )?;
    if lost > 0 {
        writeln!(out, "{:>8} {lost} events could not be recorded", "")?;
    }
    writeln!(out)
}
