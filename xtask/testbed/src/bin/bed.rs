//! `bed [--round-trip MILLISECONDS] [--loss SHARE] PROGRAM [ARGUMENT…]`: makes a bed, runs a program on its client, and removes it. `bed sh` is the way to look
//! around in one; from another terminal, `ip netns` lists its hosts.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use testbed::{Path, Testbed};

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
    let mut path = None;
    let program = loop {
        let word = words.next().context("which program is to run on the client?")?;
        let option = word.to_str().filter(|word| word.starts_with("--")).map(str::to_owned);
        let Some(option) = option else { break word };
        let value: f64 = words.next().context("an option without a value")?.to_string_lossy().parse()?;
        let before = path.unwrap_or_else(|| Path::round_trip(Duration::ZERO));
        path = Some(match option.as_str() {
            "--round-trip" => {
                Path::round_trip(Duration::from_secs_f64(value / 1e3)).loss(before.to_server.loss)
            }
            "--loss" => before.loss(value),
            other => anyhow::bail!("unknown option {other}"),
        });
    };
    let bed = match path {
        Some(path) => Testbed::with_path("bed", &path)?,
        None => Testbed::new("bed")?,
    };
    let status = bed.client().command(&program).args(words).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()));
    // By hand, since a `main` that returns early would panic if the bed could not be removed.
    bed.close()?;
    let code = status?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
