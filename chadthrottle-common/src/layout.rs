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

/// A child forked by a member becomes a member of the same target.
pub const MEMBER_INHERITED_BY_CHILDREN: u32 = 1;

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
    /// Times that the program ran for this target.
    pub program_calls: u64,
    /// Packets of a member of this target that found no limit for it.
    pub config_misses: u64,
    /// Cgroup id of the socket last seen.
    pub cgroup_id_seen: u64,
}

/// That a process belongs to a limited target.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Which target: chosen by userspace, never 0.
    pub target: u32,
    /// `MEMBER_…` bits.
    pub flags: u32,
}

/// One limit: a target in one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LimitKey {
    /// The target's number.
    pub target: u32,
    /// `DIRECTION_UPLOAD` or `DIRECTION_DOWNLOAD`.
    pub direction: u32,
}

/// A limit and how far it has been used.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitState {
    /// The limit as asked for.
    pub config: CgroupThrottleConfig,
    /// `config.burst_size` as time at `config.rate_bps`, so that no packet pays for the division.
    pub burst_ns: u64,
    /// The virtual clock: the instant (`CLOCK_MONOTONIC`, nanoseconds) up to which what has passed is paid for.
    pub clock_ns: u64,
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
    #[doc(hidden)]
    pub _padding: u32,
}

assert_layout!(TokenBucket, 32, { capacity: u64 => 0, tokens: u64 => 8, last_update_ns: u64 => 16, rate_bps: u64 => 24 });
assert_layout!(CgroupThrottleConfig, 32, {
    cgroup_id: u64 => 0, pid: u32 => 8, traffic_type: u8 => 12, _padding: [u8; 3] => 13, rate_bps: u64 => 16,
    burst_size: u64 => 24,
});
assert_layout!(ThrottleStats, 56, {
    packets_total: u64 => 0, bytes_total: u64 => 8, packets_dropped: u64 => 16, bytes_dropped: u64 => 24,
    program_calls: u64 => 32, config_misses: u64 => 40, cgroup_id_seen: u64 => 48,
});
assert_layout!(Membership, 8, { target: u32 => 0, flags: u32 => 4 });
assert_layout!(LimitKey, 8, { target: u32 => 0, direction: u32 => 4 });
assert_layout!(LimitState, 48, { config: CgroupThrottleConfig => 0, burst_ns: u64 => 32, clock_ns: u64 => 40 });
assert_layout!(ControlFlags, 32, {
    limits: u32 => 0, include_loopback: u32 => 4, only_chosen_interfaces: u32 => 8, local_prefixes: u32 => 12,
    scope_generation: u32 => 16, slot_generation: u32 => 20, cpus: u32 => 24, _padding: u32 => 28,
});

#[cfg(feature = "userspace")]
pod!(TokenBucket, CgroupThrottleConfig, ThrottleStats, Membership, LimitKey, LimitState, ControlFlags);
