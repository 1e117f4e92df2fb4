//! The only place with system calls, /proc parsing by hand, and `unsafe`.

#[cfg(feature = "ebpf")]
pub mod bpf_map;
#[cfg(feature = "ebpf")]
pub mod bpf_trial;
#[cfg(feature = "ebpf")]
pub mod btf;
pub mod capability;
pub mod cgroup;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
pub mod cgroup_place;
#[cfg(feature = "throttle-ifb-tc")]
pub mod conntrack;
pub mod cpu_time;
#[cfg(feature = "ebpf")]
pub mod file_id;
pub mod host_name;
pub mod inet_diag;
pub mod kernel_features;
pub mod kernel_version;
pub mod links;
pub mod lockdown;
#[cfg(feature = "ebpf")]
pub mod memory;
pub mod namespace;
pub mod netlink;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables", feature = "throttle-ifb-tc"))]
pub mod nft;
pub mod note;
pub mod owned_file;
#[cfg(feature = "monitor-pnet")]
pub mod packet;
pub mod peer;
pub mod pidfd;
pub mod pipe;
#[cfg(feature = "limits")]
pub mod proc_children;
pub mod proc_fd;
pub mod proc_text;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
pub mod routes;
pub mod service;
pub mod signals;
#[cfg(feature = "monitor-sock-diag")]
pub mod sock_diag;
pub mod socket_cgroup;
#[cfg(feature = "monitor-pnet")]
pub mod socket_lookup;
#[cfg(feature = "limits")]
pub mod socket_tag;
pub mod spawn;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc", feature = "ebpf"))]
pub mod tc;
pub mod tcp_info;
#[cfg(feature = "limits")]
pub mod tcp_socket;
pub mod terminal;
