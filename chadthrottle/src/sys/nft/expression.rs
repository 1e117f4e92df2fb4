//! What rules are made of.

use crate::sys::netlink::{attributes, put, put_nested};

/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFT_REG_1`: all that is looked at goes through it.
const REGISTER: u32 = 1;
/// `NFT_META_PRIORITY`, `NFT_META_OIFNAME` and `NFT_META_CGROUP`.
const PRIORITY: u32 = 2;
const INTERFACE: u32 = 7;
const CLASS: u32 = 23;
/// `NFT_META_MARK`, and `NFT_CT_MARK`.
const MARK: u32 = 3;
const CONNECTION_MARK: u32 = 3;
/// `NFT_SOCKET_CGROUPV2`.
const SOCKET_CGROUP: u32 = 3;
/// `IFNAMSIZ`.
const INTERFACE_NAME: usize = 16;

/// One step of a rule; where one does not hold, those after it are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expression<'a> {
    /// The packet's priority is this.
    Priority(u32),
    /// The socket that sends the packet belongs to this cgroup (v2), or one below it.
    Cgroup {
        /// How deep that is in the tree; the root is 0.
        level: u32,
        /// Its number.
        id: u64,
    },
    /// The socket that sends the packet has this `net_cls.classid`.
    Class(u32),
    /// The packet gets this priority.
    SetPriority(u32),
    /// The packet's mark has this in these bits, or has not.
    Mark(Bits),
    /// The same of the mark of its connection.
    ConnectionMark(Bits),
    /// The connection of the packet gets the packet's mark.
    GiveMark,
    /// The connection of the packet gets the mark 0.
    TakeMark,
    /// The packet leaves by the interface of this name, or does not.
    Leaves {
        /// The name.
        by: &'a str,
        /// Whether it does.
        does: bool,
    },
    /// Counts, from here on.
    Counter {
        /// Bytes so far.
        bytes: u64,
        /// Packets so far.
        packets: u64,
    },
    /// The packet is over this many bytes a second. What has not been used for a second and `burst` bytes may come at
    /// once.
    Over {
        /// Bytes a second.
        rate: u64,
        /// Bytes.
        burst: u32,
    },
    /// What becomes of the packet.
    Verdict(Verdict<'a>),
}

/// What a number has in some of its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Which.
    pub mask: u32,
    /// What they are compared with.
    pub value: u32,
    /// Whether they are to be that, or anything else.
    pub is_equal: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is dropped, and who sent it is told.
    Drop,
    /// It goes through another chain, and then goes on here.
    Jump(&'a str),
}

impl Expression<'_> {
    /// Appends it to a list.
    pub(super) fn put(&self, list: &mut Vec<u8>) {
        match *self {
            Self::Priority(value) => {
                put_meta(list, PRIORITY);
                put_comparison(list, true, &value.to_ne_bytes());
            }
            Self::Cgroup { level, id } => {
                put_expression(list, "socket", |data| {
                    put(data, 1, &SOCKET_CGROUP.to_be_bytes());
                    put(data, 2, &REGISTER.to_be_bytes());
                    put(data, 3, &level.to_be_bytes());
                });
                put_comparison(list, true, &id.to_ne_bytes());
            }
            Self::Class(class) => {
                put_meta(list, CLASS);
                put_comparison(list, true, &class.to_ne_bytes());
            }
            Self::Mark(bits) => {
                put_meta(list, MARK);
                put_bits(list, bits);
            }
            Self::ConnectionMark(bits) => {
                put_expression(list, "ct", |data| {
                    put(data, 1, &REGISTER.to_be_bytes());
                    put(data, 2, &CONNECTION_MARK.to_be_bytes());
                });
                put_bits(list, bits);
            }
            Self::GiveMark => {
                put_meta(list, MARK);
                put_connection_mark(list);
            }
            Self::TakeMark => {
                put_number(list, 0);
                put_connection_mark(list);
            }
            Self::SetPriority(value) => {
                put_number(list, value);
                put_expression(list, "meta", |data| {
                    put(data, 2, &PRIORITY.to_be_bytes());
                    put(data, 3, &REGISTER.to_be_bytes());
                });
            }
            Self::Leaves { by, does } => {
                put_meta(list, INTERFACE);
                let mut name = by.as_bytes().to_vec();
                name.resize(INTERFACE_NAME, 0);
                put_comparison(list, does, &name);
            }
            Self::Counter { bytes, packets } => put_expression(list, "counter", |data| {
                put(data, 1, &bytes.to_be_bytes());
                put(data, 2, &packets.to_be_bytes());
            }),
            Self::Over { rate, burst } => put_expression(list, "limit", |data| {
                put(data, 1, &rate.to_be_bytes());
                // A second.
                put(data, 2, &1_u64.to_be_bytes());
                put(data, 3, &burst.to_be_bytes());
                // `NFT_LIMIT_PKT_BYTES` and `NFT_LIMIT_F_INV`.
                put(data, 4, &1_u32.to_be_bytes());
                put(data, 5, &1_u32.to_be_bytes());
            }),
            Self::Verdict(verdict) => put_expression(list, "immediate", |data| {
                // `NFT_REG_VERDICT`.
                put(data, 1, &0_u32.to_be_bytes());
                put_nested(data, 2, |data| put_nested(data, 2, |inner| put_verdict(inner, verdict)));
            }),
        }
    }
}

fn put_verdict(data: &mut Vec<u8>, verdict: Verdict<'_>) {
    match verdict {
        // `NF_DROP`.
        Verdict::Drop => put(data, 1, &0_u32.to_be_bytes()),
        // `NFT_JUMP`.
        Verdict::Jump(chain) => {
            put(data, 1, &(-3_i32).to_be_bytes());
            put(data, 2, &super::text(chain));
        }
    }
}

fn put_meta(list: &mut Vec<u8>, key: u32) {
    put_expression(list, "meta", |data| {
        put(data, 1, &REGISTER.to_be_bytes());
        put(data, 2, &key.to_be_bytes());
    });
}

/// A number in the register.
fn put_number(list: &mut Vec<u8>, value: u32) {
    put_expression(list, "immediate", |data| {
        put(data, 1, &REGISTER.to_be_bytes());
        put_nested(data, 2, |inner| put(inner, 1, &value.to_ne_bytes()));
    });
}

/// The connection gets what is in the register.
fn put_connection_mark(list: &mut Vec<u8>) {
    put_expression(list, "ct", |data| {
        put(data, 2, &CONNECTION_MARK.to_be_bytes());
        put(data, 4, &REGISTER.to_be_bytes());
    });
}

/// Of what is in the register these bits, which are compared.
fn put_bits(list: &mut Vec<u8>, Bits { mask, value, is_equal }: Bits) {
    put_expression(list, "bitwise", |data| {
        put(data, 1, &REGISTER.to_be_bytes());
        put(data, 2, &REGISTER.to_be_bytes());
        put(data, 3, &4_u32.to_be_bytes());
        put_nested(data, 4, |inner| put(inner, 1, &mask.to_ne_bytes()));
        put_nested(data, 5, |inner| put(inner, 1, &0_u32.to_ne_bytes()));
    });
    put_comparison(list, is_equal, &value.to_ne_bytes());
}

fn put_comparison(list: &mut Vec<u8>, is_equal: bool, value: &[u8]) {
    put_expression(list, "cmp", |data| {
        put(data, 1, &REGISTER.to_be_bytes());
        put(data, 2, &u32::from(!is_equal).to_be_bytes());
        put_nested(data, 3, |inner| put(inner, 1, value));
    });
}

fn put_expression(list: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
    put_nested(list, ELEMENT, |element| {
        put(element, NAME, &super::text(name));
        put_nested(element, DATA, fill);
    });
}

/// Bytes and packets, where this is a counter.
pub(super) fn counter(expression: &[u8]) -> Option<(u64, u64)> {
    let part = |wanted| attributes(expression).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if part(NAME)? != b"counter\0" {
        return None;
    }
    let number = |wanted| {
        let (_, value) = attributes(part(DATA)?).find(|(kind, _)| *kind == wanted)?;
        value.first_chunk().map(|&bytes| u64::from_be_bytes(bytes))
    };
    Some((number(1)?, number(2)?))
}
