//! Tables of nftables that die with the process that made them, over netlink (`include/uapi/linux/netfilter/nf_tables.h`).
//!
//! Not by the `nft` program: a table with the `owner` flag belongs to the netlink socket that made it, and that program
//! ends at once.

mod expression;

use std::{cell::RefCell, ffi::CStr, io};

use nix::{libc, sys::socket::SockProtocol};

pub use expression::{Bits, Expression, Verdict};

use super::netlink::{Answers, Netlink, Refusal, attributes, put, put_nested};

/// `NFNL_SUBSYS_NFTABLES`, in the upper half of a kind.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`: IPv4 and IPv6.
const INET: u8 = 1;
/// `NFT_MSG_…`.
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;
/// `NFT_TABLE_F_OWNER`.
const OWNER: u32 = 2;
/// `NFTA_RULE_…`.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USER_DATA: u16 = 7;
/// `struct nfgenmsg`: family, version, resource.
const GENERAL: usize = 4;

/// A table of IPv4 and IPv6 that is gone when this is dropped, or the process ends, however that happens.
#[derive(Debug)]
pub struct Table {
    /// Also who only reads asks by it.
    netlink: RefCell<Netlink>,
    name: String,
}

/// A chain to be made.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where among others it is that all that this host sends goes through; none where it is what other chains send there.
    pub hooked_at: Option<i32>,
}

/// A rule as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub handle: u64,
    /// What it was called.
    pub comment: String,
    /// Bytes and packets of each of its counters, in order.
    pub counters: Vec<(u64, u64)>,
}

/// A rule to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewRule<'a> {
    /// In which chain, at its end.
    pub chain: &'a str,
    /// What it is called, of at most 120 bytes.
    pub comment: &'a str,
    /// What it does, one after the other.
    pub expressions: &'a [Expression<'a>],
}

/// One message of a batch.
type Message = (u16, libc::c_int, Vec<u8>);

impl Table {
    /// Makes a table with these chains and rules, all or nothing.
    ///
    /// # Errors
    /// Why the kernel does not: before Linux 5.12 it knows no owner.
    pub fn create(name: &str, chains: &[Chain<'_>], rules: &[NewRule<'_>]) -> Result<Self, Refusal> {
        let table =
            Self { netlink: Netlink::open(SockProtocol::NetlinkNetFilter)?.into(), name: name.to_owned() };
        let mut body = general();
        put(&mut body, 1, &text(name));
        put(&mut body, 2, &OWNER.to_be_bytes());
        let mut batch = vec![(NEW_TABLE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, body)];
        batch.extend(chains.iter().map(|chain| table.new_chain(*chain)));
        batch.extend(rules.iter().map(|rule| table.new_rule(*rule, None)));
        table.run(batch)?;
        Ok(table)
    }

    /// Adds a rule, or puts it in the place of another one.
    ///
    /// # Errors
    /// Why the kernel does not.
    pub fn set_rule(&mut self, rule: NewRule<'_>, replaced: Option<u64>) -> Result<(), Refusal> {
        let message = self.new_rule(rule, replaced);
        self.run(vec![message])
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// Why the kernel does not.
    pub fn delete_rule(&mut self, chain: &str, handle: u64) -> Result<(), Refusal> {
        let mut body = self.rule_of(chain);
        put(&mut body, RULE_HANDLE, &handle.to_be_bytes());
        self.run(vec![(DELETE_RULE, 0, body)])
    }

    /// The rules of a chain.
    ///
    /// # Errors
    /// Why the kernel does not tell.
    pub fn rules(&self, chain: &str) -> io::Result<Vec<Rule>> {
        let body = self.rule_of(chain);
        let mut rules = Vec::new();
        let kind = SUBSYSTEM << 8 | GET_RULE;
        self.netlink
            .borrow_mut()
            .ask(kind, super::netlink::Answers::Many, &body, |body| rules.extend(read_rule(body)))?;
        Ok(rules)
    }

    fn new_chain(&self, chain: Chain<'_>) -> Message {
        let mut body = general();
        put(&mut body, 1, &text(&self.name));
        put(&mut body, 3, &text(chain.name));
        if let Some(place) = chain.hooked_at {
            put_nested(&mut body, 4, |hook| {
                // `NF_INET_LOCAL_OUT`.
                put(hook, 1, &3_u32.to_be_bytes());
                put(hook, 2, &place.to_be_bytes());
            });
            // Accept.
            put(&mut body, 5, &1_u32.to_be_bytes());
            put(&mut body, 7, &text("filter"));
        }
        (NEW_CHAIN, libc::NLM_F_CREATE, body)
    }

    fn new_rule(&self, rule: NewRule<'_>, replaced: Option<u64>) -> Message {
        let mut body = self.rule_of(rule.chain);
        let flags = if let Some(handle) = replaced {
            put(&mut body, RULE_HANDLE, &handle.to_be_bytes());
            libc::NLM_F_REPLACE
        } else {
            libc::NLM_F_CREATE | libc::NLM_F_APPEND
        };
        put_nested(&mut body, RULE_EXPRESSIONS, |list| {
            for expression in rule.expressions {
                expression.put(list);
            }
        });
        put(&mut body, RULE_USER_DATA, &user_data(rule.comment));
        (NEW_RULE, flags, body)
    }

    fn rule_of(&self, chain: &str) -> Vec<u8> {
        let mut body = general();
        put(&mut body, RULE_TABLE, &text(&self.name));
        put(&mut body, RULE_CHAIN, &text(chain));
        body
    }

    /// All or nothing.
    fn run(&self, messages: Vec<Message>) -> Result<(), Refusal> {
        let mut mark = general();
        mark[2..].copy_from_slice(&SUBSYSTEM.to_be_bytes());
        let inner = messages.into_iter().map(|(kind, flags, body)| (SUBSYSTEM << 8 | kind, flags, body));
        // `NFNL_MSG_BATCH_BEGIN` and `_END`.
        let batch: Vec<Message> =
            [(0x10, 0, mark.clone())].into_iter().chain(inner).chain([(0x11, 0, mark)]).collect();
        self.netlink.borrow_mut().change_all(&batch)
    }
}

/// `struct nfgenmsg`.
/// Family and name of every table of this network namespace.
///
/// # Errors
/// Why the kernel does not tell.
pub fn tables() -> io::Result<Vec<(u8, String)>> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkNetFilter)?;
    let mut found = Vec::new();
    // Of any family.
    netlink.ask(SUBSYSTEM << 8 | GET_TABLE, Answers::Many, &[0; GENERAL], |body| {
        let name = attributes(body.get(GENERAL..).unwrap_or_default()).find(|(kind, _)| *kind == TABLE_NAME);
        let name = name.and_then(|(_, name)| CStr::from_bytes_until_nul(name).ok());
        let name = name.map(|name| name.to_string_lossy().into_owned());
        found.extend(body.first().copied().zip(name));
    })?;
    Ok(found)
}

fn general() -> Vec<u8> {
    vec![INET, 0, 0, 0]
}

/// A text as attributes have it.
fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// A comment as the `nft` program shows it: kind 0, length, text.
fn user_data(comment: &str) -> Vec<u8> {
    let mut value = text(comment);
    value.truncate(120);
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    [vec![0, length], value].concat()
}

fn read_rule(body: &[u8]) -> Option<Rule> {
    let mut rule = Rule { handle: 0, comment: String::new(), counters: Vec::new() };
    for (kind, value) in attributes(body.get(GENERAL..)?) {
        match kind {
            RULE_HANDLE => rule.handle = u64::from_be_bytes(*value.first_chunk()?),
            RULE_USER_DATA => {
                let comment = value.get(2..).unwrap_or_default();
                String::from_utf8_lossy(comment).trim_end_matches('\0').clone_into(&mut rule.comment);
            }
            RULE_EXPRESSIONS => {
                rule.counters =
                    attributes(value).filter_map(|(_, value)| expression::counter(value)).collect();
            }
            _ => {}
        }
    }
    Some(rule)
}

/// What holds of any answer.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(body: &[u8]) {
    if let Some(rule) = read_rule(body) {
        assert!(rule.counters.len() <= body.len(), "{rule:?}");
        assert!(!rule.comment.ends_with('\0'), "{rule:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        let mut body = general();
        put(&mut body, RULE_HANDLE, &7_u64.to_be_bytes());
        let expressions = [
            Expression::Priority(5),
            Expression::Cgroup { level: 2, id: 3 },
            Expression::Class(4),
            Expression::Counter { bytes: 9, packets: 2 },
            Expression::SetPriority(6),
            Expression::Mark(Bits { mask: 3, value: 1, is_equal: true }),
            Expression::GiveMark,
            Expression::TakeMark,
        ];
        put_nested(&mut body, RULE_EXPRESSIONS, |list| expressions.iter().for_each(|one| one.put(list)));
        put(&mut body, RULE_USER_DATA, &user_data("some"));
        let rule = Rule { handle: 7, comment: "some".into(), counters: vec![(9, 2)] };
        assert_eq!(read_rule(&body), Some(rule));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_rule(&bytes);
        }
    }
}
