//! The only place with system calls, /proc parsing by hand, and `unsafe`.

#[cfg(feature = "ebpf")]
pub mod btf;
pub mod capability;
pub mod cgroup;
#[cfg(feature = "throttle-sockopt")]
pub mod cpu_time;
#[cfg(feature = "monitor-pnet")]
pub mod links;
pub mod namespace;
#[cfg(any(feature = "monitor-pnet", feature = "monitor-sock-diag"))]
pub mod netlink;
#[cfg(feature = "monitor-pnet")]
pub mod packet;
pub mod pidfd;
#[cfg(feature = "throttle-sockopt")]
pub mod proc_children;
#[cfg(any(feature = "monitor-pnet", feature = "monitor-sock-diag", feature = "throttle-sockopt"))]
pub mod proc_fd;
pub mod signals;
#[cfg(feature = "monitor-sock-diag")]
pub mod sock_diag;
#[cfg(feature = "monitor-pnet")]
pub mod socket_lookup;
pub mod spawn;
#[cfg(feature = "throttle-sockopt")]
pub mod tcp_socket;
