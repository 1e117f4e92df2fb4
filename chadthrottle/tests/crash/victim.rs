//! The one that is killed: limits a process, differently all the time, until that happens.

use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Context, bail};
use chadthrottle::{
    backends::{
        BackendOptions,
        registry::Backends,
        throttle::{Target, ThrottleManager, manager::Limits},
    },
    process::ProcessId,
};

use super::dice::Dice;

/// Makes this program that: upload backend, download backend, cgroup, pid, seed.
pub(super) const MODE: &str = "live-until-killed";
/// What it is held to, in bytes a second: far below what is called free.
const LIMITS: std::ops::Range<u64> = 100_000..400_000;
/// It ends by itself should nobody kill it.
const CHANGES: u32 = 10_000;

pub(super) fn run(words: &[&str]) -> anyhow::Result<()> {
    let [upload, download, cgroup, pid, seed] = words else { bail!("five arguments, not {words:?}") };
    let mut dice = Dice::new(Some(seed.parse()?));
    let options = BackendOptions { cgroup_root: Some(PathBuf::from(cgroup)), ..BackendOptions::default() };
    let backends = Backends::new(options);
    let upload = backends.select_upload_backend(Some(upload))?;
    let download = backends.select_download_backend(Some(download))?.context("there is one")?;
    let mut manager = ThrottleManager::new(upload, Some(download))?.announced();
    let target = Target::process(ProcessId::running(pid.parse()?)?, "flow");
    for change in 0..CHANGES {
        let mut limit = || LIMITS.start + dice.below(LIMITS.end - LIMITS.start);
        let limits = Limits { upload: Some(limit()), download: Some(limit()) };
        // Now and then one direction is free, or both are.
        let limits = match dice.below(8) {
            0 if change > 0 => Limits::default(),
            1 if change > 0 => Limits { upload: None, ..limits },
            2 if change > 0 => Limits { download: None, ..limits },
            _ => limits,
        };
        // A download that the receive window cannot hold is refused; the limits before are in force then.
        if let Err(error) = manager.throttle_process(&target, limits) {
            eprintln!("{error}");
        }
        if change == 0 {
            println!("held");
        }
        thread::sleep(Duration::from_millis(dice.below(30)));
    }
    bail!("nobody has killed us")
}
