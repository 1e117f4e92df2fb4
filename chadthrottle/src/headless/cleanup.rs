//! `cleanup`: removes what a killed instance left in the kernel.

use std::io::Write;

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

/// Everything that a build may leave.
#[expect(clippy::unnecessary_wraps, clippy::vec_init_then_push, reason = "some builds leave nothing")]
fn leftovers(dry_run: bool) -> anyhow::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    #[cfg(feature = "throttle-tc-htb")]
    {
        use crate::backends::throttle::tc_htb;
        use anyhow::Context;

        if !dry_run {
            tc_htb::forget_gone_networks().context("cannot forget what is gone")?;
        }
        let left = tc_htb::leftovers().context("cannot look for what a killed instance left")?;
        found.extend(left.into_iter().map(|leftover| Leftover {
            lines: leftover.describe(),
            remove: Box::new(move || leftover.remove()),
        }));
    }
    #[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
    {
        use crate::backends::throttle::filters;
        use anyhow::Context;

        let left = filters::leftovers().context("cannot look for what a killed instance left")?;
        found.extend(left.into_iter().map(|leftover| Leftover {
            lines: leftover.describe(),
            remove: Box::new(move || leftover.remove()),
        }));
    }
    #[cfg(feature = "throttle-ifb-tc")]
    {
        use crate::backends::throttle::ifb_tc;
        use anyhow::Context;

        let left = ifb_tc::leftovers().context("cannot look for what a killed instance left")?;
        found.extend(left.into_iter().map(|leftover| Leftover {
            lines: vec![leftover.describe()],
            remove: Box::new(move || leftover.remove()),
        }));
    }
    let _ = dry_run;
    Ok(found)
}
