//! What an HTB queue and its classes are told (`net/sched/sch_htb.c`).

use super::word;
use crate::sys::netlink::{attributes, put};

/// `TCA_HTB_…` (`include/uapi/linux/pkt_sched.h`).
const PARAMETERS: u16 = 1;
const INIT: u16 = 2;
const DIRECT_QUEUE: u16 = 5;
const RATE64: u16 = 6;
const CEIL64: u16 = 7;
/// `HTB_VER >> 16`: what the kernel takes (`htb_init`).
const VERSION: u32 = 3;
/// `TC_LINKLAYER_ETHERNET`: with it the kernel wants no table of times (`htb_change_class`).
const ETHERNET: u8 = 1;
/// A tick is 64 ns (`PSCHED_SHIFT`).
const TICK_NS: u64 = 64;
/// So many of the lowest bits of each of the two bursts of a class are a half of its signature: 0.26 ms of its rate at most.
const SIGNED_BITS: u32 = 12;
const SIGNED: u32 = (1 << SIGNED_BITS) - 1;
/// `TCA_HTB_OFFLOAD`.
const OFFLOAD: u16 = 9;

/// The queue of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HtbRoot {
    /// Most packets that wait of what no class is for. They are not limited: they wait for the device alone.
    pub direct_queue: u32,
    /// By what its maker knows it again, not 0 and of 31 bits. The kernel keeps it as `rate2quantum`, which it uses only for
    /// classes that do not say a quantum (`htb_change_class`); each of ours does.
    pub signature: u32,
}

/// An HTB queue that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HtbFound {
    /// By what its maker knows it again: see [`HtbRoot::signature`].
    pub signature: u32,
    /// The lower half of the number of the class for what no filter has one for; it need not be there.
    pub default_class: u32,
    /// Whether the device does its work.
    pub is_offloaded: bool,
}

/// A class that has a rate of its own and borrows from none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HtbClass {
    /// In bytes a second, with the link's header for each packet. At least 1.
    pub rate: u64,
    /// What may leave at once after a pause, in bytes.
    pub burst: u32,
    /// Most that leaves before another class of the interface has its turn, in bytes.
    pub quantum: u32,
}

impl HtbRoot {
    /// Appends its attributes.
    pub(super) fn put(self, options: &mut Vec<u8>) {
        // `struct tc_htb_glob`: version, rate2quantum, defcls, debug, direct_pkts. No class is the default one, so that
        // what has none passes (`htb_classify`).
        let init = [VERSION, self.signature, 0, 0, 0].map(u32::to_ne_bytes);
        put(options, INIT, init.as_flattened());
        put(options, DIRECT_QUEUE, &self.direct_queue.to_ne_bytes());
    }
}

/// An HTB queue, from its options.
pub(super) fn found(options: &[u8]) -> Option<HtbFound> {
    let (_, init) = attributes(options).find(|(kind, _)| *kind == INIT)?;
    let is_offloaded = attributes(options).any(|(kind, _)| kind == OFFLOAD);
    Some(HtbFound { signature: word(init, 4)?, default_class: word(init, 8)?, is_offloaded })
}

/// What may be the [signature](super::Class::signature) of a class, from its options.
pub(super) fn class_signature(options: &[u8]) -> Option<u32> {
    let (_, parameters) = attributes(options).find(|(kind, _)| *kind == PARAMETERS)?;
    // After the two rates: buffer and cbuffer.
    Some(word(parameters, 24)? & SIGNED | (word(parameters, 28)? & SIGNED) << SIGNED_BITS)
}

/// A time in ticks, or a little more, that ends in the lowest bits of `part`.
const fn signed(ticks: u32, part: u32) -> u32 {
    let signed = ticks & !SIGNED | part & SIGNED;
    if signed >= ticks {
        return signed;
    }
    match signed.checked_add(SIGNED + 1) {
        Some(longer) => longer,
        None => signed,
    }
}

impl HtbClass {
    /// Appends its attributes, with the lowest 24 bits of a signature.
    pub(super) fn put(self, signature: u32, options: &mut Vec<u8>) {
        let rate = self.rate.max(1);
        // `struct tc_htb_opt`: rate and ceil, buffer and cbuffer, quantum, level, prio.
        let mut parameters = Vec::with_capacity(44);
        for _ in 0..2 {
            parameters.extend(rate_specification(rate));
        }
        let buffer = self.buffer();
        let bursts = [signed(buffer, signature), signed(buffer, signature >> SIGNED_BITS)];
        for word in bursts.into_iter().chain([self.quantum, 0, 0]) {
            parameters.extend(word.to_ne_bytes());
        }
        put(options, PARAMETERS, &parameters);
        if u32::try_from(rate).is_err() {
            put(options, RATE64, &rate.to_ne_bytes());
            put(options, CEIL64, &rate.to_ne_bytes());
        }
    }

    /// The burst as the time that it takes, in ticks.
    fn buffer(self) -> u32 {
        let nanoseconds = u128::from(self.burst) * 1_000_000_000 / u128::from(self.rate.max(1));
        u32::try_from(nanoseconds.div_ceil(u128::from(TICK_NS))).unwrap_or(u32::MAX).max(1)
    }
}

/// `struct tc_ratespec`: `cell_log`, `linklayer`, overhead, `cell_align`, mpu, rate.
pub(super) fn rate_specification(rate: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[1] = ETHERNET;
    bytes[8..].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_known_again() {
        let mut options = Vec::new();
        HtbRoot { direct_queue: 1000, signature: 0x4567_89ab }.put(&mut options);
        let expected = HtbFound { signature: 0x4567_89ab, default_class: 0, is_offloaded: false };
        assert_eq!(found(&options), Some(expected));
        assert_eq!(found(&options[..6]), None);
        put(&mut options, OFFLOAD, &[]);
        assert_eq!(found(&options), Some(HtbFound { is_offloaded: true, ..expected }));
    }

    #[test]
    fn a_class_carries_a_signature_and_hardly_more_burst_for_it() {
        for rate in [1, 64_000, 1_000_000, 12_500_000_000] {
            let class = HtbClass { rate, burst: 1_000_000, quantum: 1514 };
            for signature in [0, 1, 0x4567_89ab, u32::MAX] {
                let mut options = Vec::new();
                class.put(signature, &mut options);
                assert_eq!(class_signature(&options), Some(signature & 0x00ff_ffff));
            }
        }
        assert_eq!((signed(0x5000, 0xabc), signed(0x5abd, 0xabc)), (0x5abc, 0x6abc));
        assert_eq!(signed(u32::MAX, 1), 0xffff_f001);
        assert_eq!(class_signature(&[]), None);
    }

    #[test]
    fn a_burst_is_a_time() {
        let class = |rate, burst| HtbClass { rate, burst, quantum: 1514 };
        assert_eq!(class(1_000_000, 6400).buffer(), 100_000);
        assert_eq!(class(1, u32::MAX).buffer(), u32::MAX);
        assert_eq!(class(u64::MAX, 1).buffer(), 1);
    }

    #[test]
    fn fast_classes_have_their_rate_in_64_bits() {
        for (rate, short, is_long) in [(5, 5, false), (5_000_000_000, u32::MAX, true)] {
            let mut options = Vec::new();
            HtbClass { rate, burst: 0, quantum: 0 }.put(0, &mut options);
            let found: Vec<_> = attributes(&options).collect();
            assert_eq!((found[0].0, found[0].1.len()), (PARAMETERS, 44));
            assert_eq!(found[0].1[8..12], short.to_ne_bytes());
            assert_eq!(found.get(1), is_long.then_some(&(RATE64, &rate.to_ne_bytes()[..])));
        }
    }
}
