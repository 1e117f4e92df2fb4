//! What the details and the help say, without how it is drawn.

use std::time::Duration;

use super::{
    App,
    keys::{self, Place},
    row::Row,
};
use crate::rate::scaled;

/// A line of the details or of the help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// What follows is about this.
    Title(String),
    /// A name and what it stands for.
    Pair(String, String),
    /// A name and what it stands for in each direction.
    Directions {
        /// The name.
        name: &'static str,
        /// For what is sent.
        upload: String,
        /// For what is received.
        download: String,
    },
    /// A sentence.
    Note(String),
    /// An empty line.
    Gap,
}

/// /proc counts in hundredths of a second on every architecture that the kernel still supports.
const TICKS_PER_SECOND: u64 = 100;

/// Everything about one process.
pub(super) fn of_process(app: &App, row: &Row) -> Vec<Fact> {
    let pair = |name: &str, value: String| Fact::Pair(name.into(), value);
    let unknown = || "not known".to_owned();
    let info = &row.info;
    let exe = info.exe.as_ref().map_or_else(unknown, |exe| exe.to_string_lossy().into_owned());
    let mut facts = vec![
        Fact::Title(format!("{} ({})", info.name, info.id)),
        pair("state", if row.alive { "running".into() } else { "ended".into() }),
        pair("user", info.user.clone().unwrap_or_else(unknown)),
        pair("started", format!("{} after boot", spoken(info.id.start_time / TICKS_PER_SECOND))),
        pair("executable", exe),
        pair("cgroup", info.cgroup.clone().unwrap_or_else(unknown)),
        Fact::Gap,
        directions("", "upload".into(), "download".into()),
        directions("rate", app.rate(row.rate.upload), app.rate(row.rate.download)),
        directions("total", scaled(row.total.upload), scaled(row.total.download)),
        directions("limit", limit(row.limits.upload), limit(row.limits.download)),
    ];
    if row.limits.is_empty() {
        return facts;
    }
    // What was offered to a limit that is not there is not nothing: it was not counted.
    let counted = |pick: &dyn Fn(&chadthrottle_common::ThrottleStats) -> u64| {
        let count = |limit: Option<u64>, stats| limit.map_or_else(String::new, |_| scaled(pick(stats)));
        (count(row.limits.upload, &row.upload_stats), count(row.limits.download, &row.download_stats))
    };
    for (name, (upload, download)) in [
        ("offered", counted(&|stats| stats.bytes_total)),
        ("passed", counted(&|stats| stats.bytes_total.saturating_sub(stats.bytes_dropped))),
        ("dropped", counted(&|stats| stats.bytes_dropped)),
        ("in packets", counted(&|stats| stats.packets_dropped)),
    ] {
        facts.push(directions(name, upload, download));
    }
    let backends = app.backends();
    facts.push(directions(
        "limited by",
        row.limits.upload.map_or_else(String::new, |_| backends.upload.into()),
        row.limits.download.and(backends.download).unwrap_or_default().into(),
    ));
    facts.push(Fact::Gap);
    facts.push(Fact::Note("Limits end with chadthrottle.".into()));
    facts
}

/// What the keys of every place do, and what the figures mean.
pub(super) fn of_help() -> [Vec<Fact>; 2] {
    let [table, others @ ..] = keys::help();
    let part = |(place, lines): &(Place, Vec<(String, &'static str)>)| {
        let lines = lines.iter().map(|(keys, help)| Fact::Pair(keys.clone(), (*help).into()));
        std::iter::once(Fact::Title(place.title().into())).chain(lines).collect::<Vec<_>>()
    };
    let mut rest: Vec<Fact> = Vec::new();
    for place in others.iter().filter(|(_, lines)| !lines.is_empty()) {
        rest.extend(part(place));
        rest.push(Fact::Gap);
    }
    rest.push(Fact::Note(
        "IP bytes; K, M, G are powers of 1000. Dropped: thrown away to hold a limit.".into(),
    ));
    [part(&table), rest]
}

fn directions(name: &'static str, upload: String, download: String) -> Fact {
    Fact::Directions { name, upload, download }
}

/// A limit as the table shows it, and in words where there is none.
fn limit(limit: Option<u64>) -> String {
    limit.map_or_else(|| "none".into(), limit_text)
}

/// A limit as the table shows it.
#[must_use]
pub fn limit_text(limit: u64) -> String {
    if limit == 0 { "block".into() } else { scaled(limit) }
}

/// A time in its two largest units.
fn spoken(seconds: u64) -> String {
    let seconds = Duration::from_secs(seconds).as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}
