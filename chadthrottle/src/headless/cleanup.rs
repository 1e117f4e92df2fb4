//! `cleanup`: removes what a killed instance left in the kernel.

use std::io::Write;

#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
use anyhow::Context;

#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
const NOT_FOUND: &str = "cannot look for what a killed instance left";

/// What is left: a line each, and how to remove it.
struct Leftover {
    lines: Vec<String>,
    remove: Box<dyn Fn() -> std::io::Result<()>>,
}

/// Prints what there is, a line each, and removes it unless that is not wanted.
///
/// # Errors
/// When it cannot be looked for, something could not be removed, or `out` cannot be written.
pub fn run(dry_run: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let verb = if dry_run { "would remove" } else { "removed" };
    let mut result = Ok(());
    for Leftover { lines, remove } in leftovers(dry_run)? {
        let removed = if dry_run { Ok(()) } else { remove() };
        if let Err(error) = removed {
            let what = lines.join(", ");
            result = Err(anyhow::Error::new(error).context(format!("cannot remove {what}")));
            continue;
        }
        for line in lines {
            writeln!(out, "{verb} {line}")?;
        }
    }
    result
}

/// Everything that this build may leave.
fn leftovers(dry_run: bool) -> anyhow::Result<Vec<Leftover>> {
    let found = Vec::new();
    #[cfg(feature = "throttle-tc-htb")]
    let found = queues(found, dry_run)?;
    #[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
    let found = entrances(found)?;
    #[cfg(feature = "throttle-ifb-tc")]
    let found = ifbs(found)?;
    let _ = dry_run;
    Ok(found)
}

#[cfg(feature = "throttle-tc-htb")]
fn queues(mut found: Vec<Leftover>, dry_run: bool) -> anyhow::Result<Vec<Leftover>> {
    use crate::backends::throttle::tc_htb;

    if !dry_run {
        tc_htb::forget_gone_networks().context("cannot forget what is gone")?;
    }
    let left = tc_htb::leftovers().context(NOT_FOUND)?.into_iter();
    found.extend(left.map(|leftover| Leftover {
        lines: leftover.describe(),
        remove: Box::new(move || leftover.remove()),
    }));
    Ok(found)
}

#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
fn entrances(mut found: Vec<Leftover>) -> anyhow::Result<Vec<Leftover>> {
    let left = crate::backends::throttle::filters::leftovers().context(NOT_FOUND)?.into_iter();
    found.extend(left.map(|leftover| Leftover {
        lines: leftover.describe(),
        remove: Box::new(move || leftover.remove()),
    }));
    Ok(found)
}

#[cfg(feature = "throttle-ifb-tc")]
fn ifbs(mut found: Vec<Leftover>) -> anyhow::Result<Vec<Leftover>> {
    let left = crate::backends::throttle::ifb_tc::leftovers().context(NOT_FOUND)?.into_iter();
    found.extend(left.map(|leftover| Leftover {
        lines: vec![leftover.describe()],
        remove: Box::new(move || leftover.remove()),
    }));
    Ok(found)
}
