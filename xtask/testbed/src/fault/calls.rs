//! Which calls are decided on, and what they are called.

use nix::libc;

/// A call, by its number; only where one of its arguments has one of these bits, if that is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trapped {
    pub(super) name: &'static str,
    pub(super) number: libc::c_long,
    pub(super) only: Option<(usize, libc::c_int)>,
}

const fn every(name: &'static str, number: libc::c_long) -> Trapped {
    Trapped { name, number, only: None }
}

const fn some(name: &'static str, number: libc::c_long, argument: usize, bits: libc::c_int) -> Trapped {
    Trapped { name, number, only: Some((argument, bits)) }
}

/// What makes something, changes something, or takes hold of something. What only reads is left out: there is far more of
/// it, and it fails in the same ways.
pub(super) const TRAPPED: &[Trapped] = &[
    every("bpf", libc::SYS_bpf),
    every("setsockopt", libc::SYS_setsockopt),
    every("getsockopt", libc::SYS_getsockopt),
    every("netlink", libc::SYS_sendto),
    every("recvfrom", libc::SYS_recvfrom),
    every("socket", libc::SYS_socket),
    every("bind", libc::SYS_bind),
    every("pidfd_open", libc::SYS_pidfd_open),
    every("pidfd_getfd", libc::SYS_pidfd_getfd),
    some("open for writing", libc::SYS_openat, 2, libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT),
    every("fsync", libc::SYS_fsync),
    every("flock", libc::SYS_flock),
    every("pipe", libc::SYS_pipe2),
    every("clone", libc::SYS_clone3),
    every("signalfd", libc::SYS_signalfd4),
    some("shared mmap", libc::SYS_mmap, 3, libc::MAP_SHARED),
    #[cfg(target_arch = "x86_64")]
    every("rename", libc::SYS_rename),
    #[cfg(target_arch = "x86_64")]
    every("mkdir", libc::SYS_mkdir),
    #[cfg(target_arch = "x86_64")]
    every("unlink", libc::SYS_unlink),
    #[cfg(target_arch = "x86_64")]
    every("rmdir", libc::SYS_rmdir),
];

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF: &[(u64, &str)] = &[
    (0, "MAP_CREATE"),
    (1, "MAP_LOOKUP_ELEM"),
    (2, "MAP_UPDATE_ELEM"),
    (3, "MAP_DELETE_ELEM"),
    (4, "MAP_GET_NEXT_KEY"),
    (5, "PROG_LOAD"),
    (8, "PROG_ATTACH"),
    (9, "PROG_DETACH"),
    (10, "PROG_TEST_RUN"),
    (15, "OBJ_GET_INFO_BY_FD"),
    (18, "BTF_LOAD"),
    (22, "MAP_FREEZE"),
    (24, "MAP_LOOKUP_BATCH"),
    (28, "LINK_CREATE"),
    (33, "ITER_CREATE"),
    (34, "LINK_DETACH"),
];

/// `RTM_…` (include/uapi/linux/rtnetlink.h); what others than rtnetlink call so has its number for a name.
const ROUTE: &[(u16, &str)] = &[
    (libc::RTM_NEWLINK, "NEWLINK"),
    (libc::RTM_DELLINK, "DELLINK"),
    (libc::RTM_GETLINK, "GETLINK"),
    (libc::RTM_GETADDR, "GETADDR"),
    (libc::RTM_GETROUTE, "GETROUTE"),
    (libc::RTM_NEWQDISC, "NEWQDISC"),
    (libc::RTM_DELQDISC, "DELQDISC"),
    (libc::RTM_GETQDISC, "GETQDISC"),
    (libc::RTM_NEWTCLASS, "NEWTCLASS"),
    (libc::RTM_DELTCLASS, "DELTCLASS"),
    (libc::RTM_GETTCLASS, "GETTCLASS"),
    (libc::RTM_NEWTFILTER, "NEWTFILTER"),
];

/// The name of a call with these arguments.
pub(super) fn name(trapped: &Trapped, arguments: &[u64; 6]) -> String {
    let name = trapped.name;
    match name {
        "bpf" => {
            let known = BPF.iter().find(|(command, _)| *command == arguments[0]);
            known.map_or_else(|| format!("bpf {}", arguments[0]), |(_, command)| format!("bpf {command}"))
        }
        // The level, and the option's number there.
        "setsockopt" | "getsockopt" => format!("{name} {}/{}", arguments[1], arguments[2]),
        _ => name.to_owned(),
    }
}

/// The name of a request over netlink.
pub(super) fn netlink_name(kind: u16) -> String {
    let known = ROUTE.iter().find(|(known, _)| *known == kind);
    known.map_or_else(|| format!("netlink {kind:#x}"), |(_, name)| format!("netlink {name}"))
}
