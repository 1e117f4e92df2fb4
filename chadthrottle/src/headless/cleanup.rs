//! `cleanup`: removes what a killed instance left in the kernel, and what it wrote down.

use std::io::Write;

use anyhow::Context;

use super::all_of;
use crate::{
    daemon::server,
    instances::{self, Of},
    sys::note,
};

/// Prints what there is, a line each, and removes it unless that is not wanted.
///
/// # Errors
/// When it cannot be looked for, something could not be removed, or `out` cannot be written. Everything else has been.
pub fn run(dry_run: bool, out: &mut impl Write) -> anyhow::Result<()> {
    #[cfg(feature = "throttle-tc-htb")]
    let queues = queues(dry_run, out);
    // Nothing else that is built outlives us.
    #[cfg(not(feature = "throttle-tc-htb"))]
    let queues = Ok(());
    #[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
    let entrances = entrances(dry_run, out);
    #[cfg(not(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police")))]
    let entrances = Ok(());
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
    let cgroups = cgroups(dry_run, out);
    #[cfg(not(any(feature = "throttle-tc-htb", feature = "throttle-nftables")))]
    let cgroups = Ok(());
    all_of([queues, entrances, cgroups, notes(dry_run, out), socket(dry_run, out)])
}

/// Cgroups that processes were moved to.
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
fn cgroups(dry_run: bool, out: &mut impl Write) -> anyhow::Result<()> {
    use crate::backends::throttle::tagger::cgroup;

    let mut results = Vec::new();
    for leftover in cgroup::leftovers().context("cannot look for what a killed instance left")? {
        match if dry_run { Ok(()) } else { leftover.remove() } {
            Ok(()) => {
                for line in leftover.describe() {
                    writeln!(out, "{} {line}", verb(dry_run))?;
                }
            }
            Err(error) => results.push(Err(anyhow::Error::new(error).context("cannot move processes back"))),
        }
    }
    all_of(results)
}

#[cfg(feature = "throttle-tc-htb")]
fn queues(dry_run: bool, out: &mut impl Write) -> anyhow::Result<()> {
    use crate::backends::throttle::journal;

    let mut results = Vec::new();
    if !dry_run {
        results.push(journal::forget_gone_networks().context("cannot forget what is gone"));
    }
    for leftover in journal::leftovers().context("cannot look for what a killed instance left")? {
        if let Some(problem) = leftover.problem() {
            super::tell(&problem);
        }
        match if dry_run { Ok(()) } else { leftover.remove() } {
            Ok(()) => {
                for line in leftover.describe() {
                    writeln!(out, "{} {line}", verb(dry_run))?;
                }
            }
            Err(error) => {
                let what = leftover.describe().join(", ");
                results.push(Err(anyhow::Error::new(error).context(format!("cannot remove {what}"))));
            }
        }
    }
    all_of(results)
}

/// Filters at entrances, and IFBs.
#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
fn entrances(dry_run: bool, out: &mut impl Write) -> anyhow::Result<()> {
    use crate::backends::throttle::{filters, notes};

    let not_found = "cannot look for what a killed instance left";
    let mut results = Vec::new();
    let mut take = |lines: Vec<String>, remove: &dyn Fn() -> std::io::Result<()>| -> anyhow::Result<()> {
        match if dry_run { Ok(()) } else { remove() } {
            Ok(()) => {
                for line in lines {
                    writeln!(out, "{} {line}", verb(dry_run))?;
                }
            }
            Err(error) => {
                let what = lines.join(", ");
                results.push(Err(anyhow::Error::new(error).context(format!("cannot remove {what}"))));
            }
        }
        Ok(())
    };
    if !dry_run {
        notes::forget_gone_networks().context("cannot forget what is gone")?;
    }
    for leftover in filters::leftovers().context(not_found)? {
        take(leftover.describe(), &|| leftover.remove())?;
    }
    #[cfg(feature = "throttle-ifb-tc")]
    for leftover in crate::backends::throttle::ifb_tc::leftovers().context(not_found)? {
        take(vec![leftover.describe()], &|| leftover.remove())?;
    }
    all_of(results)
}

/// What instances said of themselves that have ended.
fn notes(dry_run: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let mut results = Vec::new();
    for rest in instances::rests(Of::AnyoneGone) {
        let line = format!("{}, which was being written when its process ended", rest.display());
        match if dry_run { Ok(()) } else { note::remove(&rest) } {
            Ok(()) => writeln!(out, "{} {line}", verb(dry_run))?,
            Err(error) => {
                results.push(Err(anyhow::Error::new(error).context(format!("cannot remove {line}"))));
            }
        }
    }
    for stale in instances::all().stale {
        let line = format!("the note {} of process {}, which has ended", stale.path.display(), stale.process);
        match if dry_run { Ok(()) } else { stale.remove() } {
            Ok(()) => writeln!(out, "{} {line}", verb(dry_run))?,
            Err(error) => {
                results.push(Err(anyhow::Error::new(error).context(format!("cannot remove {line}"))));
            }
        }
    }
    all_of(results)
}

/// Where a daemon listened that was killed.
fn socket(dry_run: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(path) = server::abandoned() else { return Ok(()) };
    let line = format!("the socket {} of a daemon that has ended", path.display());
    if !dry_run {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {line}"))?;
    }
    Ok(writeln!(out, "{} {line}", verb(dry_run))?)
}

const fn verb(dry_run: bool) -> &'static str {
    if dry_run { "would remove" } else { "removed" }
}
