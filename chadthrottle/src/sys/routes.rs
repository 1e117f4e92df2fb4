//! Which interfaces this host's packets leave by (rtnetlink(7)).

use std::{collections::BTreeSet, io};

use nix::libc;

use super::netlink::{Answers, Netlink, attributes};

/// `struct rtmsg`: family, lengths of the prefixes, service, table, protocol, scope, kind, flags.
const RTMSG: usize = 12;
/// Where the kind of a route is in it.
const KIND: usize = 7;
/// `struct rtnexthop`: length, flags, hops, interface.
const NEXT_HOP: usize = 8;

/// The numbers of the interfaces that a route of any table leads to, of those that lead to other hosts.
///
/// # Errors
/// When the kernel does not answer.
pub fn interfaces(netlink: &mut Netlink) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let any = [0; RTMSG];
    netlink.ask(libc::RTM_GETROUTE, Answers::Many, &any, |body| read(body, &mut found))?;
    Ok(found)
}

fn read(body: &[u8], found: &mut BTreeSet<u32>) {
    // Not those that lead to this host itself, or to nobody. Broadcast and multicast go where unicast routes lead too.
    if body.get(KIND) != Some(&libc::RTN_UNICAST) {
        return;
    }
    for (kind, value) in attributes(body.get(RTMSG..).unwrap_or_default()) {
        match kind {
            libc::RTA_OIF => found.extend(number(value)),
            libc::RTA_MULTIPATH => found.extend(next_hops(value)),
            _ => {}
        }
    }
}

fn next_hops(value: &[u8]) -> impl Iterator<Item = u32> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let interface =
            rest.get(..length).filter(|hop| hop.len() >= NEXT_HOP).and_then(|hop| number(&hop[4..]))?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(interface)
    })
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes))
}

/// No interface is told of that is not in the answer.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(body: &[u8]) {
    let mut found = BTreeSet::new();
    read(body, &mut found);
    assert!(found.len() <= body.len() / size_of::<u32>(), "{found:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::netlink::put;

    #[test]
    fn routes_lead_to_interfaces() {
        let mut body = vec![0; RTMSG];
        body[KIND] = libc::RTN_UNICAST;
        put(&mut body, libc::RTA_OIF, &3_u32.to_ne_bytes());
        let hop = |interface: u8| [8, 0, 0, 0, interface, 0, 0, 0];
        put(&mut body, libc::RTA_MULTIPATH, &[hop(4), hop(5)].concat());
        let mut found = BTreeSet::new();
        read(&body, &mut found);
        assert_eq!(found, [3, 4, 5].into());
        body[KIND] = libc::RTN_LOCAL;
        found.clear();
        read(&body, &mut found);
        assert!(found.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes, &mut BTreeSet::new());
            prop_assert!(next_hops(&bytes).count() <= bytes.len() / NEXT_HOP);
        }
    }
}
