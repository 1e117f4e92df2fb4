//! What becomes of what the kernel's tables say.

use chadthrottle_common::{FlowCounters, SCOPE_INTERNET};

use super::*;

fn key(pid: u32) -> ProcessKey {
    ProcessKey::new(pid, 7)
}

fn sent(owner: ProcessKey, ifindex: u32, scope: u32, bytes: u64) -> (TrafficKey, TrafficCounters) {
    let upload = FlowCounters { bytes, packets: 1, ..FlowCounters::default() };
    (TrafficKey { owner, ifindex, scope }, TrafficCounters { upload, ..TrafficCounters::default() })
}

fn record(changes: u32, has_ended: bool) -> ProcessRecord {
    ProcessRecord { changes, has_ended: has_ended.into(), ..ProcessRecord::default() }
}

/// A host without /proc: what is known of a process is what was noted.
fn take_in(
    ledger: &mut Ledger,
    records: &[(ProcessKey, ProcessRecord)],
    traffic: Vec<(TrafficKey, TrafficCounters)>,
) -> Finished {
    ledger.take_in(records, traffic, |id, _, record| {
        let name = record.map_or_else(|| "?".into(), |record| format!("name {}", record.changes));
        Err(Box::new(ProcessInfo { id, name, exe: None, user: None, cgroup: None, container: None }))
    })
}

fn total(ledger: &Ledger, pid: u32) -> Option<(Traffic, bool)> {
    let processes = ledger.processes(&Books::default());
    let known = processes.get(&ebpf::process(key(pid)))?;
    Some((known.total, known.alive))
}

const fn upload(upload: u64) -> Traffic {
    Traffic { upload, download: 0 }
}

#[test]
fn a_process_is_retired_when_it_has_ended_and_its_counters_stand_still() {
    let mut ledger = Ledger::default();
    let traffic = |bytes| vec![sent(key(9), 2, SCOPE_LOCAL, bytes), sent(key(9), 3, SCOPE_INTERNET, 5)];
    assert!(take_in(&mut ledger, &[(key(9), record(0, false))], traffic(10)).traffic.is_empty());
    assert_eq!(total(&ledger, 9), Some((upload(15), true)));
    // What stood in its queue leaves after its end.
    assert!(take_in(&mut ledger, &[(key(9), record(0, true))], traffic(20)).traffic.is_empty());
    assert_eq!(total(&ledger, 9), Some((upload(25), false)));
    let finished = take_in(&mut ledger, &[(key(9), record(0, true))], traffic(20));
    assert_eq!((finished.traffic.len(), finished.processes), (2, vec![key(9)]));
    // The kernel has forgotten it; we have not, and the interfaces' sums stay.
    take_in(&mut ledger, &[], vec![]);
    assert_eq!(total(&ledger, 9), Some((upload(25), false)));
    let on_interfaces: u64 = ledger.by_interface.values().map(|all| all.all().upload.bytes).sum();
    assert_eq!(on_interfaces, 25);
    // A packet that comes later still is added.
    take_in(&mut ledger, &[], vec![sent(key(9), 2, SCOPE_LOCAL, 1)]);
    assert_eq!(total(&ledger, 9), Some((upload(26), false)));
}

#[test]
fn local_traffic_is_told_from_the_rest() {
    let mut ledger = Ledger::default();
    let traffic = vec![sent(key(9), 2, SCOPE_LOCAL, 10), sent(key(9), 2, SCOPE_INTERNET, 5)];
    take_in(&mut ledger, &[(key(9), record(0, false))], traffic);
    let processes = ledger.processes(&Books::default());
    assert_eq!(processes[&ebpf::process(key(9))].local, Some(upload(10)));
}

#[test]
fn a_name_follows_the_record_and_waits_for_one() {
    let mut ledger = Ledger::default();
    let name = |ledger: &Ledger| {
        let processes = ledger.processes(&Books::default());
        processes[&ebpf::process(key(1))].info.name.clone()
    };
    let traffic = || vec![sent(key(1), 2, SCOPE_LOCAL, 10)];
    // Its record was made after the records had been read. (It is alive: process 1 with this start time is nobody.)
    take_in(&mut ledger, &[], traffic());
    assert_eq!(name(&ledger), "?");
    take_in(&mut ledger, &[(key(1), record(3, false))], traffic());
    assert_eq!(name(&ledger), "name 3");
}

#[test]
fn who_opened_a_socket_and_never_used_it_is_forgotten_at_the_second_look() {
    let mut ledger = Ledger::default();
    let records = [(key(9), record(0, true)), (key(8), record(0, false))];
    assert!(take_in(&mut ledger, &records, vec![]).processes.is_empty());
    assert_eq!(take_in(&mut ledger, &records, vec![]).processes, [key(9)]);
}

#[test]
fn of_too_many_that_have_ended_the_oldest_are_added_up() {
    let mut ledger = Ledger::default();
    let most = u32::try_from(MOST_ENDED).expect("a small number");
    let pids = 1..most + 11;
    let records: Vec<_> = pids.clone().map(|pid| (key(pid), record(0, true))).collect();
    let traffic = pids.map(|pid| sent(key(pid), 2, SCOPE_INTERNET, 100)).collect();
    take_in(&mut ledger, &records, traffic);
    assert_eq!(ledger.processes(&Books::default()).len(), MOST_ENDED);
    assert_eq!(ledger.buckets().ended, upload(1000));
    assert_eq!(ledger.buckets().unattributed(), upload(1000));
}

#[test]
fn buckets_are_no_processes() {
    let mut ledger = Ledger::default();
    let traffic = [ProcessKey::KERNEL, ProcessKey::REPLIES, ProcessKey::UNKNOWN, ProcessKey::FORWARDED]
        .into_iter()
        .zip([1, 2, 4, 8])
        .map(|(owner, bytes)| sent(owner, 2, SCOPE_INTERNET, bytes));
    take_in(&mut ledger, &[], traffic.collect());
    let buckets = ledger.buckets();
    assert_eq!((buckets.kernel, buckets.replies, buckets.unknown), (upload(1), upload(2), upload(4)));
    // What is only passed on is not this host's own.
    assert_eq!((buckets.forwarded, buckets.unattributed()), (upload(8), upload(7)));
    assert!(ledger.processes(&Books::default()).is_empty());
}
