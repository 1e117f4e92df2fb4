//! Filters that know packets by the marks of their connections, at the entrance of interfaces: `u32`, `fw` and the actions
//! `ctinfo`, `skbedit` and `mirred` (`net/sched/cls_u32.c` and the like). None of them is a program.

use nix::libc;

use super::{
    Handle, TCMSG,
    clsact::{self, INGRESS},
    gone_is_fine, header, word,
};
use crate::sys::netlink::{Answers, Netlink, Refusal, attributes, put, put_nested};

/// `TC_ACT_UNSPEC`: goes on with the next filter. `TC_ACT_PIPE`: with the next action. `TC_ACT_STOLEN`: it is elsewhere now.
const NEXT_FILTER: i32 = -1;
const NEXT_ACTION: i32 = 3;
const GONE: i32 = 4;
/// `TCA_EGRESS_REDIR`.
const REDIRECT: u32 = 1;
/// `TCA_U32_SEL`, `_ACT` and `_MARK`, and `TC_U32_TERMINAL`.
const U32_KEYS: u16 = 5;
const U32_ACTIONS: u16 = 7;
const U32_MARK: u16 = 10;
const TERMINAL: u8 = 1;
/// `TC_U32_KEY`: where it is 0 the number is that of a table of such filters, which comes and goes with its priority.
const U32_NUMBER: u32 = 0xf_ffff;
/// `TCA_FW_ACT`.
const FW_ACTIONS: u16 = 4;
/// `TCA_ACT_KIND`, `_OPTIONS` and `_COOKIE`.
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const ACTION_COOKIE: u16 = 6;
/// `TCA_CTINFO_ACT` and `_PARMS_CPMARK_MASK`.
const CTINFO: u16 = 3;
const CTINFO_MASK: u16 = 7;
/// `TCA_SKBEDIT_PARMS`, `_PRIORITY` and `_MARK`, and `TCA_MIRRED_PARMS`.
const PARAMETERS: u16 = 2;
const SKBEDIT_PRIORITY: u16 = 3;
const SKBEDIT_MARK: u16 = 5;

/// What a filter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// What carries no mark gets these bits of its connection's.
    Copy {
        /// Which.
        mask: u32,
    },
    /// What carries this mark loses it, gets a priority, and goes to another interface.
    Redirect {
        /// The mark.
        mark: u32,
        /// The priority: the number of a class there.
        class: Handle,
        /// The number of the interface.
        to: u32,
    },
    /// What carries a mark of these bits alone loses it.
    TakeOff {
        /// Which.
        mask: u32,
    },
}

/// What tells whose a filter is: 16 bytes that go with its first action (`TC_COOKIE_MAX_SIZE`).
pub type Cookie = [u8; 16];

/// A filter that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its place among the others: lower ones come first.
    pub priority: u16,
    /// Its number among those of that priority.
    pub handle: u32,
    /// What its first action carries, where that is so long.
    pub cookie: Option<Cookie>,
    /// Whether it is a `u32` one that asks for the mark, which the kernel may not know how to (`CONFIG_CLS_U32_MARK`).
    pub matches_mark: bool,
}

/// Adds a filter for what arrives by an interface. A redirection is found again by its mark.
///
/// # Errors
/// Why the kernel does not: `ENOENT` where it does not have that kind, `EINVAL` where there is another kind at that priority.
pub fn add(
    netlink: &mut Netlink,
    interface: u32,
    priority: u16,
    filter: Filter,
    cookie: &Cookie,
) -> Result<(), Refusal> {
    let body = of_filter(interface, priority, filter, cookie);
    netlink.change(libc::RTM_NEWTFILTER, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body)
}

/// Takes the redirection of a mark away, if that is there.
///
/// # Errors
/// Why the kernel does not.
pub fn delete(netlink: &mut Netlink, interface: u32, priority: u16, handle: u32) -> Result<(), Refusal> {
    let body = clsact::named(interface, priority, handle);
    gone_is_fine(netlink.change(libc::RTM_DELTFILTER, 0, &body))
}

/// Takes all filters of a priority away.
///
/// # Errors
/// Why the kernel does not. That there are none is no error.
pub fn delete_all(netlink: &mut Netlink, interface: u32, priority: u16) -> Result<(), Refusal> {
    delete(netlink, interface, priority, 0)
}

/// The filters for what arrives by an interface.
///
/// # Errors
/// Why the kernel does not tell.
pub fn list(netlink: &mut Netlink, interface: u32) -> Result<Vec<Found>, Refusal> {
    let mut found = Vec::new();
    let any = header(interface, Handle(0), INGRESS);
    let asked = netlink.ask(libc::RTM_GETTFILTER, Answers::Many, &any, |body| {
        found.extend(read(body, interface));
    });
    match asked {
        Err(error) if clsact::is_gone(&error) => Ok(Vec::new()),
        asked => asked.map(|()| found).map_err(Refusal::from),
    }
}

fn of_filter(interface: u32, priority: u16, filter: Filter, cookie: &Cookie) -> Vec<u8> {
    let handle = if let Filter::Redirect { mark, .. } = filter { mark } else { 0 };
    let mut body = clsact::named(interface, priority, handle);
    match filter {
        Filter::Copy { mask } => put_u32(&mut body, u32::MAX, |actions| {
            put_action(actions, 1, "ctinfo", Some(cookie), |options| {
                put(options, CTINFO, &general(NEXT_FILTER));
                put(options, CTINFO_MASK, &mask.to_ne_bytes());
            });
        }),
        Filter::TakeOff { mask } => put_u32(&mut body, !mask, |actions| {
            put_action(actions, 1, "skbedit", Some(cookie), |options| {
                put(options, PARAMETERS, &general(NEXT_FILTER));
                put(options, SKBEDIT_MARK, &0_u32.to_ne_bytes());
            });
        }),
        Filter::Redirect { class, to, .. } => {
            put(&mut body, libc::TCA_KIND, b"fw\0");
            put_nested(&mut body, libc::TCA_OPTIONS, |options| {
                put_nested(options, FW_ACTIONS, |actions| {
                    put_action(actions, 1, "skbedit", Some(cookie), |options| {
                        put(options, PARAMETERS, &general(NEXT_ACTION));
                        put(options, SKBEDIT_PRIORITY, &class.0.to_ne_bytes());
                        put(options, SKBEDIT_MARK, &0_u32.to_ne_bytes());
                    });
                    put_action(actions, 2, "mirred", None, |options| {
                        let words = [REDIRECT, to].into_iter().flat_map(u32::to_ne_bytes);
                        let parameters: Vec<u8> = general(GONE).into_iter().chain(words).collect();
                        put(options, PARAMETERS, &parameters);
                    });
                });
            });
        }
    }
    body
}

/// A `u32` filter that matches what has nothing of this mask in its mark.
fn put_u32(body: &mut Vec<u8>, mask: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    put(body, libc::TCA_KIND, b"u32\0");
    put_nested(body, libc::TCA_OPTIONS, |options| {
        // `struct tc_u32_sel` with one key, of which no bit counts (`match u32 0 0`).
        let mut keys = vec![0; 16 + 16];
        (keys[0], keys[2]) = (TERMINAL, 1);
        put(options, U32_KEYS, &keys);
        // `struct tc_u32_mark`: value, mask, and how often.
        let matched: Vec<u8> = [0, mask, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        put(options, U32_MARK, &matched);
        put_nested(options, U32_ACTIONS, fill);
    });
}

fn put_action(
    actions: &mut Vec<u8>,
    place: u16,
    kind: &str,
    cookie: Option<&Cookie>,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    put_nested(actions, place, |action| {
        put(action, ACTION_KIND, &[kind.as_bytes(), &[0]].concat());
        put_nested(action, ACTION_OPTIONS, fill);
        if let Some(cookie) = cookie {
            put(action, ACTION_COOKIE, cookie);
        }
    });
}

/// `tc_gen`: number, capabilities, what comes next, and two counts of users.
fn general(next: i32) -> Vec<u8> {
    [0, 0, next, 0, 0].into_iter().flat_map(i32::to_ne_bytes).collect()
}

fn read(body: &[u8], interface: u32) -> Option<Found> {
    let (index, handle) = (word(body, 4)?, word(body, 8)?);
    let part =
        |wanted| attributes(body.get(TCMSG..)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let kind = part(libc::TCA_KIND).unwrap_or_default();
    let (is_table, actions) = match kind {
        b"u32\0" => (handle & U32_NUMBER == 0, Some(U32_ACTIONS)),
        b"fw\0" => (false, Some(FW_ACTIONS)),
        _ => (false, None),
    };
    if index != interface || handle == 0 || is_table {
        return None;
    }
    let priority = u16::try_from(word(body, 16)? >> 16).unwrap_or_default();
    let options = part(libc::TCA_OPTIONS);
    let matches_mark = actions == Some(U32_ACTIONS)
        && attributes(options.unwrap_or_default()).any(|(kind, _)| kind == U32_MARK);
    Some(Found { priority, handle, cookie: options.zip(actions).and_then(first_cookie), matches_mark })
}

fn first_cookie((options, actions): (&[u8], u16)) -> Option<Cookie> {
    let part = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let first = part(part(options, actions)?, 1)?;
    part(first, ACTION_COOKIE)?.try_into().ok()
}

/// What is found was there.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(body: &[u8]) {
    let Some(interface) = word(body, 4) else { return };
    if let Some(found) = read(body, interface) {
        assert!(found.handle != 0 && read(body, interface.wrapping_add(1)).is_none(), "{found:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COOKIE: Cookie = *b"chadthrottle\x01\x02\x03\x04";

    #[test]
    fn filters_are_found_again_with_what_they_carry() {
        let redirect = Filter::Redirect { mark: 0x0100_0000, class: Handle::new(0x7caf, 1), to: 5 };
        let body = of_filter(3, 7, redirect, &COOKIE);
        let found = Found { priority: 7, handle: 0x0100_0000, cookie: Some(COOKIE), matches_mark: false };
        assert_eq!((read(&body, 3), read(&body, 4)), (Some(found), None));

        for filter in [Filter::Copy { mask: 0x7f00_0000 }, Filter::TakeOff { mask: 0x7f00_0000 }] {
            let mut body = of_filter(3, 7, filter, &COOKIE);
            // The kernel chooses their numbers.
            assert_eq!(read(&body, 3), None);
            body[8..12].copy_from_slice(&0x8010_0800_u32.to_ne_bytes());
            let found = Found { priority: 7, handle: 0x8010_0800, cookie: Some(COOKIE), matches_mark: true };
            assert_eq!(read(&body, 3), Some(found));
            // That of a table is nobody's.
            body[8..12].copy_from_slice(&0x8010_0000_u32.to_ne_bytes());
            assert_eq!(read(&body, 3), None);
        }
    }

    #[test]
    fn those_of_other_kinds_carry_nothing() {
        let mut body = clsact::named(3, 7, 1);
        put(&mut body, libc::TCA_KIND, b"matchall\0");
        let found = Found { priority: 7, handle: 1, cookie: None, matches_mark: false };
        assert_eq!(read(&body, 3), Some(found));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes, 3);
        }
    }
}
