//! Where is the peer: in the local network, or on the internet?

use core::intrinsics::cold_path;

use aya_ebpf::btf_maps::lpm_trie::Key;
use chadthrottle_common::{SCOPE_INTERNET, SCOPE_LOCAL, SocketOwner, scope_of_v4, scope_of_v6};

use crate::{
    headers::{Headers, Peer},
    maps::{Control, LOCAL_PREFIXES},
};

/// Bits of an IPv6 address, which is what prefixes are looked up by.
const ADDRESS_BITS: u32 = 128;
/// The scope in `SocketOwner::peer_scope`; the generation is above it.
pub(crate) const SCOPE_MASK: u32 = 3;

/// Where the peer of a packet is.
#[inline(always)]
pub(crate) fn scope(headers: &Headers, peer: Peer, control: &Control) -> u32 {
    let (by_class, words) = if let Some(address) = headers.peer_v4(peer) {
        (scope_of_v4(address), [0, 0, 0xffff, address])
    } else if let Some(words) = headers.peer_v6(peer) {
        (scope_of_v6(words), words)
    } else {
        return SCOPE_INTERNET;
    };
    if by_class == SCOPE_INTERNET && control.has_local_prefixes() {
        cold_path();
        if is_in_local_prefix(words) {
            return SCOPE_LOCAL;
        }
    }
    by_class
}

/// The same for a packet of a TCP connection, whose peer stays the same.
///
/// # Safety
/// `socket` points to a live socket's storage.
#[inline(always)]
pub(crate) unsafe fn scope_of_stream(
    socket: *mut SocketOwner,
    headers: &Headers,
    peer: Peer,
    control: &Control,
) -> u32 {
    // SAFETY: as promised by the caller. Whoever writes it writes the same.
    unsafe {
        let known = (*socket).peer_scope;
        if known & SCOPE_MASK != 0 && known >> 2 == control.scope_generation() {
            return known & SCOPE_MASK;
        }
        cold_path();
        let found = scope(headers, peer, control);
        (*socket).peer_scope = control.scope_generation() << 2 | found;
        found
    }
}

#[inline(always)]
fn is_in_local_prefix(words: [u32; 4]) -> bool {
    let words = [words[0].to_be(), words[1].to_be(), words[2].to_be(), words[3].to_be()];
    LOCAL_PREFIXES.get(&Key::new(ADDRESS_BITS, words)).is_some()
}
