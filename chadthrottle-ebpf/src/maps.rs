//! Every map, and every constant that userspace sets before the programs are loaded.
//!
//! Names of maps are truncated to 15 characters by the kernel; they all start with `CHAD_`, so that somebody who
//! lists maps on a machine sees whose they are.

use core::ptr;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE},
    btf_maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
    macros::btf_map,
};
use chadthrottle_common::{
    ControlFlags, LimitKey, LimitState, Membership, ProcessKey, ProcessRecord, SocketOwner, ThrottleStats,
    TrafficCounters,
};

/// Entries are allocated when they are needed: the tables are as large as a busy host may want, and empty on
/// most.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

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

/// What each process sent and received. A copy a CPU, so that no packet waits for another CPU's.
#[btf_map(name = "CHAD_TRAFFIC")]
pub(crate) static TRAFFIC: PerCpuHashMap<ProcessKey, TrafficCounters, 32768, ON_DEMAND> =
    PerCpuHashMap::new();

/// What belongs to no process.
#[btf_map(name = "CHAD_UNOWNED")]
pub(crate) static UNOWNED: PerCpuArray<TrafficCounters, 1> = PerCpuArray::new();

/// Events that could not be recorded, because a table was full or memory short.
#[btf_map(name = "CHAD_LOST")]
pub(crate) static LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Which processes belong to which limited target.
#[btf_map(name = "CHAD_MEMBERS")]
pub(crate) static MEMBERS: HashMap<ProcessKey, Membership, 65536, ON_DEMAND> = HashMap::new();

/// The limits.
#[btf_map(name = "CHAD_LIMITS")]
pub(crate) static LIMITS: HashMap<LimitKey, LimitState, 8192, ON_DEMAND> = HashMap::new();

/// What the limits did.
#[btf_map(name = "CHAD_STATS")]
pub(crate) static STATS: PerCpuHashMap<LimitKey, ThrottleStats, 8192, ON_DEMAND> = PerCpuHashMap::new();

/// Switches.
#[btf_map(name = "CHAD_CONTROL")]
pub(crate) static CONTROL: Array<ControlFlags, 1> = Array::new();

/// Offset of `group_leader` in `struct task_struct`, in bytes: set from the running kernel's BTF, because no
/// relocations come from Rust.
#[unsafe(no_mangle)]
static TASK_GROUP_LEADER: Global<u32> = Global::new(0);
/// Offset of `tgid` in `struct task_struct`, in bytes.
#[unsafe(no_mangle)]
static TASK_TGID: Global<u32> = Global::new(0);
/// Offset of `start_boottime` in `struct task_struct`, in bytes.
#[unsafe(no_mangle)]
static TASK_START_BOOTTIME: Global<u32> = Global::new(0);

/// Offset of `flags` in `struct task_struct`, in bytes.
#[unsafe(no_mangle)]
static TASK_FLAGS: Global<u32> = Global::new(0);
/// Offset of `sk_lock.owned` in `struct sock`, in bytes.
#[unsafe(no_mangle)]
static SOCK_LOCK_OWNED: Global<u32> = Global::new(0);

/// Offset of `sk_lock.owned` in `struct sock`.
#[inline(always)]
pub(crate) fn sock_lock_owned() -> usize {
    SOCK_LOCK_OWNED.load() as usize
}

/// Offsets into `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct TaskOffsets {
    pub(crate) group_leader: u64,
    pub(crate) tgid: u64,
    pub(crate) start_boottime: u64,
    pub(crate) flags: u64,
}

impl TaskOffsets {
    /// Reads what the loader wrote.
    #[inline(always)]
    pub(crate) fn load() -> Self {
        Self {
            group_leader: TASK_GROUP_LEADER.load().into(),
            tgid: TASK_TGID.load().into(),
            start_boottime: TASK_START_BOOTTIME.load().into(),
            flags: TASK_FLAGS.load().into(),
        }
    }
}

/// The switches as they stand.
#[inline(always)]
pub(crate) fn control() -> ControlFlags {
    CONTROL.get(0).copied().unwrap_or_default()
}

/// Counts an event that could not be recorded.
#[inline(always)]
pub(crate) fn count_lost() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: this CPU's own copy, valid for the program's run.
        unsafe { *lost += 1 };
    }
}
