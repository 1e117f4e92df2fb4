//! Which namespaces this process is in.

use std::{fs, os::unix::fs::MetadataExt};

/// Inode numbers of the first namespace of each kind (`PROC_PID_INIT_INO` and the like,
/// `include/uapi/linux/nsfs.h` and, in older kernels, `include/linux/proc_ns.h`).
const FIRST: [(&str, u64); 2] = [("pid", 0xEFFF_FFFC), ("time", 0xEFFF_FFFA)];

/// The first of these kinds of namespace that is not the one that the host booted with.
///
/// Where the kernel has no namespaces of a kind, there is nothing to be apart in.
#[must_use]
pub fn first_that_is_not_the_hosts(kinds: &[&'static str]) -> Option<&'static str> {
    kinds.iter().copied().find(|kind| {
        let first = FIRST.iter().find(|(name, _)| name == kind).map(|(_, inode)| *inode);
        let ours = fs::metadata(format!("/proc/self/ns/{kind}")).map(|metadata| metadata.ino());
        matches!((first, ours), (Some(first), Ok(ours)) if first != ours)
    })
}
