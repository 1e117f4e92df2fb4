//! Whose socket is it?
//!
//! The owner stands in the socket's own storage. It is whoever made the socket, until somebody else uses it: by
//! sending, by receiving, or by a packet that leaves while that process is inside a system call on the socket. A packet
//! hook must never simply ask for the current process: a packet may leave from an interrupt, in whoever's time slice
//! that falls.
//!
//! An accepted socket begins with its listener's owner, which may not be the one who will use it: servers fork workers
//! that all accept from one listener. Until the first use its bytes are held back in its storage.

use core::{ffi::c_void, intrinsics::cold_path, ptr};

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get, bpf_skc_to_tcp_sock},
    programs::SockContext,
};
use aya_log_ebpf::{debug, warn};
use chadthrottle_common::{
    DIRECTION_DOWNLOAD, DIRECTION_UPLOAD, ProcessKey, SocketOwner, TrafficKey, wire::IPPROTO_TCP,
};

use crate::{
    counters,
    headers::Headers,
    maps::{OWNERS, count_lost},
    membership,
    offsets::{OWN_NETNS_COOKIE, OWN_TGID, write_seq},
    peer::SCOPE_MASK,
    process::{current_process, current_tgid, is_kernel_thread, note},
};

/// How far the queue may lie behind what is written, in bytes of sequence numbers. Older hand-overs are forgotten
/// before the numbers come round.
const LONGEST_QUEUE: u32 = 1 << 30;

/// Writes the current process into a socket that has just been made.
#[inline(always)]
pub(crate) fn tag_new_socket(ctx: &SockContext) {
    let Some(process) = current_process() else {
        count_lost();
        return;
    };
    let own_netns = OWN_NETNS_COOKIE.load();
    // SAFETY: the hook's own context.
    let is_elsewhere = own_netns != 0 && unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } != own_netns;
    // SAFETY: the hook's own context.
    let is_stream = unsafe { (*ctx.sock).protocol } == u32::from(IPPROTO_TCP);
    let (target, target_generation) = membership::of_current(process);
    let mut owner = SocketOwner {
        process,
        target,
        target_generation,
        is_elsewhere: is_elsewhere.into(),
        is_stream: is_stream.into(),
        ..SocketOwner::default()
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
        warn!(ctx, "no memory to tag a socket of {}", process.tgid());
        count_lost();
        return;
    }
    debug!(ctx, "socket made by {}", process.tgid());
    note(process);
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
    let tgid = current_tgid();
    // SAFETY: as promised by the caller. Other CPUs write single words.
    unsafe {
        let owner = ptr::read_volatile(&raw const (*socket).process);
        let is_presumed = ptr::read_volatile(&raw const (*socket).is_presumed) != 0;
        if owner.tgid() == tgid && !is_presumed {
            return;
        }
        cold_path();
        if owner.tgid() != tgid {
            // Kernel threads send for others, when sockets are joined by BPF for instance. And so do we, when flow control
            // sets an option of somebody's socket: what has waited for the lock then leaves in our context.
            if tgid == OWN_TGID.load() || is_kernel_thread() {
                return;
            }
            let Some(process) = current_process() else { return };
            ptr::write_volatile(&raw mut (*socket).process, process);
            membership::changes_hands(socket, owner, is_presumed);
            note(process);
            debug!(ctx, "socket of {} used by {}", owner.tgid(), tgid);
        }
        ptr::write_volatile(&raw mut (*socket).is_presumed, 0);
        if is_presumed {
            // `accept` has made it its caller's (`sock_graft`, include/net/sock.h), who may be another user by now.
            membership::find_again(socket);
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
    // SAFETY: as promised by the caller.
    unsafe {
        let key = TrafficKey {
            owner: process(socket),
            ifindex: (*socket).held_ifindex,
            scope: (*socket).peer_scope & SCOPE_MASK,
        };
        let held = &raw mut (*socket).held;
        for direction in [DIRECTION_UPLOAD, DIRECTION_DOWNLOAD] {
            let taken = counters::take(held, direction);
            if taken.packets != 0 {
                counters::add(&key, direction, &taken);
            }
        }
    }
}

/// Who owns the socket.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
pub(crate) unsafe fn process(socket: *mut SocketOwner) -> ProcessKey {
    // SAFETY: as promised by the caller. One word, whoever writes it at the same time.
    unsafe { ptr::read_volatile(&raw const (*socket).process) }
}

/// A call that sent on the socket has ended: what it wrote is the current process's, the socket's owner by now.
///
/// # Safety
/// `socket` points to the storage of the socket `sk`, and this is called from the process's own context.
#[inline(always)]
pub(crate) unsafe fn has_written(socket: *mut SocketOwner, sk: *mut core::ffi::c_void) {
    // SAFETY: as promised by the caller; the helper tells whether this is TCP.
    unsafe {
        let tcp: *const c_void = bpf_skc_to_tcp_sock(sk).cast();
        if tcp.is_null() {
            return;
        }
        let written = write_seq(tcp);
        let process = process(socket);
        if (*socket).writer != process {
            if (*socket).writer != ProcessKey::NONE {
                (*socket).previous_writer = (*socket).writer;
                (*socket).handover_seq = (*socket).written_seq;
            }
            (*socket).writer = process;
        } else if written.wrapping_sub((*socket).handover_seq) > LONGEST_QUEUE {
            (*socket).previous_writer = ProcessKey::NONE;
        }
        (*socket).written_seq = written;
    }
}

/// Who wrote what a TCP segment carries. A queue outlives a hand-over of its socket: what stands in it is of whoever
/// wrote it. What no finished call has written is of the one that is writing: the owner.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
pub(crate) unsafe fn writer_of(socket: *mut SocketOwner, headers: &Headers) -> ProcessKey {
    // SAFETY: as promised by the caller.
    unsafe {
        let (owner, writer) = (process(socket), (*socket).writer);
        if writer == ProcessKey::NONE || (writer == owner && (*socket).previous_writer == ProcessKey::NONE) {
            return owner;
        }
        cold_path();
        let Some(seq) = headers.tcp_seq() else { return owner };
        if !is_before(seq, (*socket).written_seq) {
            return owner;
        }
        if (*socket).previous_writer != ProcessKey::NONE && is_before(seq, (*socket).handover_seq) {
            return (*socket).previous_writer;
        }
        writer
    }
}

/// `before` (include/net/tcp.h): sequence numbers come round.
#[inline(always)]
const fn is_before(seq: u32, other: u32) -> bool {
    seq.wrapping_sub(other).cast_signed() < 0
}
