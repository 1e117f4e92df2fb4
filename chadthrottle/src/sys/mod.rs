//! The only place with system calls, /proc parsing by hand, and `unsafe`.

#[cfg(feature = "ebpf")]
pub mod bpf_map;
#[cfg(feature = "ebpf")]
pub mod bpf_trial;
#[cfg(feature = "ebpf")]
pub mod btf;
pub mod capability;
pub mod cgroup;
pub mod cpu_time;
#[cfg(feature = "ebpf")]
pub mod file_id;
pub mod host_name;
pub mod inet_diag;
pub mod kernel_features;
pub mod kernel_version;
pub mod links;
#[cfg(feature = "ebpf")]
pub mod memory;
pub mod namespace;
pub mod netlink;
#[cfg(feature = "throttle-nftables")]
pub mod nft;
pub mod note;
#[cfg(feature = "monitor-pnet")]
pub mod packet;
pub mod pidfd;
pub mod pipe;
#[cfg(any(
    feature = "throttle-ebpf-cgroup",
    feature = "throttle-sockopt",
    feature = "throttle-tc-htb",
    feature = "throttle-nftables",
    feature = "throttle-ifb-tc",
    feature = "throttle-tc-police"
))]
pub mod proc_children;
pub mod proc_fd;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
pub mod routes;
pub mod signals;
#[cfg(feature = "monitor-sock-diag")]
pub mod sock_diag;
#[cfg(feature = "monitor-pnet")]
pub mod socket_lookup;
#[cfg(any(
    feature = "throttle-ebpf-cgroup",
    feature = "throttle-sockopt",
    feature = "throttle-tc-htb",
    feature = "throttle-nftables",
    feature = "throttle-ifb-tc",
    feature = "throttle-tc-police"
))]
pub mod socket_tag;
pub mod spawn;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
pub mod tc;
pub mod tcp_info;
#[cfg(any(
    feature = "throttle-ebpf-cgroup",
    feature = "throttle-sockopt",
    feature = "throttle-tc-htb",
    feature = "throttle-nftables",
    feature = "throttle-ifb-tc",
    feature = "throttle-tc-police"
))]
pub mod tcp_socket;
pub mod terminal;
