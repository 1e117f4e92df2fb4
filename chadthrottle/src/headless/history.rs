//! `history`: what was used.

use std::{
    io::{self, Write},
    path::Path,
};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::{
    cli::history::HistoryOptions,
    history::{
        By,
        store::{Store, Used},
    },
    rate::scaled,
};

/// Prints what was asked for.
///
/// # Errors
/// When nothing has been recorded, or `out` cannot be written.
pub fn run(path: &Path, options: &HistoryOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let store = Store::open_to_read(path)?;
    let now = Timestamp::now();
    let since = options.since.time(now, &TimeZone::system());
    let used = store.used(options.by, since, now.as_second(), options.per)?;
    if options.json {
        let lines: Vec<JsonUsed<'_>> = used.iter().map(JsonUsed::new).collect();
        writeln!(out, "{}", serde_json::to_string(&lines)?)?;
    } else if options.csv {
        print_csv(&used, out)?;
    } else {
        print_table(&used, options.by, out)?;
    }
    Ok(())
}

/// One amount in JSON.
#[derive(Serialize)]
struct JsonUsed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    name: &'a str,
    upload_bytes: u64,
    download_bytes: u64,
}

impl<'a> JsonUsed<'a> {
    fn new(used: &'a Used) -> Self {
        Self {
            start: used.start.map(time),
            name: &used.name,
            upload_bytes: used.traffic.upload,
            download_bytes: used.traffic.download,
        }
    }
}

/// `2026-01-31T12:00:00Z`.
fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

fn print_csv(used: &[Used], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "start,name,upload_bytes,download_bytes")?;
    for one in used {
        let start = one.start.map(time).unwrap_or_default();
        writeln!(out, "{start},{},{},{}", quoted(&one.name), one.traffic.upload, one.traffic.download)?;
    }
    Ok(())
}

/// A field as RFC 4180 has it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn print_table(used: &[Used], by: By, out: &mut impl Write) -> io::Result<()> {
    let heading = match by {
        By::Program => "PROGRAM",
        By::Unit => "UNIT",
        By::User => "USER",
        By::Interface => "INTERFACE",
    };
    let has_times = used.iter().any(|one| one.start.is_some());
    let first = |text: &str| if has_times { format!("{text:<21}") } else { String::new() };
    writeln!(out, "{}{:>8} {:>8} {:>8}  {heading}", first("FROM"), "UP", "DOWN", "BOTH")?;
    for one in used {
        let traffic = one.traffic;
        // No name steers a terminal.
        let name: String = one.name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let name = if name.is_empty() { "-" } else { &name };
        writeln!(
            out,
            "{}{:>8} {:>8} {:>8}  {name}",
            first(&one.start.map(time).unwrap_or_default()),
            scaled(traffic.upload),
            scaled(traffic.download),
            scaled(traffic.sum()),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Traffic;

    #[test]
    fn a_name_is_quoted_where_it_has_to_be() {
        let used = |name: &str| Used {
            start: None,
            name: name.into(),
            traffic: Traffic { upload: 1500, download: 2 },
        };
        let mut csv = Vec::new();
        print_csv(&[used("/bin/a"), used("a,\"b\"")], &mut csv).expect("written");
        let expected = "start,name,upload_bytes,download_bytes\n,/bin/a,1500,2\n,\"a,\"\"b\"\"\",1500,2\n";
        assert_eq!(String::from_utf8_lossy(&csv), expected);
        let mut table = Vec::new();
        print_table(&[used("\u{1b}[2J")], By::Program, &mut table).expect("written");
        assert!(!table.contains(&0x1b));
    }
}
