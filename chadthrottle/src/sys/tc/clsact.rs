//! Programs at the entrance of interfaces as filters (`net/sched/sch_ingress.c`, `net/sched/cls_bpf.c`).

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{errno::Errno, libc};

use super::{Handle, TCMSG, gone_is_fine, header, word};
use crate::sys::netlink::{Answers, Netlink, Refusal, attributes, put, put_nested};

/// `TC_H_CLSACT`, what it has as its number, and where its filters are: for what arrives, and for what leaves
/// (`include/uapi/linux/pkt_sched.h`).
const CLSACT: u32 = 0xffff_fff1;
const NUMBER: Handle = Handle::new(0xffff, 0);
pub(super) const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// `ETH_P_ALL`, as it stands in a packet.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
/// `TCA_BPF_FD`, `_NAME` and `_FLAGS`, and the flag that what the program says is done (`TCA_BPF_FLAG_ACT_DIRECT`).
const BPF_FD: u16 = 6;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
const ACT_DIRECT: u32 = 1;

/// A filter for what arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its place among the others: lower ones come first.
    pub priority: u16,
    /// Its number among those of that priority.
    pub handle: u32,
    /// What it is called, where it is a program.
    pub program: Option<String>,
}

/// Gives an interface a queue for filters, unless it has one. Says whether it had none.
///
/// # Errors
/// Why the kernel does not.
pub fn add_clsact(netlink: &mut Netlink, interface: u32) -> Result<bool, Refusal> {
    let mut body = header(interface, NUMBER, CLSACT);
    put(&mut body, libc::TCA_KIND, b"clsact\0");
    match netlink.change(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body) {
        Ok(()) => Ok(true),
        Err(refusal) if refusal.errno == Errno::EEXIST => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

/// Takes that queue away, if it is empty.
///
/// # Errors
/// Why the kernel does not. That it is not there (any more) is no error.
pub fn delete_empty_clsact(netlink: &mut Netlink, interface: u32) -> Result<(), Refusal> {
    for parent in [INGRESS, EGRESS] {
        if !list(netlink, interface, parent)?.is_empty() {
            return Ok(());
        }
    }
    gone_is_fine(netlink.change(libc::RTM_DELQDISC, 0, &header(interface, NUMBER, CLSACT)))
}

/// Has a program see what arrives by an interface.
///
/// # Errors
/// Why the kernel does not: `EEXIST` where there is such a filter.
pub fn add_filter(
    netlink: &mut Netlink,
    interface: u32,
    filter: &Filter,
    program: BorrowedFd<'_>,
) -> Result<(), Refusal> {
    let mut body = of_filter(interface, filter);
    put(&mut body, libc::TCA_KIND, b"bpf\0");
    let name = [filter.program.as_deref().unwrap_or_default().as_bytes(), &[0]].concat();
    put_nested(&mut body, libc::TCA_OPTIONS, |options| {
        put(options, BPF_FD, &program.as_raw_fd().to_ne_bytes());
        put(options, BPF_NAME, &name);
        put(options, BPF_FLAGS, &ACT_DIRECT.to_ne_bytes());
    });
    netlink.change(libc::RTM_NEWTFILTER, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body)
}

/// Takes a filter away, if it is still that one.
///
/// # Errors
/// Why the kernel does not. That it is not there (any more) is no error.
pub fn delete_filter(netlink: &mut Netlink, interface: u32, filter: &Filter) -> Result<(), Refusal> {
    if !list(netlink, interface, INGRESS)?.contains(filter) {
        return Ok(());
    }
    gone_is_fine(netlink.change(libc::RTM_DELTFILTER, 0, &of_filter(interface, filter)))
}

/// Every filter of an interface in one direction.
fn list(netlink: &mut Netlink, interface: u32, parent: u32) -> Result<Vec<Filter>, Refusal> {
    let mut found = Vec::new();
    let any = header(interface, Handle(0), parent);
    let asked =
        netlink.ask(libc::RTM_GETTFILTER, Answers::Many, &any, |body| found.extend(read(body, interface)));
    match asked {
        // It has no such queue, or is gone.
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        asked => asked.map(|()| found).map_err(Refusal::from),
    }
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT))
}

/// A filter; of those without a number the kernel tells only that they may be there.
fn read(body: &[u8], interface: u32) -> Option<Filter> {
    let (index, handle) = (word(body, 4)?, word(body, 8)?);
    if index != interface || handle == 0 {
        return None;
    }
    let options = attributes(body.get(TCMSG..)?).find(|(kind, _)| *kind == libc::TCA_OPTIONS);
    let name = options.and_then(|(_, options)| attributes(options).find(|(kind, _)| *kind == BPF_NAME));
    let text = |value| CStr::from_bytes_until_nul(value).ok()?.to_str().ok().map(str::to_owned);
    let priority = u16::try_from(word(body, 16)? >> 16).unwrap_or_default();
    Some(Filter { priority, handle, program: name.and_then(|(_, value)| text(value)) })
}

/// `struct tcmsg` of a filter: its last word has the priority and the protocol.
fn of_filter(interface: u32, filter: &Filter) -> Vec<u8> {
    named(interface, filter.priority, filter.handle)
}

/// The same by its two numbers.
pub(super) fn named(interface: u32, priority: u16, handle: u32) -> Vec<u8> {
    let mut body = header(interface, Handle(handle), INGRESS);
    let info = u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS);
    body[16..20].copy_from_slice(&info.to_ne_bytes());
    body
}

/// A filter that is read can be named again.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(body: &[u8]) {
    let Some(interface) = word(body, 4) else { return };
    if let Some(filter) = read(body, interface) {
        let again = read(&of_filter(interface, &filter), interface);
        assert_eq!(again, Some(Filter { program: None, ..filter }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_filter_is_read_as_it_is_written() {
        let filter = Filter { priority: 7, handle: 4711, program: Some("it".into()) };
        let mut body = of_filter(3, &filter);
        put_nested(&mut body, libc::TCA_OPTIONS, |options| put(options, BPF_NAME, b"it\0"));
        assert_eq!((read(&body, 3), read(&body, 4)), (Some(filter), None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes, 3);
        }
    }
}
