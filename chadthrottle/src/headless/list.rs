//! `--list-backends`.

use std::io::Write;

use crate::backends::registry::{Backends, Listed, Wanted};

/// Prints every backend, whether it works here, and why not. Changes nothing in the system.
///
/// # Errors
/// When a name in `wanted` does not exist, or `out` cannot be written.
pub fn run(backends: &Backends, wanted: &Wanted, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let listing = backends.list(wanted)?;
    if json {
        writeln!(out, "{}", serde_json::to_string(&listing)?)?;
        return Ok(());
    }
    for (kind, rows) in
        [("monitor", &listing.monitor), ("upload", &listing.upload), ("download", &listing.download)]
    {
        writeln!(out, "{kind}:")?;
        if rows.is_empty() {
            writeln!(out, "    (none in this build)")?;
        }
        for row in rows {
            print_row(row, out)?;
        }
    }
    writeln!(out, "\n* is what would be used.")?;
    Ok(())
}

fn print_row(row: &Listed, out: &mut impl Write) -> std::io::Result<()> {
    let star = if row.selected { '*' } else { ' ' };
    let state = if row.available { "works here" } else { "unavailable" };
    write!(out, "  {star} {:<14} {:<9} {state}", row.name, row.priority)?;
    match (&row.reason, row.tagger) {
        (Some(reason), _) => write!(out, ": {reason}")?,
        (None, Some(tagger)) => write!(out, ", by {tagger}")?,
        (None, None) => {}
    }
    writeln!(out)
}
