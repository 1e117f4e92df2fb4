//! `monitor`: what every process sends and receives, as lines.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{connections::Connected, line::Line};
use crate::{
    backends::{
        monitor::MonitorBackend,
        registry::{Backends, Wanted},
    },
    daemon::{
        client::{Place, Reached},
        monitor::RemoteMonitor,
    },
    rate::scaled,
    stats::{ProcessRow, Snapshot, Stats},
    sys::{
        capability::{self, NET_ADMIN, SYS_ADMIN},
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

/// Prints one snapshot an interval, until a signal or the last one asked for. Where a daemon counts, what it does.
///
/// # Errors
/// When no monitor works here, or it fails, or stdout cannot be written.
pub fn run(backends: &Backends, wanted: &Wanted, options: &Options, place: &Place) -> anyhow::Result<()> {
    let signals = Signals::hold()?;
    let mut monitor: Box<dyn MonitorBackend> = match place.reach()? {
        Reached::Daemon(daemon) if daemon.daemon.monitor.is_some() => Box::new(RemoteMonitor::new(*daemon)),
        _ => backends.select_monitor_backend(wanted.monitor.as_deref())?,
    };
    // Connections are asked for where their process is.
    super::give_up_others(&[monitor.name()], if options.connections { &[SYS_ADMIN] } else { &[] });
    monitor.init()?;
    if let Some(missing) = what_is_not_seen(monitor.as_ref()) {
        super::tell(&missing);
    }
    let start = Instant::now();
    let mut stats = Stats::default();
    stats.advance(Duration::ZERO, &monitor.update()?);
    log::info!("{} is counting", monitor.name());
    let mut deadline = start;
    let mut printed = 0;
    let mut text = Vec::new();
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
        // Put together first and written at once: of whoever reads it, nobody gets half a line, and a line of many
        // processes is not a thousand system calls.
        text.clear();
        if options.json {
            let rows = listed(&snapshot, &options.pids);
            serde_json::to_writer(
                &mut text,
                &Line::new(monitor.name(), &snapshot, rows, connected.as_ref()),
            )?;
            writeln!(text)?;
        } else {
            print_table(&snapshot, &options.pids, connected.as_ref(), &mut text)?;
        }
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
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

fn listed<'a>(snapshot: &'a Snapshot, pids: &[i32]) -> impl Iterator<Item = &'a ProcessRow> {
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
        listed(snapshot, pids).filter(|row| row.rate.sum() > 0 || !pids.is_empty()).collect();
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
    let (unowned, lost) = (snapshot.buckets.unattributed(), snapshot.lost_events);
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
