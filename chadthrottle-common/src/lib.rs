//! What crosses the BPF map boundary, and the rules that both sides of it share.
//!
//! Everything here compiles for the BPF target as well as for the host: no allocation, no floating point, no
//! panics that the verifier would have to prove unreachable. The structures are `#[repr(C)]` without padding
//! holes (asserted at compile time), because the kernel compares and copies them as bytes.
//!
//! - [`layout`]: the structures of the limiter, and [`traffic`]: those of accounting.
//! - [`clock`]: the limiter's arithmetic, [`waiting`]: who waits for it, and [`question`]: how a test asks the kernel for it.
//! - [`scope`]: local or on the internet.
//! - [`wire`]: how many bytes a super-packet stands for.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a call between BPF functions costs registers and verification; these are a few instructions each"
)]

#[macro_use]
mod assertions;
pub mod clock;
pub mod layout;
pub mod question;
pub mod scope;
pub mod traffic;
pub mod waiting;
pub mod wire;

pub use layout::{
    CGROUP_PATH_LEN, CgroupPath, CgroupThrottleConfig, ControlFlags, DIRECTION_DOWNLOAD, DIRECTION_UPLOAD,
    FileId, LIMIT_AT_ENTRANCE, LIMIT_IN_FORCE, LimitSettings, LimitState, Membership, ProgramPlace, TARGETS,
    TRAFFIC_TYPE_ALL, TRAFFIC_TYPE_INTERNET, TRAFFIC_TYPE_LOCAL, ThrottleStats, TokenBucket, limit_index,
};
pub use scope::{SCOPE_INTERNET, SCOPE_LOCAL, scope_of_v4, scope_of_v6};
pub use traffic::{
    FlowCounters, Interface, ProcessKey, ProcessRecord, ProgramPath, SocketOwner, TrafficCounters, TrafficKey,
};
pub use waiting::Waiting;

/// The interface index of `lo`, the same in every network namespace (`LOOPBACK_IFINDEX`,
/// include/net/flow.h in the kernel source).
pub const LOOPBACK_IFINDEX: u32 = 1;

/// Clock ticks a second in what /proc shows to userspace (`USER_HZ`, include/asm-generic/param.h): 100 on every
/// architecture that this program supports.
pub const USER_HZ: u64 = 100;

/// Nanoseconds in a clock tick of /proc.
pub const NS_PER_TICK: u64 = clock::NS_PER_SEC / USER_HZ;
