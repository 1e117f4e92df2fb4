//! Whose socket is it?
//!
//! The owner stands in the socket's own storage. It is whoever made the socket, until somebody else uses it: by
//! sending, by receiving, or by a packet that leaves while that process is inside a system call on the socket. A packet
//! hook must never simply ask for the current process: a packet may leave from an interrupt, in whoever's time slice
//! that falls.
//!
//! An accepted socket begins with its listener's owner, which may not be the one who will use it: servers fork workers
//! that all accept from one listener. Until the first use its bytes are held back in its storage.

use core::{
    intrinsics::{AtomicOrdering, atomic_xchg},
    ptr,
};

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_kernel,
        generated::{bpf_get_current_task, bpf_sk_storage_get},
    },
    programs::{BtfTracePointContext, SockContext},
};
use aya_log_ebpf::{debug, warn};
use chadthrottle_common::{
    MEMBER_INHERITED_BY_CHILDREN, NS_PER_TICK, ProcessKey, ProcessRecord, SocketOwner, TrafficCounters,
};

use crate::{
    account,
    maps::{MEMBERS, OWNERS, PROCESSES, TaskOffsets, count_lost},
};

/// A task that belongs to the kernel (`PF_KTHREAD`, include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;

/// Writes the current process into a socket that has just been made.
#[inline(always)]
pub(crate) fn tag_new_socket(ctx: &SockContext) {
    let Some(process) = current_process() else {
        count_lost();
        return;
    };
    let mut owner = SocketOwner { process, ..SocketOwner::default() };
    // SAFETY: the hook's own socket, and a value as large as the map's.
    let stored = unsafe {
        bpf_sk_storage_get(
            OWNERS.as_ptr(),
            ctx.sock.cast(),
            ptr::from_mut(&mut owner).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    if stored.is_null() {
        warn!(ctx, "no memory to tag a socket of {}", process.tgid());
        count_lost();
        return;
    }
    debug!(ctx, "socket made by {}", process.tgid());
    note(process);
}

/// Notes what is known of the current process, for when it has ended.
#[inline(always)]
fn note(process: ProcessKey) {
    // SAFETY: looked up for existence alone.
    if unsafe { PROCESSES.get(process) }.is_some() {
        return;
    }
    let record = ProcessRecord {
        comm: bpf_get_current_comm().unwrap_or_default(),
        uid: lower_half(bpf_get_current_uid_gid()),
        _padding: 0,
    };
    // A race with another thread of the process writes the same, so only a full table counts.
    if PROCESSES.insert(process, record, u64::from(BPF_ANY)).is_err() {
        count_lost();
    }
}

/// The storage of a socket that has an owner.
///
/// # Safety
/// `sk` is a socket of a kind that the verifier takes for one in this program.
#[inline(always)]
pub(crate) unsafe fn of_socket(sk: *mut core::ffi::c_void) -> Option<*mut SocketOwner> {
    // SAFETY: as promised by the caller; without the create flag nothing is read from the value pointer.
    let owner: *mut SocketOwner =
        unsafe { bpf_sk_storage_get(OWNERS.as_ptr(), sk, ptr::null_mut(), 0) }.cast();
    if owner.is_null() { None } else { Some(owner) }
}

/// The current process uses the socket: from here on it is its own, with everything that was held back.
///
/// # Safety
/// `socket` points to a live socket's storage, and this is called from the process's own context.
#[inline(always)]
pub(crate) unsafe fn claim(ctx: &impl EbpfContext, socket: *mut SocketOwner) {
    let tgid = upper_half(bpf_get_current_pid_tgid());
    // SAFETY: as promised by the caller. Other CPUs write single words.
    unsafe {
        let owner = ptr::read_volatile(&raw const (*socket).process);
        let is_presumed = ptr::read_volatile(&raw const (*socket).is_presumed) != 0;
        if owner.tgid() == tgid && !is_presumed {
            return;
        }
        if owner.tgid() != tgid {
            // Kernel threads send for others, when sockets are joined by BPF for instance.
            let Some(process) = current_process().filter(|_| !is_kernel_thread()) else { return };
            ptr::write_volatile(&raw mut (*socket).process, process);
            note(process);
            debug!(ctx, "socket of {} used by {}", owner.tgid(), tgid);
        }
        ptr::write_volatile(&raw mut (*socket).is_presumed, 0);
        if is_presumed {
            release_held(socket);
        }
    }
}

/// Counts what was held back for whoever owns the socket now.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
pub(crate) unsafe fn release_held(socket: *mut SocketOwner) {
    // SAFETY: as promised by the caller. Each number is taken by one CPU, whoever else looks at the same time.
    unsafe {
        let held = &raw mut (*socket).held;
        let taken = TrafficCounters {
            upload_bytes: take(&raw mut (*held).upload_bytes),
            upload_packets: take(&raw mut (*held).upload_packets),
            download_bytes: take(&raw mut (*held).download_bytes),
            download_packets: take(&raw mut (*held).download_packets),
        };
        if taken.upload_packets != 0 || taken.download_packets != 0 {
            account::add((*socket).process, &taken);
        }
    }
}

/// # Safety
/// `number` points to a live map value.
#[inline(always)]
unsafe fn take(number: *mut u64) -> u64 {
    // SAFETY: as promised by the caller.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(number, 0) }
}

/// Makes the child a member where its parent is one and children inherit it.
#[inline(always)]
pub(crate) fn inherit_membership(ctx: &BtfTracePointContext) {
    let (parent, child): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let (Some(parent), Some(child)) = (identify(parent), identify(child)) else {
        count_lost();
        return;
    };
    // A new thread: the process is a member already.
    if parent == child {
        return;
    }
    // SAFETY: copied out at once.
    let Some(membership) = (unsafe { MEMBERS.get(parent) }).copied() else { return };
    if membership.flags & MEMBER_INHERITED_BY_CHILDREN == 0 {
        return;
    }
    debug!(ctx, "{} is limited with its parent {}", child.tgid(), parent.tgid());
    if MEMBERS.insert(child, membership, u64::from(BPF_NOEXIST)).is_err() {
        count_lost();
    }
}

/// The current process.
#[inline(always)]
fn current_process() -> Option<ProcessKey> {
    // SAFETY: the helper returns the current task, valid for the program's run.
    identify(unsafe { bpf_get_current_task() })
}

/// Whether the current task is the kernel's own.
#[inline(always)]
fn is_kernel_thread() -> bool {
    // SAFETY: the helpers check the address.
    let flags = unsafe {
        let task = bpf_get_current_task();
        bpf_probe_read_kernel((task + TaskOffsets::load().flags) as *const u32)
    };
    flags.map_or(true, |flags| flags & PF_KTHREAD != 0)
}

/// Who the task at `task` belongs to: the thread group, and when its leader started.
#[inline(always)]
fn identify(task: u64) -> Option<ProcessKey> {
    let offsets = TaskOffsets::load();
    // SAFETY: the helper checks the address; a wrong one is an error, not a fault.
    unsafe {
        let leader: u64 = bpf_probe_read_kernel((task + offsets.group_leader) as *const u64).ok()?;
        let tgid: u32 = bpf_probe_read_kernel((task + offsets.tgid) as *const u32).ok()?;
        let start_ns: u64 = bpf_probe_read_kernel((leader + offsets.start_boottime) as *const u64).ok()?;
        Some(ProcessKey::new(tgid, start_ns / NS_PER_TICK))
    }
}

/// The helper returns two numbers of 32 bits in one: the user id is the lower one.
#[inline(always)]
const fn lower_half(both: u64) -> u32 {
    (both & 0xffff_ffff) as u32
}

/// And of the thread group's id and the thread's, the upper one is the group's.
#[inline(always)]
const fn upper_half(both: u64) -> u32 {
    (both >> 32) as u32
}
