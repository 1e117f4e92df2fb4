//! The programs in the kernel, and the maps that userspace reads and writes.

use std::collections::HashMap as StdHashMap;

use anyhow::{Context, anyhow};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuHashMap, SkStorage},
    programs::{BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock},
};
use chadthrottle_common::{
    ControlFlags, LimitKey, LimitState, Membership, ProcessKey, ProcessRecord, SocketOwner, ThrottleStats,
    TrafficCounters,
};
use log::LevelFilter;

use super::{
    messages::Messages,
    tagger::{self, Existing, Tables},
    targets::Targets,
};
use crate::{
    backends::BackendOptions,
    process::ProcessId,
    stats::Traffic,
    sys::{btf::KernelTypes, cgroup::CgroupRoot},
};

/// The programs, built from chadthrottle-ebpf by `cargo xtask ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CHADTHROTTLE_EBPF_OBJECT"));

/// Loaded programs. Nothing is pinned: links, programs and maps go when this value does, or the process, whatever
/// ends it.
pub struct Engine {
    cgroup: CgroupRoot,
    owners: SkStorage<MapData, SocketOwner>,
    processes: HashMap<MapData, ProcessKey, ProcessRecord>,
    traffic: PerCpuHashMap<MapData, ProcessKey, TrafficCounters>,
    unowned: PerCpuArray<MapData, TrafficCounters>,
    lost: PerCpuArray<MapData, u64>,
    pub(super) members: HashMap<MapData, ProcessKey, Membership>,
    pub(super) limits: HashMap<MapData, LimitKey, LimitState>,
    pub(super) stats: PerCpuHashMap<MapData, LimitKey, ThrottleStats>,
    control: Array<MapData, ControlFlags>,
    control_flags: ControlFlags,
    targets: Targets,
    _messages: Option<Messages>,
    /// Last, because the programs go with it.
    programs: Ebpf,
}

impl Engine {
    /// Loads the programs and attaches them; from here on everything is counted.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn load(options: &BackendOptions) -> anyhow::Result<Self> {
        let cgroup = CgroupRoot::open(options.cgroup_root.as_deref())?;
        let types = KernelTypes::running()?;
        let offsets = [
            ("TASK_GROUP_LEADER", types.offset("task_struct", "group_leader")?),
            ("TASK_TGID", types.offset("task_struct", "tgid")?),
            ("TASK_START_BOOTTIME", types.offset("task_struct", "start_boottime")?),
            ("TASK_FLAGS", types.offset("task_struct", "flags")?),
            ("SOCK_LOCK_OWNED", types.offset("sock", "sk_lock.owned")?),
        ];
        drop(types);
        // The programs' own messages cost time in the packet path; the verifier removes them where they are off.
        let log_level = options.kernel_messages as u8;
        let has_messages = options.kernel_messages != LevelFilter::Off;

        let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).override_global(aya_log::LEVEL, &log_level, true);
        for (name, offset) in &offsets {
            loader.override_global(name, offset, true);
        }
        let mut programs = loader.load(OBJECT).context("the kernel refused the programs")?;
        let messages = if has_messages { Some(Messages::pass_on(&mut programs)?) } else { None };

        let mut control: Array<_, ControlFlags> = take(&mut programs, "CHAD_CONTROL")?;
        let control_flags =
            ControlFlags { include_loopback: u32::from(options.include_loopback), ..ControlFlags::default() };
        control.set(0, control_flags, 0)?;
        let mut engine = Self {
            owners: take(&mut programs, "CHAD_OWNERS")?,
            processes: take(&mut programs, "CHAD_PROCESSES")?,
            traffic: take(&mut programs, "CHAD_TRAFFIC")?,
            unowned: take(&mut programs, "CHAD_UNOWNED")?,
            lost: take(&mut programs, "CHAD_LOST")?,
            members: take(&mut programs, "CHAD_MEMBERS")?,
            limits: take(&mut programs, "CHAD_LIMITS")?,
            stats: take(&mut programs, "CHAD_STATS")?,
            control,
            control_flags,
            targets: Targets::default(),
            _messages: messages,
            cgroup,
            programs,
        };
        engine.attach(&btf)?;
        Ok(engine)
    }

    /// Attaches the programs by links, owners first: a socket made in between has one when its packets are counted.
    fn attach(&mut self, btf: &Btf) -> anyhow::Result<()> {
        let cgroup = &self.cgroup.dir;
        // `Single` although several may be attached: with links that is the kernel's default, and the flag for it
        // is refused (cgroup_bpf_link_attach, kernel/bpf/cgroup.c).
        let mode = CgroupAttachMode::Single;
        trace(&mut self.programs, "process_forked", "sched_process_fork", btf)?;
        for (name, tracepoint) in
            [("socket_sent", "sock_send_length"), ("socket_received", "sock_recv_length")]
        {
            // Since Linux 6.3. Without them a shared socket stays with whoever sent on it last.
            if let Err(error) = trace(&mut self.programs, name, tracepoint, btf) {
                log::info!("who receives on a shared socket is not seen: {error:#}");
            }
        }
        for name in ["socket_created", "socket_released"] {
            let socket: &mut CgroupSock = program(&mut self.programs, name)?;
            socket.load().with_context(|| format!("loading {name}"))?;
            socket.attach(cgroup, mode).with_context(|| format!("attaching {name}"))?;
        }

        for (name, hook) in
            [("packet_leaves", CgroupSkbAttachType::Egress), ("packet_arrives", CgroupSkbAttachType::Ingress)]
        {
            let skb: &mut CgroupSkb = program(&mut self.programs, name)?;
            skb.load().with_context(|| format!("loading {name}"))?;
            skb.attach(cgroup, hook, mode).with_context(|| format!("attaching {name}"))?;
        }
        Ok(())
    }

    /// The cgroup that the programs are attached to.
    #[must_use]
    pub const fn cgroup(&self) -> &CgroupRoot {
        &self.cgroup
    }

    /// The limits in force.
    #[must_use]
    pub const fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Runs `work` with the limits, which need the rest of the engine to take effect.
    pub fn with_targets<T>(&mut self, work: impl FnOnce(&mut Targets, &mut Self) -> T) -> T {
        let mut targets = std::mem::take(&mut self.targets);
        let result = work(&mut targets, self);
        self.targets = targets;
        result
    }

    /// Gives every socket that has no owner yet, of every process, the process that has it open.
    pub fn adopt_everything(&mut self) {
        let mut tables = Tables { owners: &mut self.owners, processes: &mut self.processes };
        tagger::adopt_everything(&mut tables, &self.cgroup);
    }

    /// Makes a process the owner of every socket that it has open.
    ///
    /// # Errors
    /// When it has ended, or does not let us.
    pub fn adopt(&mut self, process: ProcessId) -> std::io::Result<()> {
        let mut tables = Tables { owners: &mut self.owners, processes: &mut self.processes };
        tagger::adopt(&mut tables, process.pid, Existing::Replaced)
    }

    /// Counters of every process, added up over the CPUs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn traffic(&self) -> Result<StdHashMap<ProcessKey, TrafficCounters>, MapError> {
        self.traffic
            .iter()
            .map(|entry| {
                let (key, per_cpu) = entry?;
                Ok((key, sum_traffic(per_cpu.iter())))
            })
            .collect()
    }

    /// Bytes of packets whose socket has no owner.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unowned(&self) -> Result<Traffic, MapError> {
        let sum = sum_traffic(self.unowned.get(&0, 0)?.iter());
        Ok(Traffic { upload: sum.upload_bytes, download: sum.download_bytes })
    }

    /// Events that the programs could not record.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lost(&self) -> Result<u64, MapError> {
        Ok(self.lost.get(&0, 0)?.iter().sum())
    }

    /// What the kernel noted of a process when it opened its first socket.
    #[must_use]
    pub fn record(&self, process: &ProcessKey) -> Option<ProcessRecord> {
        self.processes.get(process, 0).ok()
    }

    /// Forgets a process that has ended and whose counters have been read.
    pub fn forget(&mut self, process: &ProcessKey) {
        // What is not there need not be removed; there is no other error that matters here.
        let _ = self.traffic.remove(process);
        let _ = self.processes.remove(process);
    }

    /// Tells the packet path whether to look for limits at all.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn announce_limits(&mut self, count: usize) -> Result<(), MapError> {
        self.control_flags.limits = u32::try_from(count).unwrap_or(u32::MAX);
        self.control.set(0, self.control_flags, 0)
    }
}

fn sum_traffic<'a>(per_cpu: impl Iterator<Item = &'a TrafficCounters>) -> TrafficCounters {
    per_cpu.fold(TrafficCounters::default(), |sum, cpu| TrafficCounters {
        upload_bytes: sum.upload_bytes + cpu.upload_bytes,
        upload_packets: sum.upload_packets + cpu.upload_packets,
        download_bytes: sum.download_bytes + cpu.download_bytes,
        download_packets: sum.download_packets + cpu.download_packets,
    })
}

/// Takes a map out of the loaded object, by its type.
fn take<M>(programs: &mut Ebpf, name: &'static str) -> anyhow::Result<M>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = programs.take_map(name).ok_or_else(|| anyhow!("the object has no map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name}"))
}

fn program<'a, P>(programs: &'a mut Ebpf, name: &'static str) -> anyhow::Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = programs.program_mut(name).ok_or_else(|| anyhow!("the object has no program {name}"))?;
    program.try_into().with_context(|| format!("program {name}"))
}

/// Loads and attaches a program to a tracepoint.
fn trace(programs: &mut Ebpf, name: &'static str, tracepoint: &str, btf: &Btf) -> anyhow::Result<()> {
    let program: &mut BtfTracePoint = program(programs, name)?;
    program.load(tracepoint, btf).with_context(|| format!("loading {name}"))?;
    program.attach().with_context(|| format!("attaching {name}"))?;
    Ok(())
}
