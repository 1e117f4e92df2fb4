//! Every map.
//!
//! Names of maps are truncated to 15 characters by the kernel; they all start with `CHAD_`, so that somebody who
//! lists maps on a machine sees whose they are.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, Stack},
    macros::btf_map,
};
use chadthrottle_common::{
    CgroupPath, ControlFlags, FileId, FlowCounters, Interface, LimitSettings, LimitState, Membership,
    ProcessKey, ProcessRecord, ProgramPath, ProgramPlace, SocketOwner, TARGETS, TrafficCounters, TrafficKey,
    Waiting, traffic::SLOTS,
};

use crate::fragments::{Decided, FragmentKey};

/// Entries are allocated when they are needed: the tables are as large as a busy host may want, and empty on
/// most.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// Userspace may map it into its memory.
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// A socket cloned by `accept` takes its listener's storage along (`BPF_F_CLONE`, include/uapi/linux/bpf.h).
const CLONE: usize = 1 << 9;

/// Socket-local storage with flags that aya's `SkStorage` does not offer. The layout is the one of aya's own BTF
/// maps: placeholder pointers whose types say what to create.
#[repr(C)]
pub(crate) struct SocketStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; ON_DEMAND | CLONE],
}

// SAFETY: the pointers are placeholders that describe the map to the loader; nothing follows them.
unsafe impl<T> Sync for SocketStorage<T> {}

impl<T> SocketStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    /// What the helpers take: the loader replaces this address by the map's.
    #[inline(always)]
    pub(crate) const fn as_ptr(&self) -> *mut core::ffi::c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// The owner of each socket.
#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "CHAD_OWNERS")]
pub(crate) static OWNERS: SocketStorage<SocketOwner> = SocketStorage::new();

/// What is known of each process that opened a socket.
#[btf_map(name = "CHAD_PROCESSES")]
pub(crate) static PROCESSES: HashMap<ProcessKey, ProcessRecord, 32768, ON_DEMAND> = HashMap::new();

/// What processes with sockets execute, for those that have ended before anybody could ask.
#[btf_map(name = "CHAD_EXECUTED")]
pub(crate) static EXECUTED: HashMap<ProcessKey, ProgramPath, 32768, ON_DEMAND> = HashMap::new();

/// What all processes execute, until they open a socket. Those that are not asked for make room for new ones.
#[btf_map(name = "CHAD_PROGRAMS")]
pub(crate) static PROGRAMS: LruHashMap<ProcessKey, ProgramPath, 4096> = LruHashMap::new();

/// Room for a path, too large for a program's stack.
#[btf_map(name = "CHAD_PATH")]
pub(crate) static PATH: PerCpuArray<ProgramPath, 1> = PerCpuArray::new();

/// What was sent and received: slot by slot a counter a CPU, so that no packet waits for another CPU's. Userspace has it
/// mapped into its memory, and sets its size.
#[btf_map(name = "CHAD_COUNTERS")]
pub(crate) static COUNTERS: Array<TrafficCounters, { SLOTS as usize }, MMAPABLE> = Array::new();

/// Which slot is whose.
#[btf_map(name = "CHAD_SLOTS")]
pub(crate) static SLOT_OF: HashMap<TrafficKey, u32, { SLOTS as usize }, ON_DEMAND> = HashMap::new();

/// Slots that are nobody's.
#[btf_map(name = "CHAD_FREE_SLOTS")]
pub(crate) static FREE_SLOTS: Stack<u32, { SLOTS as usize }> = Stack::new();

/// The same as `CHAD_COUNTERS` for when there is no slot left.
#[btf_map(name = "CHAD_TRAFFIC")]
pub(crate) static TRAFFIC: PerCpuHashMap<TrafficKey, TrafficCounters, 16384, ON_DEMAND> =
    PerCpuHashMap::new();

/// What a new entry of `CHAD_TRAFFIC` starts with: as a constant, so that no packet has to clear memory for it.
pub(crate) static NO_TRAFFIC: TrafficCounters = TrafficCounters { upload: NO_FLOW, download: NO_FLOW };
const NO_FLOW: FlowCounters = FlowCounters { bytes: 0, packets: 0, merged_packets: 0, merged_bytes: 0 };

/// Interfaces of the monitor's network namespace, by index.
#[btf_map(name = "CHAD_INTERFACES")]
pub(crate) static INTERFACES: HashMap<u32, Interface, 4096, ON_DEMAND> = HashMap::new();

/// Prefixes that count as local beside those that always do; IPv4 ones as IPv4-mapped. In network byte order.
#[btf_map(name = "CHAD_PREFIXES")]
pub(crate) static LOCAL_PREFIXES: LpmTrie<[u32; 4], u32, 1024> = LpmTrie::new();

/// Events that could not be recorded, because a table was full or memory short.
#[btf_map(name = "CHAD_LOST")]
pub(crate) static LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Which processes belong to which limited target.
#[btf_map(name = "CHAD_MEMBERS")]
pub(crate) static MEMBERS: HashMap<ProcessKey, Membership, 65536, ON_DEMAND> = HashMap::new();

/// Limits on whoever executes a file, is in a cgroup (by its id), or is a user (in the initial user namespace): the number
/// of the target.
#[btf_map(name = "CHAD_LIM_PROG")]
pub(crate) static LIMITED_PROGRAMS: HashMap<FileId, u32, { TARGETS as usize }, ON_DEMAND> = HashMap::new();
#[btf_map(name = "CHAD_LIM_CGROUP")]
pub(crate) static LIMITED_CGROUPS: HashMap<u64, u32, { TARGETS as usize }, ON_DEMAND> = HashMap::new();
#[btf_map(name = "CHAD_LIM_USER")]
pub(crate) static LIMITED_USERS: HashMap<u32, u32, { TARGETS as usize }, ON_DEMAND> = HashMap::new();

/// The same programs and cgroups by name, for those that are replaced by others of the same name.
#[btf_map(name = "CHAD_LIM_PLACE")]
pub(crate) static LIMITED_PLACES: HashMap<ProgramPlace, u32, { TARGETS as usize }, ON_DEMAND> =
    HashMap::new();
#[btf_map(name = "CHAD_LIM_PATH")]
pub(crate) static LIMITED_PATHS: HashMap<CgroupPath, u32, { TARGETS as usize }, ON_DEMAND> = HashMap::new();

/// Room for such names, too large for a program's stack.
#[btf_map(name = "CHAD_PLACE")]
pub(crate) static PLACE: PerCpuArray<ProgramPlace, 1> = PerCpuArray::new();
#[btf_map(name = "CHAD_CG_PATH")]
pub(crate) static CGROUP_PATH: PerCpuArray<CgroupPath, 1> = PerCpuArray::new();

/// What that room begins with.
pub(crate) static NO_PLACE: ProgramPlace = ProgramPlace::NONE;
pub(crate) static NO_CGROUP_PATH: CgroupPath = CgroupPath::NONE;

/// Changes of memberships, so that sockets find their target again. An entry of its own, because programs and userspace
/// both count it up. Userspace begins with 1.
#[btf_map(name = "CHAD_CHANGES")]
pub(crate) static CHANGES: Array<u64, 1> = Array::new();

/// The limits, at `limit_index`, as userspace sets them; and how far each has been used, which userspace has mapped into
/// its memory.
#[btf_map(name = "CHAD_LIMITS")]
pub(crate) static LIMITS: Array<LimitSettings, { 2 * TARGETS as usize }> = Array::new();
#[btf_map(name = "CHAD_CLOCKS")]
pub(crate) static CLOCKS: Array<LimitState, { 2 * TARGETS as usize }, MMAPABLE> = Array::new();

/// What waits of a target, once something has had to; and what that begins with.
#[btf_map(name = "CHAD_WAITING")]
pub(crate) static WAITING: HashMap<u32, Waiting, { TARGETS as usize }, ON_DEMAND> = HashMap::new();
pub(crate) static NOTHING_WAITS: Waiting = Waiting::NONE;

/// What was decided of datagrams that arrive in fragments, by their first ones.
#[btf_map(name = "CHAD_FRAGMENTS")]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, Decided, 1024> = LruHashMap::new();

/// Switches.
#[btf_map(name = "CHAD_CONTROL")]
pub(crate) static CONTROL: Array<ControlFlags, 1> = Array::new();

/// The switches as they stand, each read when it is needed.
#[derive(Clone, Copy)]
pub(crate) struct Control(&'static ControlFlags);

impl Control {
    /// The map's only entry, which is always there.
    #[inline(always)]
    pub(crate) fn get() -> Option<Self> {
        CONTROL.get(0).map(Self)
    }

    #[inline(always)]
    pub(crate) fn includes_loopback(self) -> bool {
        self.0.include_loopback != 0
    }

    #[inline(always)]
    pub(crate) fn has_limits(self) -> bool {
        self.0.limits != 0
    }

    #[inline(always)]
    pub(crate) fn has_limited_programs(self) -> bool {
        self.0.limited_programs != 0
    }

    #[inline(always)]
    pub(crate) fn has_limited_cgroups(self) -> bool {
        self.0.limited_cgroups != 0
    }

    #[inline(always)]
    pub(crate) fn has_limited_users(self) -> bool {
        self.0.limited_users != 0
    }

    #[inline(always)]
    pub(crate) fn has_chosen_interfaces(self) -> bool {
        self.0.only_chosen_interfaces != 0
    }

    #[inline(always)]
    pub(crate) fn has_local_prefixes(self) -> bool {
        self.0.local_prefixes != 0
    }

    #[inline(always)]
    pub(crate) fn scope_generation(self) -> u32 {
        self.0.scope_generation
    }

    #[inline(always)]
    pub(crate) fn slot_generation(self) -> u32 {
        self.0.slot_generation
    }

    #[inline(always)]
    pub(crate) fn cpus(self) -> u32 {
        self.0.cpus
    }
}

/// Whether an interface is among those that were chosen.
#[inline(always)]
pub(crate) fn is_chosen(ifindex: u32) -> bool {
    // SAFETY: read at once.
    unsafe { INTERFACES.get(ifindex) }.is_some_and(|interface| interface.is_chosen != 0)
}

/// Counts an event that could not be recorded.
#[inline(always)]
pub(crate) fn count_lost() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: this CPU's own copy, valid for the program's run.
        unsafe { *lost += 1 };
    }
}
