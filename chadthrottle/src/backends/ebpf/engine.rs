//! The programs in the kernel, and the maps that userspace reads and writes.

use anyhow::{Context, anyhow};
use aya::{
    Btf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel,
    maps::{Array, MapData, MapError, SkStorage},
    programs::{BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, SockOps},
};
use chadthrottle_common::{ControlFlags, SocketOwner};
use log::LevelFilter;

use super::{
    accounts::Accounts,
    limits,
    messages::Messages,
    meter::Meter,
    network::Network,
    object::{program, take},
    places::Place,
    tagger::{self, Existing, Tables},
    targets::Targets,
};
use crate::{
    backends::BackendOptions,
    process::ProcessId,
    sys::{btf::KernelTypes, cgroup::CgroupRoot, memory, namespace},
};

/// The programs, built from chadthrottle-ebpf by `cargo xtask ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CHADTHROTTLE_EBPF_OBJECT"));

/// `EI_DATA` of an ELF file (elf(5)): 1 where the least significant byte of a number comes first, 2 where it comes last.
const BYTE_ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
const _: () =
    assert!(OBJECT[5] == BYTE_ORDER, "CHADTHROTTLE_EBPF_OBJECT is for machines of the other byte order");

/// The programs that see packets.
pub(super) const LEAVES: &str = "packet_leaves";
pub(super) const ARRIVES: &str = "packet_arrives";

/// Loaded programs. Nothing is pinned: links, programs and maps go when this value does, or the process, whatever
/// ends it.
pub struct Engine {
    cgroup: CgroupRoot,
    owners: SkStorage<MapData, SocketOwner>,
    accounts: Accounts,
    network: Network,
    pub(super) limits: limits::Tables,
    control: Array<MapData, ControlFlags>,
    pub(super) control_flags: ControlFlags,
    targets: Targets,
    #[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
    pub(super) entrance: super::entrance::Entrance,
    /// Whether sockets from before the programs have owners.
    has_adopted_everything: bool,
    _messages: Option<Messages>,
    /// While somebody wants to know what packets cost.
    pub(super) meter: Option<Meter>,
    /// Last, because the programs go with it.
    pub(super) programs: Ebpf,
}

/// `Single` although several may be attached: with links that is the kernel's default, and the flag for it is refused
/// (`cgroup_bpf_link_attach`, kernel/bpf/cgroup.c).
const ATTACH: CgroupAttachMode = CgroupAttachMode::Single;

impl Engine {
    /// Loads the programs, and attaches those that know owners: sockets that are made from here on have one.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn load(options: &BackendOptions) -> anyhow::Result<Self> {
        let cgroup = CgroupRoot::open(options.cgroup_root.as_deref())?;
        let types = KernelTypes::running()?;
        let offsets = constants(&types)?;
        let cookie =
            if types.offset("net", "net_cookie").is_ok() { namespace::own_netns_cookie() } else { Ok(0) };
        let cookie = cookie.unwrap_or_else(|error| {
            log::info!("network namespaces are not told apart: {error}");
            0
        });
        // The kernel hands it out page by page, which takes longer than all the rest: it is read once.
        let btf = Btf::parse(types.bytes(), Endianness::default()).context("cannot read the kernel's BTF")?;
        drop(types);
        // The programs' own messages cost time in the packet path; the verifier removes them where they are off.
        let log_level = options.kernel_messages as u8;
        let has_messages = options.kernel_messages != LevelFilter::Off;

        let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow!("{what}: {error}"))?;
        let mut loader = EbpfLoader::new();
        // What the kernel refuses is loaded again for its words. Those on each instruction take it a minute, and the last
        // one is what it is about.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        loader.map_max_entries("CHAD_COUNTERS", Accounts::counters(cpus)?);
        loader.btf(Some(&btf));
        loader.override_global(aya_log::LEVEL, &log_level, true);
        loader.override_global("OWN_NETNS_COOKIE", &cookie, true);
        let own_tgid = std::process::id();
        loader.override_global("OWN_TGID", &own_tgid, true);
        for (name, offset) in &offsets {
            loader.override_global(name, offset, true);
        }
        let mut programs = loader.load(OBJECT).context("the kernel refused the programs")?;
        let messages = if has_messages { Some(Messages::pass_on(&mut programs)?) } else { None };

        let mut control: Array<_, ControlFlags> = take(&mut programs, "CHAD_CONTROL")?;
        let control_flags = ControlFlags {
            include_loopback: u32::from(options.include_loopback),
            only_chosen_interfaces: u32::from(!options.interfaces.is_empty()),
            cpus: u32::try_from(cpus)?,
            ..ControlFlags::default()
        };
        control.set(0, control_flags, 0)?;
        let mut engine = Self {
            owners: take(&mut programs, "CHAD_OWNERS")?,
            accounts: Accounts::take(&mut programs, cpus)?,
            network: Network::open(&mut programs, options)?,
            limits: limits::Tables::take(&mut programs, cgroup.id)?,
            control,
            control_flags,
            targets: Targets::default(),
            #[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
            entrance: super::entrance::Entrance::default(),
            has_adopted_everything: false,
            _messages: messages,
            meter: None,
            cgroup,
            programs,
        };
        // Before the first packet is looked at: which interfaces count has to be known by then.
        engine.refresh_network()?;
        engine.attach_owners(&btf)?;
        drop(btf);
        memory::give_back();
        Ok(engine)
    }

    /// Attaches the programs that know owners, by links.
    fn attach_owners(&mut self, btf: &Btf) -> anyhow::Result<()> {
        trace(&mut self.programs, "process_forked", "sched_process_fork", btf)?;
        for (name, tracepoint) in
            [("socket_sent", "sock_send_length"), ("socket_received", "sock_recv_length")]
        {
            // Since Linux 6.3. Without them a shared socket stays with whoever sent on it last.
            if let Err(error) = trace(&mut self.programs, name, tracepoint, btf) {
                log::info!("who receives on a shared socket is not seen: {error:#}");
            }
        }
        for (name, tracepoint) in [
            ("process_executed", "sched_process_exec"),
            ("process_renamed", "task_rename"),
            ("process_ended", "sched_process_exit"),
            ("cgroup_made", "cgroup_mkdir"),
        ] {
            trace(&mut self.programs, name, tracepoint, btf)?;
        }
        for name in ["socket_created", "socket_released"] {
            let socket: &mut CgroupSock = program(&mut self.programs, name)?;
            socket.load().with_context(|| format!("loading {name}"))?;
            socket.attach(&self.cgroup.dir, ATTACH).with_context(|| format!("attaching {name}"))?;
        }
        let name = "connection_opens";
        let opens: &mut SockOps = program(&mut self.programs, name)?;
        opens.load().with_context(|| format!("loading {name}"))?;
        opens.attach(&self.cgroup.dir, ATTACH).with_context(|| format!("attaching {name}"))?;
        Ok(())
    }

    /// Attaches the programs that see packets; from here on everything is counted. Sockets should have owners by then.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub(super) fn attach_packets(&mut self) -> anyhow::Result<()> {
        let hooks = [(LEAVES, CgroupSkbAttachType::Egress), (ARRIVES, CgroupSkbAttachType::Ingress)];
        // The kernel takes a tenth of a second to verify each: first both, so that both begin to count at once, and at
        // the instant at which the interfaces are read.
        for (name, _) in hooks {
            let skb: &mut CgroupSkb = program(&mut self.programs, name)?;
            skb.load().with_context(|| format!("loading {name}"))?;
        }
        for (name, hook) in hooks {
            let skb: &mut CgroupSkb = program(&mut self.programs, name)?;
            skb.attach(&self.cgroup.dir, hook, ATTACH).with_context(|| format!("attaching {name}"))?;
        }
        self.network.start()
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
        let mut tables = Tables { owners: &mut self.owners, accounts: &mut self.accounts };
        tagger::adopt_everything(&mut tables, &self.cgroup);
        self.has_adopted_everything = true;
    }

    /// The same, if nobody has done so yet: sockets that were made since have had owners from the first.
    pub(super) fn adopt_the_rest(&mut self) {
        if !self.has_adopted_everything {
            self.adopt_everything();
        }
    }

    /// Makes a process the owner of every socket that it has open.
    ///
    /// # Errors
    /// When it has ended, or does not let us.
    pub fn adopt(&mut self, process: ProcessId) -> std::io::Result<()> {
        let mut tables = Tables { owners: &mut self.owners, accounts: &mut self.accounts };
        tagger::adopt(&mut tables, process.pid, Existing::Replaced)
    }

    /// What has been counted.
    #[must_use]
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// What has been counted, to forget some of it.
    pub const fn accounts_mut(&mut self) -> &mut Accounts {
        &mut self.accounts
    }

    /// Has the slots of forgotten keys used again. To be called once an update: between two calls every socket has been
    /// told that its slot may be another's, and whatever ran before that has ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reuse_slots(&mut self) -> Result<(), MapError> {
        if self.accounts.reuse_slots() {
            self.control_flags.slot_generation = self.control_flags.slot_generation.wrapping_add(1);
            self.control.set(0, self.control_flags, 0)?;
        }
        Ok(())
    }

    /// The interfaces, as they were when they were last read.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Reads the interfaces, their counters and addresses, and tells the programs what has changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn refresh_network(&mut self) -> anyhow::Result<()> {
        if let Some(prefixes) = self.network.refresh(&mut self.programs)? {
            self.control_flags.local_prefixes = prefixes;
            self.control_flags.scope_generation = (self.control_flags.scope_generation + 1) % (1 << 30);
            self.control.set(0, self.control_flags, 0)?;
        }
        Ok(())
    }

    /// Tells the programs which limits to look for, if any: those that have these places.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn announce_limits<'a>(
        &mut self,
        places: impl Iterator<Item = &'a Place>,
    ) -> Result<(), MapError> {
        let flags = &mut self.control_flags;
        let mut programs = 0;
        (flags.limits, flags.limited_cgroups, flags.limited_users) = (0, 0, 0);
        for place in places {
            flags.limits += 1;
            match place {
                Place::Members => {}
                Place::Program(..) => programs += 1,
                Place::Cgroup(..) => flags.limited_cgroups += 1,
                Place::User(_) => flags.limited_users += 1,
            }
        }
        flags.limited_programs = programs;
        self.control.set(0, self.control_flags, 0)
    }
}

/// What the programs are told of the running kernel's structures.
fn constants(types: &KernelTypes) -> anyhow::Result<Vec<(&'static str, u32)>> {
    let members = [
        ("TASK_GROUP_LEADER", "task_struct", "group_leader"),
        ("TASK_TGID", "task_struct", "tgid"),
        ("TASK_START_BOOTTIME", "task_struct", "start_boottime"),
        ("TASK_FLAGS", "task_struct", "flags"),
        ("TASK_SIGNAL", "task_struct", "signal"),
        ("SIGNAL_LIVE", "signal_struct", "live"),
        ("TASK_COMM", "task_struct", "comm"),
        ("TASK_CRED", "task_struct", "cred"),
        ("CRED_UID", "cred", "uid"),
        ("TASK_CGROUPS", "task_struct", "cgroups"),
        ("CSS_SET_CGROUP", "css_set", "dfl_cgrp"),
        ("BINPRM_INTERP", "linux_binprm", "interp"),
        ("BINPRM_FILE", "linux_binprm", "file"),
        ("FILE_DENTRY", "file", "f_path.dentry"),
        ("DENTRY_PARENT", "dentry", "d_parent"),
        ("DENTRY_INODE", "dentry", "d_inode"),
        ("DENTRY_NAME", "dentry", "d_name.name"),
        ("FILE_INODE", "file", "f_inode"),
        ("INODE_NUMBER", "inode", "i_ino"),
        ("INODE_GENERATION", "inode", "i_generation"),
        ("INODE_SUPERBLOCK", "inode", "i_sb"),
        ("SUPERBLOCK_DEVICE", "super_block", "s_dev"),
        ("CGROUP_ROOT", "cgroup", "root"),
        ("CGROUP_NODE", "cgroup", "kn"),
        ("HIERARCHY_ID", "cgroup_root", "hierarchy_id"),
        ("NODE_ID", "kernfs_node", "id"),
        ("SKB_SK", "sk_buff", "sk"),
        ("SOCK_UID", "sock", "sk_uid"),
        ("SOCK_LOCK_OWNED", "sock", "sk_lock.owned"),
        ("SOCK_NET", "sock", "__sk_common.skc_net"),
        ("TCP_WRITE_SEQ", "tcp_sock", "write_seq"),
    ];
    let mut constants = Vec::new();
    for (name, structure, path) in members {
        constants.push((name, types.offset(structure, path)?));
    }
    let is_kernels = types.bit_offset("sock", "sk_kern_sock")?;
    // Bits of a byte are numbered from the other end where the most significant byte comes first.
    let bit = if cfg!(target_endian = "little") { is_kernels % 8 } else { 7 - is_kernels % 8 };
    constants.extend([("SOCK_KERN_SOCK", is_kernels / 8), ("SOCK_KERN_SOCK_BIT", bit)]);
    constants.extend(types.offset("net", "net_cookie").ok().map(|offset| ("NET_COOKIE", offset)));
    Ok(constants)
}

/// Loads and attaches a program to a tracepoint.
fn trace(programs: &mut Ebpf, name: &'static str, tracepoint: &str, btf: &Btf) -> anyhow::Result<()> {
    let program: &mut BtfTracePoint = program(programs, name)?;
    program.load(tracepoint, btf).with_context(|| format!("loading {name}"))?;
    program.attach().with_context(|| format!("attaching {name}"))?;
    Ok(())
}
