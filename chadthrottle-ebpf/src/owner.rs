//! Whose socket is it?
//!
//! The owner stands in the socket's own storage, written once when the socket is made. A packet hook must never
//! ask for the current process: a packet may leave from an interrupt, in whoever's time slice that falls.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{
        bpf_get_current_comm, bpf_get_current_uid_gid, bpf_probe_read_kernel,
        generated::{bpf_get_current_task, bpf_sk_storage_get},
    },
    programs::{BtfTracePointContext, SockContext},
};
use aya_log_ebpf::{debug, warn};
use chadthrottle_common::{MEMBER_INHERITED_BY_CHILDREN, NS_PER_TICK, ProcessKey, ProcessRecord};

use crate::maps::{MEMBERS, OWNERS, PROCESSES, TaskOffsets, count_lost};

/// Writes the current process into a socket that has just been made.
#[inline(always)]
pub(crate) fn tag_new_socket(ctx: &SockContext) {
    // SAFETY: the helper returns the current task, valid for the program's run.
    let Some(mut owner) = identify(unsafe { bpf_get_current_task() }) else {
        count_lost();
        return;
    };
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
        warn!(ctx, "no memory to tag a socket of {}", owner.tgid);
        count_lost();
        return;
    }
    debug!(ctx, "socket made by {}", owner.tgid);
    // SAFETY: looked up for existence alone.
    if unsafe { PROCESSES.get(owner) }.is_none() {
        let record = ProcessRecord {
            comm: bpf_get_current_comm().unwrap_or_default(),
            uid: lower_half(bpf_get_current_uid_gid()),
            _padding: 0,
        };
        // A race with another thread of the process (EEXIST) writes the same, so only a full table counts.
        if PROCESSES.insert(owner, record, u64::from(BPF_ANY)).is_err() {
            count_lost();
        }
    }
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
    debug!(ctx, "{} is limited with its parent {}", child.tgid, parent.tgid);
    if MEMBERS.insert(child, membership, u64::from(BPF_NOEXIST)).is_err() {
        count_lost();
    }
}

/// The owner in a socket's storage, if it has one.
///
/// `sk` is the socket of a packet: a full one, or null.
#[inline(always)]
pub(crate) fn of_socket(sk: *mut bpf_sock) -> Option<ProcessKey> {
    // SAFETY: the verifier has `sk` checked for null below; without the create flag nothing is read from the
    // value pointer.
    unsafe {
        let owner: *const ProcessKey =
            bpf_sk_storage_get(OWNERS.as_ptr(), sk.cast(), ptr::null_mut(), 0).cast();
        owner.as_ref().copied()
    }
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
        Some(ProcessKey { tgid, _padding: 0, start_time: start_ns / NS_PER_TICK })
    }
}

/// The helper returns two numbers of 32 bits in one: the user id is the lower one.
#[inline(always)]
const fn lower_half(both: u64) -> u32 {
    (both & 0xffff_ffff) as u32
}
