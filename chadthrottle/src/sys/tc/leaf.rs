//! What the class of a queue does with packets that wait.

use nix::libc;

use super::{Handle, header, htb::rate_specification};
use crate::sys::netlink::{Netlink, Refusal, put, put_nested};

/// `TCA_TBF_PARMS`, `_RATE64` and `_BURST` (`include/uapi/linux/pkt_sched.h`).
const TBF_PARAMETERS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// A petabit a second: no packet takes a nanosecond of it, so that the token bucket never keeps one back.
const ENDLESS: u64 = 1 << 47;

/// What a leaf does with packets that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// They wait in order, as many bytes of them as fit.
    Fifo {
        /// Most bytes that wait.
        bytes: u32,
    },
    /// The same, and a super-packet comes apart, so that it leaves packet by packet: a token bucket does that to all that is
    /// longer than its burst (`tbf_segment`, `net/sched/sch_tbf.c`). The bucket itself holds nothing back.
    Segments {
        /// The longest that stays whole, with the link's header.
        longest: u32,
        /// Most bytes that wait.
        bytes: u32,
    },
    /// Flows take turns, and are told of congestion where packets wait for longer than `delay`.
    FairQueue {
        /// In microseconds.
        delay: u32,
        /// Most memory that waits, in bytes (`TCA_FQ_CODEL_MEMORY_LIMIT`).
        bytes: u32,
    },
    /// They are dropped.
    Blackhole,
}

/// Chooses what a class does with packets that wait; one of the same kind goes on with what stands in it.
///
/// # Errors
/// Why the kernel does not: `ENOENT` where it does not have that kind.
pub fn set_leaf(netlink: &mut Netlink, interface: u32, class: Handle, leaf: Leaf) -> Result<(), Refusal> {
    let mut body = header(interface, Handle(0), class.0);
    let kind: &[u8] = match leaf {
        Leaf::Fifo { .. } => b"bfifo\0",
        Leaf::Segments { .. } => b"tbf\0",
        Leaf::FairQueue { .. } => b"fq_codel\0",
        Leaf::Blackhole => b"blackhole\0",
    };
    put(&mut body, libc::TCA_KIND, kind);
    match leaf {
        // `struct tc_fifo_qopt`.
        Leaf::Fifo { bytes } => put(&mut body, libc::TCA_OPTIONS, &bytes.to_ne_bytes()),
        Leaf::Segments { longest, bytes } => put_nested(&mut body, libc::TCA_OPTIONS, |options| {
            // `struct tc_tbf_qopt`: rate, no peak rate, limit, and buffer and mtu, which the burst replaces.
            let mut parameters = rate_specification(ENDLESS).to_vec();
            parameters.extend([0; 12]);
            parameters.extend([bytes, 0, 0].map(u32::to_ne_bytes).as_flattened());
            put(options, TBF_PARAMETERS, &parameters);
            put(options, TBF_RATE64, &ENDLESS.to_ne_bytes());
            put(options, TBF_BURST, &longest.to_ne_bytes());
        }),
        // `TCA_FQ_CODEL_TARGET`, `_INTERVAL` and `_MEMORY_LIMIT`.
        Leaf::FairQueue { delay, bytes } => put_nested(&mut body, libc::TCA_OPTIONS, |options| {
            put(options, 1, &delay.to_ne_bytes());
            put(options, 3, &delay.saturating_mul(4).to_ne_bytes());
            put(options, 9, &bytes.to_ne_bytes());
        }),
        Leaf::Blackhole => {}
    }
    netlink.change(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
}
