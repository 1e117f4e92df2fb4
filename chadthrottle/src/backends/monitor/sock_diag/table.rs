//! The sockets seen so far, whose they are, and what each owner has sent and received. Pure: no clock, no I/O.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::socket::{Counters, Socket};
use crate::{process::ProcessId, stats::Traffic};

/// After so many searches without a result nobody has the socket that we may know of. The second one is for a socket
/// that was on its way from one process to another during the first.
const SEARCHES: u8 = 2;
/// For how many readings a socket is remembered that is in none of them. It may come back as a note of its end: one
/// that both sides have closed is not listed, but has not ended while its process has it open.
const ABSENCES: u32 = 10;

/// Every socket, and the sums.
#[derive(Debug, Default)]
pub(super) struct Table {
    sockets: HashMap<u64, Entry>,
    /// Number of the current reading.
    reading: u32,
    /// By owner.
    pub(super) totals: HashMap<ProcessId, Traffic>,
    /// Of sockets whose process is not known.
    pub(super) unattributed: Traffic,
}

#[derive(Debug)]
struct Entry {
    counters: Counters,
    inode: u32,
    owner: Owner,
    /// The reading that it was last in.
    reading: u32,
}

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// To be found. What it counts meanwhile is held back, so that no byte is shown as nobody's first and as
    /// somebody's later.
    Sought { searches: u8, held: Traffic },
    /// This process's.
    Process(ProcessId),
    /// Not to be found.
    Unknown,
}

const SOUGHT: Owner = Owner::Sought { searches: 0, held: Traffic { upload: 0, download: 0 } };

/// Where a socket begins to count that was not there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// At what it has counted already: it was open before us.
    Now,
    /// At zero: it was opened since the last reading.
    Zero,
}

impl Table {
    /// Starts a reading of all sockets.
    pub(super) fn begin(&mut self) {
        self.reading = self.reading.wrapping_add(1);
    }

    /// Takes in one socket of this reading. `may_be_found` tells whether it is of any use to look for its owner,
    /// `has_ended` whether a process is known to have ended before this reading began.
    pub(super) fn read(
        &mut self,
        socket: &Socket,
        beginning: Beginning,
        may_be_found: bool,
        has_ended: impl Fn(ProcessId) -> bool,
    ) {
        let reading = self.reading;
        let entry = self.sockets.entry(socket.cookie).or_insert_with(|| Entry {
            counters: match beginning {
                Beginning::Now => socket.counters,
                Beginning::Zero => Counters::default(),
            },
            inode: socket.inode,
            owner: if socket.is_orphan || !may_be_found { Owner::Unknown } else { SOUGHT },
            reading,
        });
        let traffic = socket.counters.since(entry.counters);
        (entry.counters, entry.inode, entry.reading) = (socket.counters, socket.inode, reading);
        if let Owner::Process(id) = entry.owner
            && socket.inode != 0
            && has_ended(id)
        {
            // It was handed on, to a child for instance.
            entry.owner = SOUGHT;
        }
        match &mut entry.owner {
            Owner::Sought { held, .. } => add(held, traffic),
            Owner::Process(id) => credit(&mut self.totals, *id, traffic),
            Owner::Unknown => add(&mut self.unattributed, traffic),
        }
    }

    /// Ends a reading: forgets sockets that have not been seen for long.
    pub(super) fn end(&mut self) {
        let reading = self.reading;
        let mut lost = Traffic::default();
        self.sockets.retain(|_, entry| {
            let is_kept = reading.wrapping_sub(entry.reading) <= ABSENCES;
            if let (false, Owner::Sought { held, .. }) = (is_kept, entry.owner) {
                add(&mut lost, held);
            }
            is_kept
        });
        add(&mut self.unattributed, lost);
    }

    /// Takes in the last counters of a socket that has ended. `since_reading` is the time since the last reading began.
    pub(super) fn ended(&mut self, socket: &Socket, since_reading: Duration) {
        match self.sockets.remove(&socket.cookie) {
            Some(entry) => {
                let traffic = socket.counters.since(entry.counters);
                match entry.owner {
                    Owner::Process(id) => credit(&mut self.totals, id, traffic),
                    Owner::Sought { held, .. } => {
                        add(&mut self.unattributed, held);
                        add(&mut self.unattributed, traffic);
                    }
                    Owner::Unknown => add(&mut self.unattributed, traffic),
                }
            }
            // Opened since the last reading and gone already, so no process can be found any more; or one that was
            // open, but in no reading, because it had been cut off before the first. That one has been quiet since.
            None if socket.counters.quiet <= since_reading => {
                add(&mut self.unattributed, socket.counters.since(Counters::default()));
            }
            None => {}
        }
    }

    /// The inodes whose process is to be found.
    pub(super) fn sought(&self) -> HashSet<u32> {
        let current = self.sockets.values().filter(|entry| entry.is_sought(self.reading));
        current.map(|entry| entry.inode).collect()
    }

    /// Takes in the result of a search for all that was sought.
    pub(super) fn found(&mut self, owners: &HashMap<u32, ProcessId>) {
        for entry in self.sockets.values_mut() {
            if !entry.is_sought(self.reading) {
                continue;
            }
            let Owner::Sought { searches, held } = &mut entry.owner else { continue };
            if let Some(&id) = owners.get(&entry.inode) {
                credit(&mut self.totals, id, *held);
                entry.owner = Owner::Process(id);
            } else {
                *searches += 1;
                if *searches >= SEARCHES {
                    add(&mut self.unattributed, *held);
                    entry.owner = Owner::Unknown;
                }
            }
        }
    }

    /// Whether this process has a socket.
    pub(super) fn is_owner(&self, id: ProcessId) -> bool {
        self.sockets.values().any(|entry| entry.owner == Owner::Process(id))
    }
}

impl Entry {
    /// Whether somebody may have it open who is not known yet. One that waits to be accepted has no inode.
    const fn is_sought(&self, reading: u32) -> bool {
        self.reading == reading && self.inode != 0 && matches!(self.owner, Owner::Sought { .. })
    }
}

fn credit(totals: &mut HashMap<ProcessId, Traffic>, id: ProcessId, traffic: Traffic) {
    // A process is listed from its first byte on.
    if traffic != Traffic::default() {
        add(totals.entry(id).or_default(), traffic);
    }
}

const fn add(sum: &mut Traffic, traffic: Traffic) {
    sum.upload = sum.upload.saturating_add(traffic.upload);
    sum.download = sum.download.saturating_add(traffic.download);
}

#[cfg(test)]
mod tests {
    use super::{super::socket::tests::counters, *};

    const ALICE: ProcessId = ProcessId { pid: 10, start_time: 1 };
    const BOB: ProcessId = ProcessId { pid: 11, start_time: 2 };
    const INODE: u32 = 500;

    /// A socket that has sent so much payload, in no segment, so that sums are easy to follow.
    fn socket(sent: u64) -> Socket {
        let counters = counters(sent, 0, 0);
        Socket { cookie: 1, inode: INODE, uid: 1000, is_loopback: false, is_orphan: false, counters }
    }

    fn upload(bytes: u64) -> Traffic {
        Traffic { upload: bytes, download: 0 }
    }

    /// One reading with these sockets, of processes that run.
    fn reading(table: &mut Table, beginning: Beginning, sockets: &[Socket]) {
        table.begin();
        for socket in sockets {
            table.read(socket, beginning, true, |_| false);
        }
        table.end();
    }

    /// A table in which ALICE has the socket, which had sent 1000 bytes before.
    fn alices() -> Table {
        let mut table = Table::default();
        reading(&mut table, Beginning::Now, &[socket(1000)]);
        assert_eq!(table.sought(), [INODE].into());
        table.found(&[(INODE, ALICE)].into());
        assert!(table.sought().is_empty() && table.is_owner(ALICE));
        table
    }

    #[test]
    fn what_was_sent_before_does_not_count_and_a_new_connection_counts_whole() {
        let mut table = alices();
        assert!(table.totals.is_empty());
        let new = Socket { cookie: 2, inode: 501, ..socket(70) };
        reading(&mut table, Beginning::Zero, &[socket(1500), new]);
        table.found(&[(501, BOB)].into());
        assert_eq!(table.totals, [(ALICE, upload(500)), (BOB, upload(70))].into());
    }

    #[test]
    fn what_comes_after_the_last_reading_is_in_the_note_of_the_end() {
        let mut table = alices();
        // Closed by its process, it has no inode, but what is in its queue is still being sent.
        reading(&mut table, Beginning::Zero, &[Socket { inode: 0, is_orphan: true, ..socket(1200) }]);
        table.ended(&socket(1300), Duration::from_secs(1));
        assert_eq!(table.totals, [(ALICE, upload(300))].into());
        assert!(!table.is_owner(ALICE));
    }

    #[test]
    fn bytes_are_held_back_until_the_owner_is_known_and_nobodys_when_there_is_none() {
        let mut table = Table::default();
        // Waiting to be accepted.
        reading(&mut table, Beginning::Zero, &[Socket { inode: 0, ..socket(10) }]);
        assert!(table.sought().is_empty());
        for sent in [20, 30] {
            reading(&mut table, Beginning::Zero, &[socket(sent)]);
            assert_eq!(table.unattributed, upload(0));
            table.found(&HashMap::new());
        }
        assert_eq!(table.unattributed, upload(30));
        assert!(table.sought().is_empty(), "it is not looked for for ever");
        table.ended(&socket(40), Duration::from_secs(1));
        assert_eq!((table.unattributed, table.totals.len()), (upload(40), 0));
    }

    #[test]
    fn nobody_is_looked_for_where_nobody_can_be_found() {
        let mut table = Table::default();
        table.begin();
        table.read(&socket(10), Beginning::Zero, false, |_| false);
        let orphan = Socket { cookie: 2, inode: 0, is_orphan: true, ..socket(5) };
        table.read(&orphan, Beginning::Zero, true, |_| false);
        table.end();
        assert!(table.sought().is_empty());
        assert_eq!(table.unattributed, upload(15));
    }

    #[test]
    fn a_socket_that_outlives_its_owner_is_another_processs() {
        let mut table = alices();
        table.begin();
        table.read(&socket(1100), Beginning::Zero, true, |id| id == ALICE);
        table.end();
        table.found(&[(INODE, BOB)].into());
        reading(&mut table, Beginning::Zero, &[socket(1150)]);
        assert_eq!(table.totals, [(BOB, upload(150))].into());
    }

    #[test]
    fn a_short_connection_counts_for_nobody_and_an_old_one_that_ends_does_not_count() {
        let mut table = Table::default();
        reading(&mut table, Beginning::Now, &[]);
        let quiet = |seconds| {
            let mut socket = socket(50);
            socket.counters.quiet = Duration::from_secs(seconds);
            socket
        };
        table.ended(&quiet(0), Duration::from_secs(1));
        assert_eq!(table.unattributed, upload(50));
        table.ended(&quiet(2), Duration::from_secs(1));
        assert_eq!(table.unattributed, upload(50));
    }

    #[test]
    fn a_socket_that_is_not_listed_any_more_is_forgotten_in_the_end() {
        let mut table = alices();
        let seeking = Socket { cookie: 2, inode: 501, ..socket(7) };
        reading(&mut table, Beginning::Zero, &[seeking]);
        for _ in 0..=ABSENCES {
            assert!(!table.sockets.is_empty());
            reading(&mut table, Beginning::Zero, &[]);
        }
        assert!(table.sockets.is_empty());
        assert_eq!(table.unattributed, upload(7), "no byte is dropped from the sums");
    }
}
