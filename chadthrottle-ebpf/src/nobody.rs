//! What belongs to no process, and whatever else only the kernel's own structures tell.
//!
//! These paths are taken for few packets and read the kernel's own structures, which the others avoid.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_probe_read_kernel, bpf_sk_fullsock},
};
use chadthrottle_common::{
    ProcessKey,
    wire::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP},
};

use crate::offsets::{OWN_NETNS_COOKIE, SocketOffsets, sock_uid};

/// `SOCK_RAW` (include/linux/net.h).
const SOCK_RAW: u32 = 3;

/// The bucket of a packet without a socket that has an owner.
///
/// The sockets by which the kernel answers for nobody in particular are raw: those of ICMP (`icmp_sk_init`,
/// `icmpv6_sk_init`) and that of TCP, for RST and for connections in TIME-WAIT (`tcp_sk_init`).
#[inline(always)]
pub(crate) fn bucket(skb: *mut __sk_buff) -> ProcessKey {
    // SAFETY: the hook's own context; every pointer is checked before it is used.
    let (kind, protocol) = unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        let sk = if sk.is_null() { sk } else { bpf_sk_fullsock(sk) };
        // No socket, or what is left of one.
        if sk.is_null() {
            return ProcessKey::REPLIES;
        }
        ((*sk).type_, (*sk).protocol)
    };
    if !is_of_kernel(skb) {
        return ProcessKey::UNKNOWN;
    }
    let answers = [IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP];
    if kind == SOCK_RAW && answers.iter().any(|&answer| u32::from(answer) == protocol) {
        return ProcessKey::REPLIES;
    }
    ProcessKey::KERNEL
}

/// Whether the packet is in another network namespace than the monitor.
#[inline(always)]
pub(crate) fn is_elsewhere(skb: *mut __sk_buff) -> bool {
    let own = OWN_NETNS_COOKIE.load();
    own != 0 && netns_cookie(skb).is_some_and(|cookie| cookie != own)
}

/// The user whose socket it is, in the initial user namespace: `bpf_get_socket_uid` tells it in that of the socket's
/// network, where rootless containers have users of their own.
#[inline(always)]
pub(crate) fn user(skb: *mut __sk_buff) -> Option<u32> {
    let socket = socket_address(skb)?;
    // SAFETY: the helper checks the address; a wrong one is an error, not a fault.
    unsafe { bpf_probe_read_kernel((socket + sock_uid()) as *const u32).ok() }
}

/// The address of the packet's `struct sock`, as a number. The context of the hook is the `struct sk_buff` itself, and
/// what the verifier lets a program have of its socket cannot be read beyond what `struct bpf_sock` shows.
#[inline(always)]
fn socket_address(skb: *mut __sk_buff) -> Option<u64> {
    let offsets = SocketOffsets::load();
    // SAFETY: the helper checks the address; a wrong one is an error, not a fault.
    let address = unsafe { bpf_probe_read_kernel(skb.byte_add(offsets.skb_sk).cast::<u64>()).ok()? };
    if address == 0 { None } else { Some(address) }
}

/// Whether the packet's socket was made by the kernel for itself (`sk_kern_sock`, include/net/sock.h).
#[inline(always)]
fn is_of_kernel(skb: *mut __sk_buff) -> bool {
    let offsets = SocketOffsets::load();
    let Some(socket) = socket_address(skb) else { return true };
    // SAFETY: as above.
    let bits = unsafe { bpf_probe_read_kernel((socket + offsets.kern_sock_byte) as *const u8) };
    bits.is_ok_and(|bits| bits >> offsets.kern_sock_bit & 1 == 1)
}

#[inline(always)]
fn netns_cookie(skb: *mut __sk_buff) -> Option<u64> {
    let offsets = SocketOffsets::load();
    let socket = socket_address(skb)?;
    // SAFETY: as above.
    unsafe {
        let net: u64 = bpf_probe_read_kernel((socket + offsets.net) as *const u64).ok()?;
        bpf_probe_read_kernel((net + offsets.net_cookie) as *const u64).ok()
    }
}
