//! `bed PROGRAM [ARGUMENT…]`: makes a bed, runs a program on its client, and removes it. `bed sh` is the way to look
//! around in one; from another terminal, `ip netns` lists its hosts.

use std::process::ExitCode;

use anyhow::Context;
use testbed::Testbed;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().context("which program is to run on the client?")?;
    let bed = Testbed::new("bed")?;
    let status = bed.client().command(&program).args(words).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()));
    // By hand, since a `main` that returns early would panic if the bed could not be removed.
    bed.close()?;
    let code = status?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
