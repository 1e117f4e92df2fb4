//! Marks of connections that the kernel tracks, over netlink (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use nix::{errno::Errno, sys::socket::SockProtocol};

use super::netlink::{Answers, Netlink, Refusal, attributes, put, put_nested};

/// `NFNL_SUBSYS_CTNETLINK`, in the upper half of a kind.
const SUBSYSTEM: u16 = 1;
/// `IPCTNL_MSG_CT_…`: what changes one has the name of what makes one.
const NEW: u16 = 0;
const GET: u16 = 1;
/// `struct nfgenmsg`: family, version, resource.
const GENERAL: usize = 4;
/// `CTA_TUPLE_ORIG`, `CTA_MARK`, `CTA_ZONE` and `CTA_MARK_MASK`.
const TUPLE: u16 = 1;
const MARK: u16 = 8;
const ZONE: u16 = 18;
const MASK: u16 = 21;

/// Takes these bits of their marks from all connections of this network namespace that have this mark. Says how many had it.
///
/// # Errors
/// Why the kernel does not, which may not be able to (`CONFIG_NF_CT_NETLINK`).
pub fn take_mark(mark: u32, bits: u32) -> Result<usize, Refusal> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkNetFilter)?;
    let mut asked = vec![0; GENERAL];
    put(&mut asked, MARK, &mark.to_be_bytes());
    put(&mut asked, MASK, &u32::MAX.to_be_bytes());
    let mut changes = Vec::new();
    netlink
        .ask(SUBSYSTEM << 8 | GET, Answers::Many, &asked, |body| changes.extend(change(body, mark, bits)))?;
    for body in &changes {
        match netlink.change(SUBSYSTEM << 8 | NEW, 0, body) {
            // It has ended meanwhile.
            Err(refusal) if refusal.errno == Errno::ENOENT => {}
            other => other?,
        }
    }
    Ok(changes.len())
}

/// What takes these bits from a connection, if it has this mark.
fn change(body: &[u8], mark: u32, bits: u32) -> Option<Vec<u8>> {
    let general = body.get(..GENERAL)?;
    let part =
        |wanted| attributes(&body[GENERAL..]).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // Of kernels that do not choose themselves.
    if part(MARK)? != mark.to_be_bytes() {
        return None;
    }
    let mut change = general.to_vec();
    put_nested(&mut change, TUPLE, |tuple| tuple.extend(part(TUPLE).unwrap_or_default()));
    if let Some(zone) = part(ZONE) {
        put(&mut change, ZONE, zone);
    }
    put(&mut change, MARK, &0_u32.to_be_bytes());
    put(&mut change, MASK, &bits.to_be_bytes());
    Some(change)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_connection_is_named_as_it_was_told() {
        let mut told = vec![2, 0, 0, 0];
        put_nested(&mut told, TUPLE, |tuple| put(tuple, 1, &[1, 2, 3, 4]));
        put(&mut told, MARK, &0x0100_0000_u32.to_be_bytes());
        assert_eq!(change(&told, 0x0200_0000, u32::MAX), None, "another one's");
        let change = change(&told, 0x0100_0000, 0x7f00_0000).expect("it has that mark");
        assert_eq!(change[0], 2);
        let parts: Vec<_> = attributes(&change[GENERAL..]).collect();
        assert_eq!(parts[0], (TUPLE, &[8, 0, 1, 0, 1, 2, 3, 4][..]));
        assert_eq!(parts[1], (MARK, &[0; 4][..]));
        assert_eq!(parts[2], (MASK, &[0x7f, 0, 0, 0][..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            change(&bytes, 0, u32::MAX);
        }
    }
}
