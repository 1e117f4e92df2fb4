//! What the programs have counted, and what they know of whom it is counted for.
//!
//! Counters are in slots, one a key: the programs find a socket's slot in its storage, and userspace has all slots in its
//! memory. A key that finds no slot left is counted in a hash table.

use std::{io, os::unix::ffi::OsStrExt, path::Path};

use anyhow::Context;
use aya::{
    Ebpf,
    maps::{Array, HashMap, IterableMap, MapData, MapError, PerCpuArray, PerCpuHashMap, Stack},
};
use chadthrottle_common::{
    FlowCounters, ProcessKey, ProcessRecord, ProgramPath, TrafficCounters, TrafficKey,
    traffic::{PROGRAM_PATH_LEN, SLOTS},
};

use super::{object::take, tagger::BPF_NOEXIST};
use crate::sys::bpf_map::{self, Mapped};

/// The maps of accounting.
pub struct Accounts {
    processes: HashMap<MapData, ProcessKey, ProcessRecord>,
    programs: HashMap<MapData, ProcessKey, ProgramPath>,
    executed: HashMap<MapData, ProcessKey, ProgramPath>,
    /// Slot by slot a counter a CPU.
    counters: Mapped<TrafficCounters>,
    /// The map itself: programs that are loaded later look for it.
    _counters: Array<MapData, TrafficCounters>,
    slot_of: HashMap<MapData, TrafficKey, u32>,
    free_slots: Stack<MapData, u32>,
    /// Slots that nobody has any more, but that sockets remember until they are told of a new generation.
    freed_slots: Vec<u32>,
    /// Those of which they have been told.
    announced_slots: Vec<u32>,
    /// What is counted without a slot.
    traffic: PerCpuHashMap<MapData, TrafficKey, TrafficCounters>,
    lost: PerCpuArray<MapData, u64>,
    /// Copies of what is counted by CPU.
    cpus: usize,
}

impl Accounts {
    /// The size that the table of counters is to have.
    pub(super) fn counters(cpus: usize) -> anyhow::Result<u32> {
        u32::try_from(cpus)?.checked_mul(SLOTS).context("too many CPUs")
    }

    pub(super) fn take(programs: &mut Ebpf, cpus: usize) -> anyhow::Result<Self> {
        let counters: Array<MapData, TrafficCounters> = take(programs, "CHAD_COUNTERS")?;
        let mut free_slots: Stack<MapData, u32> = take(programs, "CHAD_FREE_SLOTS")?;
        // The lowest are taken first. 0 is none.
        for slot in (1..SLOTS).rev() {
            free_slots.push(slot, 0)?;
        }
        Ok(Self {
            counters: Mapped::new(counters.map().fd(), cpus * SLOTS as usize)
                .context("cannot map the counters")?,
            _counters: counters,
            slot_of: take(programs, "CHAD_SLOTS")?,
            free_slots,
            freed_slots: Vec::new(),
            announced_slots: Vec::new(),
            processes: take(programs, "CHAD_PROCESSES")?,
            programs: take(programs, "CHAD_PROGRAMS")?,
            executed: take(programs, "CHAD_EXECUTED")?,
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
        bpf_map::read_all(self.slot_of.map().fd(), 1, |key, slot: &[u32]| {
            let slot = slot.first().map_or(0, |slot| *slot as usize);
            found.push((key, self.copies(slot).fold(TrafficCounters::default(), |all, cpu| sum(all, &cpu))));
        })?;
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
        let executed = self.executed.get(process, 0).or_else(|_| self.programs.get(process, 0));
        let path = executed.ok()?.bytes;
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
        if let Ok(slot) = self.slot_of.get(key, 0) {
            let _ = self.slot_of.remove(key);
            self.freed_slots.push(slot);
        }
        // What is not there need not be removed; there is no other error that matters here.
        let _ = self.traffic.remove(key);
    }

    /// Has those slots used again that were freed before this was called last, and tells whether others have been freed
    /// since: then sockets have to be told before it is called again.
    pub(super) fn reuse_slots(&mut self) -> bool {
        for slot in std::mem::replace(&mut self.announced_slots, std::mem::take(&mut self.freed_slots)) {
            for cpu in 0..self.cpus {
                self.counters.set(slot as usize * self.cpus + cpu, TrafficCounters::default());
            }
            // There is room for as many as there are.
            let _ = self.free_slots.push(slot, 0);
        }
        !self.announced_slots.is_empty()
    }

    /// The counters of a slot, CPU by CPU.
    fn copies(&self, slot: usize) -> impl Iterator<Item = TrafficCounters> {
        let first = slot * self.cpus;
        (first..first + self.cpus).filter_map(|index| self.counters.get(index))
    }

    /// Forgets a process that has ended.
    pub fn forget_process(&mut self, process: &ProcessKey) {
        let _ = self.processes.remove(process);
        let _ = self.programs.remove(process);
        let _ = self.executed.remove(process);
    }

    /// Notes what is known of a process, unless that is known already.
    pub(super) fn note(&mut self, process: ProcessKey, record: &ProcessRecord) -> Result<(), MapError> {
        self.processes.insert(process, record, BPF_NOEXIST)
    }

    /// Notes that a process has ended.
    pub(super) fn note_end(&mut self, process: ProcessKey) {
        if let Ok(record) = self.processes.get(&process, 0) {
            let _ = self.processes.insert(process, ProcessRecord { has_ended: 1, ..record }, 0);
        }
    }

    /// Notes what a process executes, where the path is not too long for that.
    pub(super) fn note_program(&mut self, process: ProcessKey, program: &Path) {
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
