//! The structures in the maps of accounting. All multi-byte fields are in host byte order.

/// A process, told apart from every other one since boot, in one word: a socket's owner changes while other CPUs read
/// it, and half of one owner with half of another would be somebody who does not exist.
///
/// Thread group 0 is no process: those keys are the buckets for what belongs to none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    packed: u64,
}

impl ProcessKey {
    /// Bits of a pid (`PID_MAX_LIMIT`, include/linux/threads.h: 4 Mi). The rest counts ticks for a thousand years.
    const PID_BITS: u32 = 22;
    const PID_MASK: u64 = (1 << Self::PID_BITS) - 1;

    /// Nobody.
    pub const NONE: Self = Self::new(0, 0);
    /// The kernel's own sockets: in-kernel tunnels, network file systems.
    pub const KERNEL: Self = Self::new(0, 1);
    /// What the kernel answers by itself, without a socket that could be somebody's: RST, ICMP, TIME-WAIT.
    pub const REPLIES: Self = Self::new(0, 2);
    /// What passes through this network namespace from one interface to another.
    pub const FORWARDED: Self = Self::new(0, 3);
    /// Sockets that must be somebody's, but nobody knows whose.
    pub const UNKNOWN: Self = Self::new(0, 4);

    /// The process with this thread-group id, in the initial PID namespace, whose leader started `start_time` clock
    /// ticks after boot (field 22 of /proc/PID/stat).
    #[inline(always)]
    #[must_use]
    pub const fn new(tgid: u32, start_time: u64) -> Self {
        Self { packed: start_time << Self::PID_BITS | (tgid as u64 & Self::PID_MASK) }
    }

    /// Thread-group id, in the initial PID namespace.
    #[inline(always)]
    #[must_use]
    pub const fn tgid(self) -> u32 {
        (self.packed & Self::PID_MASK) as u32
    }

    /// Start of the thread-group leader, in clock ticks since boot.
    #[inline(always)]
    #[must_use]
    pub const fn start_time(self) -> u64 {
        self.packed >> Self::PID_BITS
    }

    /// Whether this is a process, and no bucket.
    #[inline(always)]
    #[must_use]
    pub const fn is_process(self) -> bool {
        self.packed & Self::PID_MASK != 0
    }
}

/// The owner of a socket, in the socket's own storage, and what is remembered for it. What every packet needs is in
/// front.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOwner {
    /// Whose it is: whoever used it last.
    pub process: ProcessKey,
    /// Not 0: it is TCP's.
    pub is_stream: u32,
    /// Not 0: nobody has used the socket yet. It was accepted for the process that listens, and that may hand it to
    /// another one, as servers do that fork workers.
    pub is_presumed: u32,
    /// Not 0: it is in another network namespace than the monitor, where interfaces have other numbers.
    pub is_elsewhere: u32,
    /// Where its peer is: a `SCOPE_…` in the two lowest bits, and above them the generation of prefixes that this was
    /// found by. 0: not looked at yet.
    pub peer_scope: u32,
    /// Where its traffic was counted last: a slot in the table of counters, or 0.
    pub slot: u32,
    /// The generation of slots at that time: no slot that was somebody's then was anybody else's until it changed.
    pub slot_generation: u32,
    /// Whose slot it is.
    pub slot_key: TrafficKey,
    /// Who wrote to the stream last, up to `written_seq`; nobody so far where it is `NONE`.
    pub writer: ProcessKey,
    /// Who wrote before, up to `handover_seq`: what it wrote may still stand in the queue.
    pub previous_writer: ProcessKey,
    /// TCP sequence number after the last byte that a finished call has written.
    pub written_seq: u32,
    /// TCP sequence number after the last byte of `previous_writer`.
    pub handover_seq: u32,
    /// The interface that the held traffic was seen on.
    pub held_ifindex: u32,
    /// The target that its packets are limited with; 0 where they are not.
    pub target: u32,
    /// When that was found out: it is to be found out again when memberships have changed since.
    pub target_generation: u64,
    /// Until when it is also limited with `shared_target` (`CLOCK_MONOTONIC`, nanoseconds).
    pub shared_until_ns: u64,
    /// The target of who used the socket before: two who take turns share it.
    pub shared_target: u32,
    #[doc(hidden)]
    pub _padding: u32,
    /// Traffic that waits until the socket is used: its owner is only presumed.
    pub held: TrafficCounters,
}

/// What the kernel knows of a process that has opened a socket: all that is left to name it by, once it has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessRecord {
    /// Command name, padded with zero bytes (`TASK_COMM_LEN`, include/linux/sched.h).
    pub comm: [u8; 16],
    /// Id of the cgroup that it was in, which is its directory's inode number.
    pub cgroup_id: u64,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// Counts the times that it was renamed or executed another program.
    pub changes: u32,
    /// Not 0: it has ended.
    pub has_ended: u32,
    #[doc(hidden)]
    pub _padding: u32,
}

/// Longest path of a program that is kept, with the zero byte at its end. Longer ones are cut off.
pub const PROGRAM_PATH_LEN: usize = 256;

/// The path of the program that a process executes, as it was given, up to the first zero byte.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramPath {
    /// In the file system's encoding, whatever that is.
    pub bytes: [u8; PROGRAM_PATH_LEN],
}

/// What is counted apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrafficKey {
    /// Whose it is, or which bucket's.
    pub owner: ProcessKey,
    /// Index of the interface in the monitor's network namespace; 0 for traffic of other namespaces.
    pub ifindex: u32,
    /// One of the `SCOPE_…` constants.
    pub scope: u32,
}

/// Slots of the table of counters. Keys beyond that are counted in a table that costs more to look into.
pub const SLOTS: u32 = 4096;

/// What was sent and received. As long as a cache line: no two CPUs write to the same one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounters {
    /// What left.
    pub upload: FlowCounters,
    /// What arrived.
    pub download: FlowCounters,
}

/// One direction. A super-packet stands for several packets on the wire and has their headers once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// IP bytes as they travel.
    pub bytes: u64,
    /// Packets as the kernel handled them, a super-packet as one.
    pub packets: u64,
    /// Packets on the wire beyond those.
    pub merged_packets: u64,
    /// IP bytes of `bytes` that super-packets did not have: the headers of those packets.
    pub merged_bytes: u64,
}

/// An interface of the monitor's network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Bytes of the link layer's header, in front of the IP header.
    pub link_header_len: u32,
    /// Not 0: it is among those that were chosen.
    pub is_chosen: u32,
    /// Not 0: its queue keeps a packet until the time that stands in the packet (`fq`); of packets that are longer than
    /// this, in bytes, it sees fragments.
    pub longest_kept: u32,
}

assert_layout!(ProcessKey, 8, { packed: u64 => 0 });
assert_layout!(ProcessRecord, 40, {
    comm: [u8; 16] => 0, cgroup_id: u64 => 16, uid: u32 => 24, changes: u32 => 28, has_ended: u32 => 32,
    _padding: u32 => 36,
});
assert_layout!(ProgramPath, 256, { bytes: [u8; 256] => 0 });
assert_layout!(TrafficKey, 16, { owner: ProcessKey => 0, ifindex: u32 => 8, scope: u32 => 12 });
assert_layout!(TrafficCounters, 64, { upload: FlowCounters => 0, download: FlowCounters => 32 });
assert_layout!(FlowCounters, 32, {
    bytes: u64 => 0, packets: u64 => 8, merged_packets: u64 => 16, merged_bytes: u64 => 24,
});
assert_layout!(SocketOwner, 168, {
    process: ProcessKey => 0, is_stream: u32 => 8, is_presumed: u32 => 12, is_elsewhere: u32 => 16, peer_scope: u32 => 20,
    slot: u32 => 24, slot_generation: u32 => 28, slot_key: TrafficKey => 32, writer: ProcessKey => 48,
    previous_writer: ProcessKey => 56, written_seq: u32 => 64, handover_seq: u32 => 68, held_ifindex: u32 => 72,
    target: u32 => 76, target_generation: u64 => 80, shared_until_ns: u64 => 88, shared_target: u32 => 96,
    _padding: u32 => 100, held: TrafficCounters => 104,
});
assert_layout!(Interface, 12, { link_header_len: u32 => 0, is_chosen: u32 => 4, longest_kept: u32 => 8 });

#[cfg(feature = "userspace")]
pod!(
    ProcessKey,
    ProcessRecord,
    ProgramPath,
    TrafficKey,
    TrafficCounters,
    FlowCounters,
    SocketOwner,
    Interface
);
