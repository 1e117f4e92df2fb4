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
        bpf_get_current_uid_gid, bpf_ktime_get_ns,
        generated::{bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id},
    },
};
use chadthrottle_common::{Membership, ProcessKey, SocketOwner, clock::NS_PER_SEC};

use crate::{
    maps::{CHANGES, Control, LIMITED_CGROUPS, LIMITED_USERS, MEMBERS, count_lost},
    named, nobody, owner,
    process::lower_half,
};

/// How long a socket stays limited with the target of who used it before. Two processes that take turns share it, and
/// it is limited when either is; one that was handed over is soon the new one's alone.
const SHARED_NS: u64 = NS_PER_SEC;
/// No cgroup is deeper than that (`cgroup.max.depth` may allow more: those are found by their ancestors).
const DEPTHS: i32 = 64;

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
        let mut target = target_of_process(owner::process(socket));
        if target == 0 && control.has_limited_cgroups() {
            target = target_of_cgroup(skb);
        }
        if target == 0 && control.has_limited_users() {
            let user = nobody::user(skb);
            target = user.and_then(|user| LIMITED_USERS.get(user)).copied().unwrap_or(0);
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

/// Whether a limit covers what the current process does, `process`, and when that was found out: for a socket that it
/// makes.
#[inline(always)]
pub(crate) fn of_current(process: ProcessKey) -> (u32, u64) {
    let (Some(control), Some(changes)) = (Control::get(), CHANGES.get(0)) else { return (0, 0) };
    if !control.has_limits() {
        return (0, 0);
    }
    let mut target = target_of_process(process);
    // SAFETY: the helpers have no pointers; what is found is copied out at once.
    unsafe {
        if target == 0 && control.has_limited_cgroups() {
            for depth in 0..DEPTHS {
                let id = bpf_get_current_ancestor_cgroup_id(depth);
                if id == 0 {
                    break;
                }
                target = LIMITED_CGROUPS.get(id).copied().unwrap_or(target);
            }
        }
        if target == 0 && control.has_limited_users() {
            target = LIMITED_USERS.get(lower_half(bpf_get_current_uid_gid())).copied().unwrap_or(0);
        }
    }
    (target, *changes)
}

/// The target of a socket, as far as it has been found out.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
pub(crate) unsafe fn known_target(socket: *mut SocketOwner) -> u32 {
    // SAFETY: as promised by the caller.
    unsafe {
        let is_true = CHANGES.get(0).is_some_and(|changes| *changes == (*socket).target_generation);
        if is_true { (*socket).target } else { target_of_process(owner::process(socket)) }
    }
}

/// The same for what arrives, with what is remembered of who used the socket before. 0 also where only the packet hook can
/// find it out.
///
/// # Safety
/// As above.
#[inline(always)]
pub(crate) unsafe fn target_at_entrance(socket: *mut SocketOwner) -> u32 {
    // SAFETY: as promised by the caller.
    unsafe {
        let target = known_target(socket);
        if target == 0 && (*socket).shared_target != 0 && bpf_ktime_get_ns() < (*socket).shared_until_ns {
            return (*socket).shared_target;
        }
        target
    }
}

/// The target of a process for what it is, or for what it executes.
#[inline(always)]
fn target_of_process(process: ProcessKey) -> u32 {
    // SAFETY: copied out at once.
    unsafe { MEMBERS.get(process) }.map_or(0, |membership| membership.target())
}

/// The target of the innermost limited cgroup that the socket is in.
///
/// # Safety
/// `skb` is the hook's own context.
#[inline(always)]
unsafe fn target_of_cgroup(skb: *mut __sk_buff) -> u32 {
    let mut target = 0;
    for depth in 0..DEPTHS {
        // SAFETY: as promised by the caller; 0 is no cgroup.
        let id = unsafe { bpf_skb_ancestor_cgroup_id(skb, depth) };
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

/// Somebody else than `before` uses a socket from here on.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
pub(crate) unsafe fn changes_hands(socket: *mut SocketOwner, before: ProcessKey, was_presumed: bool) {
    // SAFETY: as promised by the caller.
    unsafe {
        // A socket that was accepted for somebody else was never its listener's to use.
        let target = if was_presumed { 0 } else { target_of_process(before) };
        if target != 0 {
            (*socket).shared_target = target;
            (*socket).shared_until_ns = bpf_ktime_get_ns() + SHARED_NS;
        }
        find_again(socket);
    }
}

/// Has the socket's target looked for with its next packet.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
pub(crate) unsafe fn find_again(socket: *mut SocketOwner) {
    // SAFETY: as promised by the caller.
    unsafe { (*socket).target_generation = 0 };
}

/// A process was forked. Whether it is a member of a target by that.
#[inline(always)]
pub(crate) fn inherit(parent: ProcessKey, child: ProcessKey) -> bool {
    // SAFETY: copied out at once.
    let Some(membership) = (unsafe { MEMBERS.get(parent) }).copied() else { return false };
    let membership = membership.of_child();
    if membership.target() == 0 {
        return false;
    }
    write(child, membership);
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
    let before = unsafe { MEMBERS.get(process) }.copied().unwrap_or_default();
    let by_program = named::target_of_program(binprm);
    if by_program == before.by_program {
        return;
    }
    let now = Membership { by_program, ..before };
    if now.target() == 0 {
        forget(process);
    } else {
        write(process, now);
    }
    // For the sockets that it keeps.
    if now.target() != before.target()
        && let Some(changes) = CHANGES.get_ptr_mut(0)
    {
        // SAFETY: a live map value.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(changes, 1) };
    }
}

/// A process is in no target any more, and has nothing left that could be in one.
#[inline(always)]
pub(crate) fn forget(process: ProcessKey) {
    // Most are in none.
    let _ = MEMBERS.remove(process);
}

#[inline(always)]
fn write(process: ProcessKey, membership: Membership) {
    if MEMBERS.insert(process, membership, u64::from(BPF_ANY)).is_err() {
        count_lost();
    }
}
