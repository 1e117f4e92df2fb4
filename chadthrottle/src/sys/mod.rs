//! The only place with system calls, /proc parsing by hand, and `unsafe`.

#[cfg(feature = "ebpf")]
pub mod btf;
pub mod capability;
pub mod cgroup;
pub mod namespace;
pub mod pidfd;
pub mod signals;
pub mod spawn;
