//! What the programs take of each packet, as the kernel measures it.

use std::os::fd::OwnedFd;

use anyhow::Context;
use aya::sys::{Stats, enable_stats};

use super::{
    Engine,
    engine::{ARRIVES, LEAVES},
};
use crate::backends::{PacketCost, Runs};

/// Has the kernel measure programs for as long as it lives (`BPF_ENABLE_STATS`, since Linux 5.8). Others may have it do
/// so as well.
#[derive(Debug)]
pub(super) struct Meter {
    _measures: OwnedFd,
    /// What had been counted before, while somebody else had it measured.
    before: PacketCost,
}

impl Engine {
    /// What the programs have taken since this was asked for first. From then on it is measured.
    ///
    /// # Errors
    /// When the kernel does not measure, in words.
    pub(super) fn packet_cost(&mut self) -> Result<PacketCost, String> {
        let counted = self.counted().map_err(|error| format!("the kernel does not tell: {error:#}"))?;
        let meter = match self.meter.take() {
            Some(meter) => meter,
            None => Meter { _measures: measure()?, before: counted },
        };
        let cost = counted.since(self.meter.insert(meter).before);
        Ok(cost)
    }

    fn counted(&self) -> anyhow::Result<PacketCost> {
        let runs = |name: &'static str| {
            let program = self.programs.program(name).with_context(|| format!("the object has no {name}"))?;
            let info = program.info().with_context(|| format!("asking for {name}"))?;
            anyhow::Ok(Runs { count: info.run_count(), time: info.run_time() })
        };
        Ok(PacketCost { upload: runs(LEAVES)?, download: runs(ARRIVES)? })
    }
}

/// The kernel asks for `CAP_SYS_ADMIN` (`bpf_enable_stats`, kernel/bpf/syscall.c), which nothing else here needs.
fn measure() -> Result<OwnedFd, String> {
    enable_stats(Stats::RunTime).map_err(|error| match error.io_error.raw_os_error() {
        Some(nix::libc::EPERM) => "to measure it takes CAP_SYS_ADMIN (sudo)".to_owned(),
        Some(nix::libc::EINVAL) => "this kernel does not measure programs; Linux 5.8 does".to_owned(),
        _ => format!("the kernel does not measure: {}", error.io_error),
    })
}
