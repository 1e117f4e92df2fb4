//! The structures in maps. All multi-byte fields are in host byte order.

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

/// A process, told apart from every other one since boot, in one word: a socket's owner changes while other CPUs read
/// it, and half of one owner with half of another would be somebody who does not exist.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    packed: u64,
}

impl ProcessKey {
    /// Bits of a pid (`PID_MAX_LIMIT`, include/linux/threads.h: 4 Mi). The rest counts ticks for a thousand years.
    const PID_BITS: u32 = 22;

    /// The process with this thread-group id, in the initial PID namespace, whose leader started `start_time` clock
    /// ticks after boot (field 22 of /proc/PID/stat).
    #[inline(always)]
    #[must_use]
    pub const fn new(tgid: u32, start_time: u64) -> Self {
        Self { packed: start_time << Self::PID_BITS | (tgid as u64 & Self::PID_MASK) }
    }

    const PID_MASK: u64 = (1 << Self::PID_BITS) - 1;

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
}

/// The owner of a socket, in the socket's own storage.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOwner {
    /// Whose it is.
    pub process: ProcessKey,
    /// Traffic that waits until the socket is used: its owner is only presumed.
    pub held: TrafficCounters,
    /// Not 0: nobody has used the socket yet. It was accepted for the process that listens, and that may hand it to
    /// another one, as servers do that fork workers.
    pub is_presumed: u32,
    #[doc(hidden)]
    pub _padding: u32,
}

/// What the kernel knew of a process when it opened its first socket: all that is left to name it by, once it
/// has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessRecord {
    /// Command name, padded with zero bytes (`TASK_COMM_LEN`, include/linux/sched.h).
    pub comm: [u8; 16],
    /// User id, in the initial user namespace.
    pub uid: u32,
    #[doc(hidden)]
    pub _padding: u32,
}

/// What a process sent and received, in IP bytes as they travel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounters {
    /// Bytes sent.
    pub upload_bytes: u64,
    /// Packets sent, a super-packet as one.
    pub upload_packets: u64,
    /// Bytes received.
    pub download_bytes: u64,
    /// Packets received, a super-packet as one.
    pub download_packets: u64,
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
}

/// Asserts size, alignment and the offset of every field, and that the fields fill the structure: a padding hole
/// would carry stale stack bytes into map keys, and the verifier refuses it.
macro_rules! assert_layout {
    ($ty:ty, $size:literal, { $($field:ident : $field_ty:ty => $offset:literal),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$ty>() == $size);
            assert!(align_of::<$ty>() <= 8);
            $(assert!(core::mem::offset_of!($ty, $field) == $offset);)+
            assert!(0 $(+ size_of::<$field_ty>())+ == $size, "padding hole");
        };
    };
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
assert_layout!(ProcessKey, 8, { packed: u64 => 0 });
assert_layout!(ProcessRecord, 24, { comm: [u8; 16] => 0, uid: u32 => 16, _padding: u32 => 20 });
assert_layout!(TrafficCounters, 32, {
    upload_bytes: u64 => 0, upload_packets: u64 => 8, download_bytes: u64 => 16, download_packets: u64 => 24,
});
assert_layout!(SocketOwner, 48, {
    process: ProcessKey => 0, held: TrafficCounters => 8, is_presumed: u32 => 40, _padding: u32 => 44,
});
assert_layout!(Membership, 8, { target: u32 => 0, flags: u32 => 4 });
assert_layout!(LimitKey, 8, { target: u32 => 0, direction: u32 => 4 });
assert_layout!(LimitState, 48, { config: CgroupThrottleConfig => 0, burst_ns: u64 => 32, clock_ns: u64 => 40 });
assert_layout!(ControlFlags, 8, { limits: u32 => 0, include_loopback: u32 => 4 });

/// Declares the structures plain old data, so that aya may copy them from and to maps.
#[cfg(feature = "userspace")]
macro_rules! pod {
    ($($ty:ty),+ $(,)?) => {
        $(
            // SAFETY: `#[repr(C)]`, made of integers only, without padding (asserted above): every bit pattern
            // is a value.
            unsafe impl aya::Pod for $ty {}
        )+
    };
}

#[cfg(feature = "userspace")]
pod!(
    TokenBucket,
    CgroupThrottleConfig,
    ThrottleStats,
    ProcessKey,
    ProcessRecord,
    TrafficCounters,
    SocketOwner,
    Membership,
    LimitKey,
    LimitState,
    ControlFlags,
);
