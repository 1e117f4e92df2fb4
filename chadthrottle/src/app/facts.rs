//! What the details and the help say, without how it is drawn.

use std::time::Duration;

use super::{
    App,
    keys::{self, Place},
    row::Row,
    table::Entry,
    unit::unit,
    units::Units,
};
use crate::{
    backends::throttle::{Subject, TrafficType},
    stats::Traffic,
};

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
        name: String,
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

/// Who a process is, what it does, and what its limits make of it.
pub(super) fn of_process(app: &App, row: &Row) -> Vec<Fact> {
    let pair = |name: &str, value: String| Fact::Pair(name.into(), value);
    let unknown = || "not known".to_owned();
    let (info, units) = (&row.info, app.units());
    let looked = app.looked.facts(info.id);
    let exe = info.exe.as_ref().map_or_else(unknown, |exe| exe.to_string_lossy().into_owned());
    let mut facts = vec![
        pair("state", if row.alive { "running".into() } else { "ended".into() }),
        pair("user", info.user.clone().unwrap_or_else(unknown)),
        pair("started", format!("{} after boot", spoken(info.id.start_time / TICKS_PER_SECOND))),
        pair("executable", exe),
    ];
    if let Some(looked) = looked {
        let command = if looked.command_line.is_empty() { unknown() } else { looked.command_line.join(" ") };
        facts.push(pair("command", shortened(command)));
        let above = looked.ancestors.iter().map(|ancestor| format!("{} ({})", ancestor.name, ancestor.id));
        facts.push(pair("started by", above.collect::<Vec<_>>().join(" < ")));
    }
    facts.push(pair("cgroup", info.cgroup.clone().unwrap_or_else(unknown)));
    if let Some(unit) = unit(info) {
        facts.push(pair("unit", unit));
    }
    facts.extend([
        Fact::Gap,
        directions("", "upload".into(), "download".into()),
        directions("rate", app.rate(row.rate.upload), app.rate(row.rate.download)),
        directions("total", units.amount(row.total.upload), units.amount(row.total.download)),
        directions("limit", limit(units, row.limits.upload), limit(units, row.limits.download)),
    ]);
    if let Some(refused) = app.refusal(&Entry::Process(row)) {
        facts.push(Fact::Note(format!("Refused: {}", refused.words)));
    }
    if !row.limits.is_empty() {
        facts.extend(of_limits(app, row));
    }
    facts
}

/// What limits make of what a process wants.
fn of_limits(app: &App, row: &Row) -> Vec<Fact> {
    let units = app.units();
    let gauge =
        |rate: u64, limit: Option<u64>| limit.map_or_else(String::new, |limit| gauge(app, rate, limit));
    let mut facts = vec![directions(
        "of the limit",
        gauge(row.rate.upload, row.limits.upload),
        gauge(row.rate.download, row.limits.download),
    )];
    if let Some(rule) = app.rule(&row.target().subject) {
        facts.push(Fact::Pair("by rule".into(), rule.to_owned()));
    }
    if row.is_shared {
        facts.push(Fact::Note(format!("It shares this limit with others: {}.", row.target())));
        return facts;
    }
    // What was offered to a limit that is not there is not nothing: it was not counted.
    let counted = |pick: &dyn Fn(&chadthrottle_common::ThrottleStats) -> u64| {
        let count = |limit: Option<u64>, stats| limit.map_or_else(String::new, |_| units.amount(pick(stats)));
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
    if row.upload_stats.bytes_delayed != 0 {
        let delayed = units.amount(row.upload_stats.bytes_delayed);
        facts.push(directions("delayed", delayed, String::new()));
    }
    if let Some(waiting) = row.held_back {
        facts.push(directions("held back", units.amount(waiting), String::new()));
    }
    let backends = app.backends();
    facts.push(directions(
        "limited by",
        row.limits.upload.map_or_else(String::new, |_| backends.upload.into()),
        row.limits.download.and(backends.download).unwrap_or_default().into(),
    ));
    let target = row.target();
    if target.traffic != TrafficType::All {
        facts.push(Fact::Note(format!("The limit is for {} traffic alone.", target.traffic.name())));
    }
    if let Subject::Descendants(_) = target.subject {
        facts.push(Fact::Note("It shares the limit with all that it starts.".into()));
    }
    if app.rule(&target.subject).is_none() {
        facts.push(Fact::Note("Limits end with chadthrottle.".into()));
    }
    facts
}

/// How much of a limit is used: a bar and a share.
fn gauge(app: &App, rate: u64, limit: u64) -> String {
    const BAR: u64 = 6;
    if limit == 0 {
        return "blocked".into();
    }
    let share = rate.saturating_mul(100) / limit;
    let full = usize::try_from((rate.saturating_mul(BAR) / limit).min(BAR)).unwrap_or_default();
    let bar: String = (0..6).map(|place| if place < full { '█' } else { '░' }).collect();
    let share = if share > 999 { ">999".to_owned() } else { share.to_string() };
    app.looks().plain(&format!("{bar}{share:>4} %"))
}

/// Where its bytes went, and where they came from.
pub(super) fn of_traffic(app: &App, row: &Row) -> Vec<Fact> {
    let units = app.units();
    let seen = app.snapshot().and_then(|all| all.processes.iter().find(|seen| seen.info.id == row.id()));
    let Some(seen) = seen else { return vec![Fact::Note("It has not used the network.".into())] };
    let both = |name: &str, traffic: Traffic| Fact::Directions {
        name: name.to_owned(),
        upload: units.amount(traffic.upload),
        download: units.amount(traffic.download),
    };
    let mut facts = vec![directions("", "upload".into(), "download".into()), both("all", seen.total)];
    match seen.local {
        Some(local) => {
            facts.push(both("internet", seen.total.since(local)));
            facts.push(both("local", local));
        }
        None => {
            facts.push(Fact::Note("This monitor does not tell local traffic from the internet's.".into()));
        }
    }
    facts.push(Fact::Gap);
    if seen.interfaces.is_empty() {
        facts.push(Fact::Note(
            "This monitor does not tell interfaces apart, or none carried any of it.".into(),
        ));
    }
    let carried = seen.interfaces.iter().fold(Traffic::default(), |sum, (_, traffic)| sum.plus(*traffic));
    facts.extend(seen.interfaces.iter().map(|(name, traffic)| both(name, *traffic)));
    let elsewhere = seen.total.since(carried);
    if !seen.interfaces.is_empty() && elsewhere != Traffic::default() {
        facts.push(both("elsewhere", elsewhere));
    }
    facts
}

/// A command line may have a megabyte of arguments.
fn shortened(command: String) -> String {
    const LONGEST: usize = 400;
    match command.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command,
    }
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
        "IP bytes; K, M, G are powers of 1000. Held back: waits in the program's own sockets for its upload limit. Dropped: thrown away to hold a limit. * before a limit: shared with others.".into(),
    ));
    [part(&table), rest]
}

fn directions(name: &str, upload: String, download: String) -> Fact {
    Fact::Directions { name: name.to_owned(), upload, download }
}

/// A limit as the table shows it, and in words where there is none.
fn limit(units: Units, limit: Option<u64>) -> String {
    limit.map_or_else(|| "none".into(), |limit| units.limit(limit))
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
