//! `cleanup`: removes what a killed instance left in the kernel.

use std::io::Write;

/// Prints what there is, a line each, and removes it unless that is not wanted.
///
/// # Errors
/// When it cannot be looked for, something could not be removed, or `out` cannot be written.
pub fn run(dry_run: bool, out: &mut impl Write) -> anyhow::Result<()> {
    #[cfg(feature = "throttle-tc-htb")]
    {
        use crate::backends::throttle::journal;
        use anyhow::Context;

        if !dry_run {
            journal::forget_gone_networks().context("cannot forget what is gone")?;
        }
        let verb = if dry_run { "would remove" } else { "removed" };
        let leftovers = journal::leftovers().context("cannot look for what a killed instance left")?;
        let mut result = Ok(());
        for leftover in leftovers {
            if let Some(problem) = leftover.problem() {
                super::tell(&problem);
            }
            let removed = if dry_run { Ok(()) } else { leftover.remove() };
            if let Err(error) = removed {
                let what = leftover.describe().join(", ");
                result = Err(anyhow::Error::new(error).context(format!("cannot remove {what}")));
                continue;
            }
            for line in leftover.describe() {
                writeln!(out, "{verb} {line}")?;
            }
        }
        result
    }
    #[cfg(not(feature = "throttle-tc-htb"))]
    {
        // Nothing that this build makes outlives it.
        let _ = (dry_run, out);
        Ok(())
    }
}
