//! What the programs have counted, and what they know of whom it is counted for.

use std::{io, os::unix::ffi::OsStrExt, path::Path};

use aya::{
    Ebpf,
    maps::{HashMap, IterableMap, MapData, MapError, PerCpuArray, PerCpuHashMap},
};
use chadthrottle_common::{
    FlowCounters, ProcessKey, ProcessRecord, ProgramPath, TrafficCounters, TrafficKey,
    traffic::PROGRAM_PATH_LEN,
};

use super::{engine::take, tagger::BPF_NOEXIST};
use crate::sys::bpf_map;

/// The maps of accounting.
pub struct Accounts {
    processes: HashMap<MapData, ProcessKey, ProcessRecord>,
    programs: HashMap<MapData, ProcessKey, ProgramPath>,
    traffic: PerCpuHashMap<MapData, TrafficKey, TrafficCounters>,
    lost: PerCpuArray<MapData, u64>,
    /// Copies of what is counted by CPU.
    cpus: usize,
}

impl Accounts {
    pub(super) fn take(programs: &mut Ebpf) -> anyhow::Result<Self> {
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        Ok(Self {
            processes: take(programs, "CHAD_PROCESSES")?,
            programs: take(programs, "CHAD_PROGRAMS")?,
            traffic: take(programs, "CHAD_TRAFFIC")?,
            lost: take(programs, "CHAD_LOST")?,
            cpus,
        })
    }

    /// Everything that has been counted, added up over the CPUs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn traffic(&self) -> io::Result<Vec<(TrafficKey, TrafficCounters)>> {
        let mut found = Vec::new();
        bpf_map::read_all(self.traffic.map().fd(), self.cpus, |key, copies: &[TrafficCounters]| {
            found.push((key, copies.iter().fold(TrafficCounters::default(), sum)));
        })?;
        Ok(found)
    }

    /// What the programs know of each process that has opened a socket.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn processes(&self) -> io::Result<Vec<(ProcessKey, ProcessRecord)>> {
        let mut found = Vec::new();
        bpf_map::read_all(self.processes.map().fd(), 1, |key, record: &[ProcessRecord]| {
            found.extend(record.first().map(|record| (key, *record)));
        })?;
        Ok(found)
    }

    /// What a process executes or executed, as it was given to `execve`.
    #[must_use]
    pub fn program(&self, process: &ProcessKey) -> Option<Vec<u8>> {
        let path = self.programs.get(process, 0).ok()?.bytes;
        let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
        Some(path[..end].to_vec())
    }

    /// Events that the programs could not record.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lost(&self) -> Result<u64, MapError> {
        Ok(self.lost.get(&0, 0)?.iter().sum())
    }

    /// Forgets what was counted under a key, after it has been read.
    pub fn forget_traffic(&mut self, key: &TrafficKey) {
        // What is not there need not be removed; there is no other error that matters here.
        let _ = self.traffic.remove(key);
    }

    /// Forgets a process that has ended.
    pub fn forget_process(&mut self, process: &ProcessKey) {
        let _ = self.processes.remove(process);
        let _ = self.programs.remove(process);
    }

    /// Notes what is known of a process, unless that is known already.
    pub(super) fn note(&mut self, process: &ProcessKey, record: &ProcessRecord) -> Result<(), MapError> {
        self.processes.insert(process, record, BPF_NOEXIST)
    }

    /// Notes that a process has ended.
    pub(super) fn note_end(&mut self, process: &ProcessKey) {
        if let Ok(record) = self.processes.get(process, 0) {
            let _ = self.processes.insert(process, ProcessRecord { has_ended: 1, ..record }, 0);
        }
    }

    /// Notes what a process executes, where the path is not too long for that.
    pub(super) fn note_program(&mut self, process: &ProcessKey, program: &Path) {
        let path = program.as_os_str().as_bytes();
        let mut noted = ProgramPath { bytes: [0; PROGRAM_PATH_LEN] };
        // The last byte stays zero.
        if path.len() < noted.bytes.len() {
            noted.bytes[..path.len()].copy_from_slice(path);
            let _ = self.programs.insert(process, noted, BPF_NOEXIST);
        }
    }
}

fn sum(mut sum: TrafficCounters, cpu: &TrafficCounters) -> TrafficCounters {
    let add = |sum: &mut FlowCounters, cpu: &FlowCounters| {
        sum.bytes += cpu.bytes;
        sum.packets += cpu.packets;
        sum.merged_packets += cpu.merged_packets;
        sum.merged_bytes += cpu.merged_bytes;
    };
    add(&mut sum.upload, &cpu.upload);
    add(&mut sum.download, &cpu.download);
    sum
}
