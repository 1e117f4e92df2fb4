use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::sys::socket_lookup::Protocol;

const ALICE: Holder = Holder { id: ProcessId { pid: 10, start_time: 1 }, fd: 3, inode: 500 };
const BOB: Holder = Holder { id: ProcessId { pid: 11, start_time: 2 }, fd: 4, inode: 501 };

fn flow(port: u16) -> Flow {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Flow { protocol: Protocol::Tcp, local: (address, port), remote: (address, 80) }
}

fn sent(port: u16, bytes: u64) -> Observation {
    Observation { flow: Some(flow(port)), direction: Direction::Upload, bytes, opens: false }
}

fn upload(bytes: u64) -> Traffic {
    Traffic { upload: bytes, download: 0 }
}

/// A ledger in which ALICE has sent 100 bytes from port 1.
fn alices() -> Ledger {
    let mut ledger = Ledger::default();
    assert!(ledger.count(&sent(1, 100)), "it is new");
    assert_eq!(ledger.take_sought(), [flow(1)]);
    ledger.answer(&flow(1), Answer::Process(ALICE));
    ledger
}

#[test]
fn what_passes_before_the_owner_is_known_is_its_own_too() {
    let mut ledger = Ledger::default();
    assert!(ledger.count(&sent(1, 100)));
    assert!(!ledger.count(&sent(1, 20)));
    assert!((ledger.totals.is_empty(), ledger.unattributed) == (true, upload(0)));
    assert_eq!(ledger.take_sought(), [flow(1)]);
    assert!(!ledger.has_sought());
    ledger.answer(&flow(1), Answer::Process(ALICE));
    ledger.count(&Observation { direction: Direction::Download, ..sent(1, 7) });
    assert_eq!(ledger.totals, [(ALICE.id, Traffic { upload: 120, download: 7 })].into());
}

#[test]
fn a_connection_that_begins_anew_may_be_anothers() {
    let mut ledger = alices();
    let opens = Observation { opens: true, ..sent(1, 10) };
    assert!(ledger.count(&opens));
    // Once more, since nobody answered.
    assert!(!ledger.count(&opens));
    assert_eq!(ledger.take_sought(), [flow(1)]);
    ledger.answer(&flow(1), Answer::Process(BOB));
    assert_eq!(ledger.totals, [(ALICE.id, upload(100)), (BOB.id, upload(20))].into());
}

#[test]
fn what_nobody_has_counts_for_nobody_until_somebody_has_it() {
    let mut ledger = Ledger::default();
    ledger.count(&sent(1, 100));
    ledger.take_sought();
    ledger.answer(&flow(1), Answer::Nobody);
    assert_eq!(ledger.unattributed, upload(100));
    // Looked at again in the sweeps 1, 3 and 7.
    let looked: Vec<bool> = (0..8)
        .map(|_| {
            ledger.count(&sent(1, 1));
            ledger.sweep();
            !ledger.take_sought().is_empty()
        })
        .collect();
    assert_eq!(looked, [true, false, true, false, false, false, true, false]);
    ledger.answer(&flow(1), Answer::Nobody);
    assert_eq!(ledger.unattributed, upload(108));
    ledger.answer(&flow(1), Answer::Process(BOB));
    ledger.count(&sent(1, 5));
    assert_eq!((ledger.unattributed, ledger.totals[&BOB.id]), (upload(108), upload(5)));
}

#[test]
fn what_is_not_asked_for_is_not_counted() {
    let mut ledger = Ledger::default();
    ledger.count(&sent(1, 100));
    ledger.answer(&flow(1), Answer::Elsewhere);
    ledger.count(&sent(1, 100));
    assert!(ledger.totals.is_empty());
    assert_eq!(ledger.unattributed, upload(0));
    assert!(ledger.sweep().is_empty());
}

#[test]
fn an_owner_that_has_closed_it_is_replaced_or_stays_the_last_one() {
    let mut ledger = alices();
    assert_eq!(ledger.sweep(), [(flow(1), ALICE)]);
    assert!(ledger.sweep().is_empty(), "nothing has passed since");
    ledger.seek_again(&flow(1));
    ledger.count(&sent(1, 8));
    ledger.answer(&flow(1), Answer::Nobody);
    assert_eq!(ledger.totals[&ALICE.id], upload(108));
    ledger.seek_again(&flow(1));
    ledger.count(&sent(1, 9));
    ledger.answer(&flow(1), Answer::Process(BOB));
    assert_eq!(ledger.totals[&BOB.id], upload(9));
    assert_eq!(ledger.unattributed, upload(0));
}

#[test]
fn flows_are_forgotten_when_they_are_idle_and_never_too_many() {
    let mut ledger = alices();
    for _ in 0..=MOST_IDLE {
        assert_eq!(ledger.flows.len(), 1);
        ledger.sweep();
    }
    ledger.sweep();
    assert!(ledger.flows.is_empty());
    assert_eq!(ledger.totals[&ALICE.id], upload(100), "but not what was counted");
    for port in 0..=u16::MAX {
        ledger.count(&sent(port, 1));
    }
    let other = Observation { flow: Some(Flow { protocol: Protocol::Udp, ..flow(1) }), ..sent(1, 1) };
    assert!(!ledger.count(&other));
    assert_eq!((ledger.flows.len(), ledger.unattributed), (MOST_FLOWS, upload(1)));
}

#[test]
fn what_has_no_ports_counts_for_nobody() {
    let mut ledger = Ledger::default();
    assert!(!ledger.count(&Observation { flow: None, ..sent(1, 84) }));
    assert_eq!(ledger.unattributed, upload(84));
}
