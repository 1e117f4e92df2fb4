//! The structures in the maps of the limiter, and its switches. All multi-byte fields are in host byte order.

/// Limit traffic to and from anywhere.
pub const TRAFFIC_TYPE_ALL: u8 = 0;
/// Limit only traffic whose remote address is on the internet.
pub const TRAFFIC_TYPE_INTERNET: u8 = 1;
/// Limit only traffic whose remote address is local.
pub const TRAFFIC_TYPE_LOCAL: u8 = 2;

/// What leaves the process's host.
pub const DIRECTION_UPLOAD: u32 = 0;
/// What arrives at the process's host.
pub const DIRECTION_DOWNLOAD: u32 = 1;

/// Token bucket state in the form that people know.
///
/// The program in the kernel keeps the same state as one number, a virtual clock (see [`crate::clock`]);
/// [`TokenBucket::from_clock`] translates. A bucket in debt has no tokens and a `last_update_ns` in the future:
/// the instant at which the debt will have been paid.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBucket {
    /// Most tokens that the bucket holds, in bytes.
    pub capacity: u64,
    /// Tokens available now, in bytes.
    pub tokens: u64,
    /// When `tokens` was true, in nanoseconds of `CLOCK_MONOTONIC`.
    pub last_update_ns: u64,
    /// Rate at which tokens come, in bytes a second.
    pub rate_bps: u64,
}

/// What one target may send or receive.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupThrottleConfig {
    /// Inode number of the cgroup that the limit is enforced at: the one the programs are attached to.
    pub cgroup_id: u64,
    /// Thread-group id of the target.
    pub pid: u32,
    /// Which traffic counts: one of the `TRAFFIC_TYPE_…` constants.
    pub traffic_type: u8,
    #[doc(hidden)]
    pub _padding: [u8; 3],
    /// The limit, in IP bytes a second. 0 blocks.
    pub rate_bps: u64,
    /// Most bytes that may pass at once after a pause.
    pub burst_size: u64,
}

/// What became of a target's traffic in one direction, counted where it is limited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleStats {
    /// Packets offered, a super-packet as one.
    pub packets_total: u64,
    /// IP bytes offered, as they travel.
    pub bytes_total: u64,
    /// Packets dropped to hold the limit.
    pub packets_dropped: u64,
    /// IP bytes dropped to hold the limit.
    pub bytes_dropped: u64,
    /// Times that the program ran for this target: once a packet, so that userspace fills it in.
    pub program_calls: u64,
    /// Packets of a member of this target that found no limit for it: always 0, since a packet finds its target by the
    /// limit that is in force.
    pub config_misses: u64,
    /// Cgroup id of the socket whose packet was dropped last.
    pub cgroup_id_seen: u64,
    /// Packets passed with a sign of congestion, instead of being dropped.
    pub packets_marked: u64,
    /// IP bytes of those.
    pub bytes_marked: u64,
    /// Packets that were given a time to leave at, instead of being dropped. They may be marked as well.
    pub packets_delayed: u64,
    /// IP bytes of those.
    pub bytes_delayed: u64,
}

impl ThrottleStats {
    /// Nothing so far.
    pub const NONE: Self = Self {
        packets_total: 0,
        bytes_total: 0,
        packets_dropped: 0,
        bytes_dropped: 0,
        program_calls: 0,
        config_misses: 0,
        cgroup_id_seen: 0,
        packets_marked: 0,
        bytes_marked: 0,
        packets_delayed: 0,
        bytes_delayed: 0,
    };
}

/// The limited targets that a process belongs to, as numbers that userspace chooses, from 1 to [`TARGETS`]` - 1`; 0 is
/// none. It is held by the first of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Of itself alone.
    pub own: u32,
    /// With everything that an ancestor starts, and so with everything that it starts itself.
    pub inherited: u32,
    /// For the program that it executes, and for no longer than that.
    pub by_program: u32,
    #[doc(hidden)]
    pub _padding: u32,
}

impl Membership {
    /// The target that holds it.
    #[inline(always)]
    #[must_use]
    pub const fn target(self) -> u32 {
        if self.own != 0 {
            self.own
        } else if self.inherited != 0 {
            self.inherited
        } else {
            self.by_program
        }
    }

    /// What a child has from it, which begins with its parent's program.
    #[inline(always)]
    #[must_use]
    pub const fn of_child(self) -> Self {
        Self { own: 0, ..self }
    }

    /// Whether it is in this target, held by it or not.
    #[must_use]
    pub const fn is_in(self, target: u32) -> bool {
        self.own == target || self.inherited == target || self.by_program == target
    }
}

/// Targets that there may be at once. 0 is none.
pub const TARGETS: u32 = 4096;

/// Where in the tables of limits the one of a target in one direction is.
#[inline(always)]
#[must_use]
pub const fn limit_index(target: u32, direction: u32) -> u32 {
    target * 2 + direction
}

/// A file, told apart from all others of this host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Inode number.
    pub inode: u64,
    /// The device that its file system is on, as the kernel writes it (`MKDEV`, `include/linux/kdev_t.h`).
    pub device: u32,
    /// What tells it from the file that had this inode number before (`i_generation`, include/linux/fs.h); 0 is any, for
    /// file systems that do not tell, and for directories.
    pub generation: u32,
}

/// Where a program is found, whichever file that is by now: a name in a directory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramPlace {
    /// The directory.
    pub directory: FileId,
    /// The name, padded with zero bytes, of which there is one at least (`NAME_MAX` is 255, include/uapi/linux/limits.h).
    pub name: [u8; 256],
}

/// The path of a cgroup in its tree, as in /proc/PID/cgroup, padded with zero bytes. Longer ones are left to userspace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupPath {
    /// The path, with one zero byte at least.
    pub bytes: [u8; CGROUP_PATH_LEN],
}

/// Longest path of a cgroup that the programs know, with the zero byte at its end.
pub const CGROUP_PATH_LEN: usize = 256;

impl ProgramPlace {
    /// No place.
    pub const NONE: Self = Self { directory: FileId { inode: 0, device: 0, generation: 0 }, name: [0; 256] };
}

impl CgroupPath {
    /// No path.
    pub const NONE: Self = Self { bytes: [0; CGROUP_PATH_LEN] };
}

/// The limit is in force in the programs that see the packets of sockets.
pub const LIMIT_IN_FORCE: u32 = 1;
/// The limit is in force in the program at the entrance of interfaces.
pub const LIMIT_AT_ENTRANCE: u32 = 2;

/// A limit as userspace sets it: the programs only read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// The limit as asked for.
    pub config: CgroupThrottleConfig,
    /// `config.burst_size` as time at `config.rate_bps`, so that no packet pays for the division.
    pub burst_ns: u64,
    /// How far the clock of the limit may be ahead when a packet comes, in nanoseconds: flow control in front of the limit
    /// evens out what passes then. What is no TCP has a clock of its own beside, which may not be ahead.
    pub debt_ns: u64,
    /// Since when the limit is as it is (`CLOCK_MONOTONIC`, nanoseconds): nothing can have been saved before.
    pub since_ns: u64,
    /// Until when TCP packets that arrive are not dropped (`CLOCK_MONOTONIC`, nanoseconds): they were promised to their
    /// senders before there was a limit, and would have to be sent again.
    pub grace_until_ns: u64,
    /// `LIMIT_…` bits.
    pub flags: u32,
    /// Not 0: the packet's priority (`skb->priority`), by which a queueing discipline finds its class.
    pub priority: u32,
    /// Not 0: the packet's mark (`skb->mark`).
    pub mark: u32,
    /// Not 0: what comes by the entrance waits in the queue of this interface (its number), instead of being dropped when
    /// it is over the limit.
    pub queue: u32,
}

/// How far a limit has been used, and what it did: written by the programs, of all CPUs at the same time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitState {
    /// The virtual clock: the instant (`CLOCK_MONOTONIC`, nanoseconds) up to which what has passed is paid for.
    pub clock_ns: u64,
    /// The same for what is no TCP alone: where flow control lets the other one be ahead, this one may not.
    pub datagram_clock_ns: u64,
    /// IP bytes of that which have passed.
    pub datagram_bytes: u64,
    /// Until when no TCP packet on a path with a short round trip passes (`CLOCK_MONOTONIC`, nanoseconds).
    pub closed_until_ns: u64,
    /// When the last packet leaves that waits for its time (`CLOCK_MONOTONIC`, nanoseconds). Until then the clock of what is
    /// no TCP tells how long the limit is used up by those that wait: they are charged already, and TCP goes before them.
    pub waits_until_ns: u64,
    /// What became of the target's packets.
    pub stats: ThrottleStats,
}

/// Switches that userspace turns while the programs run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlFlags {
    /// Limits in force. While it is 0 the packet path does not look for any.
    pub limits: u32,
    /// Not 0: loopback traffic counts too.
    pub include_loopback: u32,
    /// Not 0: only packets on interfaces that userspace chose count, and are limited.
    pub only_chosen_interfaces: u32,
    /// Prefixes that count as local beside those that always do. While it is 0 nobody looks for any.
    pub local_prefixes: u32,
    /// Changes with those prefixes, so that what sockets remember of their peers is known to be old. Below 2³⁰.
    pub scope_generation: u32,
    /// Changes whenever a slot of the table of counters is taken back, so that sockets look again whose theirs is.
    pub slot_generation: u32,
    /// CPUs that there may be.
    pub cpus: u32,
    /// Limits on all who execute a program. While it is 0 nobody looks for any; the same for the next two.
    pub limited_programs: u32,
    /// Limits on all processes of a cgroup.
    pub limited_cgroups: u32,
    /// Limits on all processes of a user.
    pub limited_users: u32,
}

assert_layout!(TokenBucket, 32, { capacity: u64 => 0, tokens: u64 => 8, last_update_ns: u64 => 16, rate_bps: u64 => 24 });
assert_layout!(CgroupThrottleConfig, 32, {
    cgroup_id: u64 => 0, pid: u32 => 8, traffic_type: u8 => 12, _padding: [u8; 3] => 13, rate_bps: u64 => 16,
    burst_size: u64 => 24,
});
assert_layout!(ThrottleStats, 88, {
    packets_total: u64 => 0, bytes_total: u64 => 8, packets_dropped: u64 => 16, bytes_dropped: u64 => 24,
    program_calls: u64 => 32, config_misses: u64 => 40, cgroup_id_seen: u64 => 48, packets_marked: u64 => 56,
    bytes_marked: u64 => 64, packets_delayed: u64 => 72, bytes_delayed: u64 => 80,
});
assert_layout!(Membership, 16, { own: u32 => 0, inherited: u32 => 4, by_program: u32 => 8, _padding: u32 => 12 });
assert_layout!(ProgramPlace, 272, { directory: FileId => 0, name: [u8; 256] => 16 });
assert_layout!(CgroupPath, 256, { bytes: [u8; CGROUP_PATH_LEN] => 0 });
assert_layout!(FileId, 16, { inode: u64 => 0, device: u32 => 8, generation: u32 => 12 });
assert_layout!(LimitSettings, 80, {
    config: CgroupThrottleConfig => 0, burst_ns: u64 => 32, debt_ns: u64 => 40, since_ns: u64 => 48,
    grace_until_ns: u64 => 56, flags: u32 => 64, priority: u32 => 68, mark: u32 => 72, queue: u32 => 76,
});
assert_layout!(LimitState, 128, {
    clock_ns: u64 => 0, datagram_clock_ns: u64 => 8, datagram_bytes: u64 => 16, closed_until_ns: u64 => 24,
    waits_until_ns: u64 => 32, stats: ThrottleStats => 40,
});
assert_layout!(ControlFlags, 40, {
    limits: u32 => 0, include_loopback: u32 => 4, only_chosen_interfaces: u32 => 8, local_prefixes: u32 => 12,
    scope_generation: u32 => 16, slot_generation: u32 => 20, cpus: u32 => 24, limited_programs: u32 => 28,
    limited_cgroups: u32 => 32, limited_users: u32 => 36,
});

#[cfg(feature = "userspace")]
pod!(
    TokenBucket,
    CgroupThrottleConfig,
    ThrottleStats,
    Membership,
    FileId,
    ProgramPlace,
    CgroupPath,
    LimitSettings,
    LimitState,
    ControlFlags
);
