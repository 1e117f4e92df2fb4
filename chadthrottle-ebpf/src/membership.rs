//! Which target is a socket limited with?
//!
//! Processes are members of targets by userspace's word, by their parent, or by the program that they execute. What no
//! process is a member of may be limited for the cgroup or the user that the socket was made in or by. The answer stands
//! in the socket's own storage until memberships change, so that a packet costs the same with one target and with
//! thousands.

use core::intrinsics::{AtomicOrdering, atomic_xadd, cold_path};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY},
    helpers::{
        bpf_ktime_get_ns, bpf_probe_read_kernel,
        generated::{bpf_get_socket_uid, bpf_skb_ancestor_cgroup_id},
    },
};
use chadthrottle_common::{
    FileId, MEMBER_BY_PROGRAM, Membership, ProcessKey, SocketOwner, clock::NS_PER_SEC,
};

use crate::{
    maps::{
        CHANGES, Control, FileOffsets, LIMITED_CGROUPS, LIMITED_PROGRAMS, LIMITED_USERS, MEMBERS, count_lost,
    },
    owner,
};

/// How long a socket stays limited with the target of who used it before. Two processes that take turns share it, and
/// it is limited when either is; one that was handed over is soon the new one's alone.
const SHARED_NS: u64 = NS_PER_SEC;
/// A cgroup deeper than this is found by its ancestors. As many as there are bits in `limited_cgroup_depths`.
const DEPTHS: u32 = 32;

/// The target that the socket of a packet is limited with; 0 where it is in none.
///
/// # Safety
/// `socket` points to the storage of the packet's own socket, and `skb` is the hook's own context.
#[inline(always)]
pub(crate) unsafe fn target_of(skb: *mut __sk_buff, socket: *mut SocketOwner, control: &Control) -> u32 {
    let Some(changes) = CHANGES.get(0) else { return 0 };
    // SAFETY: as promised by the caller; another CPU writes the same.
    unsafe {
        if (*socket).target_generation == *changes {
            return (*socket).target;
        }
        cold_path();
        find_target(skb, socket, control, *changes)
    }
}

/// # Safety
/// As above.
#[inline(always)]
unsafe fn find_target(
    skb: *mut __sk_buff,
    socket: *mut SocketOwner,
    control: &Control,
    generation: u64,
) -> u32 {
    // SAFETY: as promised by the caller.
    unsafe {
        let process = owner::process(socket);
        let mut target = MEMBERS.get(process).map_or(0, |member| member.target);
        if target == 0 && control.limited_cgroup_depths() != 0 {
            target = target_of_cgroup(skb, control.limited_cgroup_depths());
        }
        if target == 0 && control.has_limited_users() {
            target = LIMITED_USERS.get(bpf_get_socket_uid(skb)).copied().unwrap_or(0);
        }
        if target == 0 && (*socket).shared_target != 0 {
            if bpf_ktime_get_ns() < (*socket).shared_until_ns {
                // Asked again with the next packet.
                return (*socket).shared_target;
            }
            (*socket).shared_target = 0;
        }
        (*socket).target = target;
        (*socket).target_generation = generation;
        target
    }
}

/// The target of the innermost limited cgroup that the socket is in.
///
/// # Safety
/// `skb` is the hook's own context.
#[inline(always)]
unsafe fn target_of_cgroup(skb: *mut __sk_buff, depths: u32) -> u32 {
    let mut target = 0;
    for depth in 0..DEPTHS {
        if depths >> depth & 1 == 0 {
            continue;
        }
        // SAFETY: as promised by the caller; 0 is no cgroup.
        let id = unsafe { bpf_skb_ancestor_cgroup_id(skb, depth.cast_signed()) };
        if id == 0 {
            break;
        }
        // SAFETY: copied out at once.
        if let Some(found) = unsafe { LIMITED_CGROUPS.get(id) } {
            target = *found;
        }
    }
    target
}

/// Somebody else uses a socket now.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
pub(crate) unsafe fn changes_hands(socket: *mut SocketOwner, was_presumed: bool) {
    // SAFETY: as promised by the caller.
    unsafe {
        // A socket that was accepted for somebody else was never its listener's to use.
        if (*socket).target != 0 && !was_presumed {
            (*socket).shared_target = (*socket).target;
            (*socket).shared_until_ns = bpf_ktime_get_ns() + SHARED_NS;
        }
        (*socket).target_generation = 0;
    }
}

/// A process was forked. Whether it is a member of a target by that.
#[inline(always)]
pub(crate) fn inherit(parent: ProcessKey, child: ProcessKey) -> bool {
    // SAFETY: copied out at once.
    let Some(membership) = (unsafe { MEMBERS.get(parent) }).copied() else { return false };
    if membership.child_target == 0 {
        return false;
    }
    let inherited = Membership { target: membership.child_target, ..membership };
    if MEMBERS.insert(child, inherited, u64::from(BPF_ANY)).is_err() {
        count_lost();
    }
    true
}

/// A process executes another program from here on: `binprm` is the address of what the kernel knows of it.
#[inline(always)]
pub(crate) fn executes(process: ProcessKey, binprm: u64) {
    let Some(control) = Control::get() else { return };
    if !control.has_limited_programs() {
        return;
    }
    // SAFETY: copied out at once.
    let before = unsafe { MEMBERS.get(process) }.copied();
    // Who is limited by itself, or with its parent, stays so whatever it executes.
    if before.is_some_and(|membership| membership.flags & MEMBER_BY_PROGRAM == 0) {
        return;
    }
    let file = file_of(binprm);
    // SAFETY: copied out at once.
    let target = file.and_then(|file| unsafe { LIMITED_PROGRAMS.get(file) }.copied()).unwrap_or(0);
    if target == before.map_or(0, |membership| membership.target) {
        return;
    }
    if target == 0 {
        let _ = MEMBERS.remove(process);
    } else {
        let membership =
            Membership { target, child_target: target, flags: MEMBER_BY_PROGRAM, ..Membership::default() };
        if MEMBERS.insert(process, membership, u64::from(BPF_ANY)).is_err() {
            count_lost();
        }
    }
    // For the sockets that it keeps.
    if let Some(changes) = CHANGES.get_ptr_mut(0) {
        // SAFETY: a live map value.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(changes, 1) };
    }
}

/// The file that is executed: of a script it is the interpreter, as with /proc/PID/exe.
#[inline(always)]
fn file_of(binprm: u64) -> Option<FileId> {
    let offsets = FileOffsets::load();
    // SAFETY: the helper checks the addresses; a wrong one is an error, not a fault.
    unsafe {
        let file = bpf_probe_read_kernel((binprm + offsets.binprm_file) as *const u64).ok()?;
        let inode = bpf_probe_read_kernel((file + offsets.file_inode) as *const u64).ok()?;
        let superblock = bpf_probe_read_kernel((inode + offsets.inode_superblock) as *const u64).ok()?;
        Some(FileId {
            inode: bpf_probe_read_kernel((inode + offsets.inode_number) as *const u64).ok()?,
            device: bpf_probe_read_kernel((superblock + offsets.superblock_device) as *const u32).ok()?,
            ..FileId::default()
        })
    }
}
