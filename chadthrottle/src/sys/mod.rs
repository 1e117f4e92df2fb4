//! The only place with system calls, /proc parsing by hand, and `unsafe`.

#[cfg(feature = "ebpf")]
pub mod btf;
pub mod capability;
pub mod cgroup;
pub mod namespace;
pub mod pidfd;
#[cfg(feature = "monitor-sock-diag")]
pub mod proc_fd;
pub mod signals;
#[cfg(feature = "monitor-sock-diag")]
pub mod sock_diag;
pub mod spawn;
