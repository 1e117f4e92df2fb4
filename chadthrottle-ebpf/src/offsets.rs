//! Every constant that userspace sets before the programs are loaded.

use core::{ffi::c_void, ptr};

use aya_ebpf::Global;

/// Constants that userspace sets before the programs are loaded: offsets of members in the kernel's structures, in
/// bytes, because no relocations come from Rust.
macro_rules! offsets {
    ($($(#[$attribute:meta])* $name:ident),+ $(,)?) => {
        $(
            $(#[$attribute])*
            #[unsafe(no_mangle)]
            static $name: Global<u32> = Global::new(0);
        )+
    };
}

offsets!(
    TASK_GROUP_LEADER,
    TASK_TGID,
    TASK_START_BOOTTIME,
    TASK_FLAGS,
    TASK_SIGNAL,
    TASK_COMM,
    TASK_CRED,
    CRED_UID,
    TASK_CGROUPS,
    CSS_SET_CGROUP,
    SIGNAL_LIVE,
    BINPRM_INTERP,
    BINPRM_FILE,
    FILE_INODE,
    FILE_DENTRY,
    DENTRY_PARENT,
    DENTRY_INODE,
    DENTRY_NAME,
    INODE_NUMBER,
    INODE_GENERATION,
    INODE_SUPERBLOCK,
    SUPERBLOCK_DEVICE,
    CGROUP_ROOT,
    CGROUP_NODE,
    HIERARCHY_ID,
    NODE_ID,
    SOCK_UID,
    SKB_SK,
    SOCK_LOCK_OWNED,
    SOCK_NET,
    NET_COOKIE,
    TCP_WRITE_SEQ,
    /// The byte with the bit field `sk_kern_sock`.
    SOCK_KERN_SOCK,
    /// The bit in that byte.
    SOCK_KERN_SOCK_BIT,
);

/// The monitor's network namespace (`SO_NETNS_COOKIE`); 0 where the kernel does not tell.
#[unsafe(no_mangle)]
pub(crate) static OWN_NETNS_COOKIE: Global<u64> = Global::new(0);

/// The process that has loaded the programs.
#[unsafe(no_mangle)]
pub(crate) static OWN_TGID: Global<u32> = Global::new(0);

/// Whether a process is inside a call on a TCP socket.
///
/// # Safety
/// `tcp_sock` comes from `bpf_skc_to_tcp_sock`: the verifier knows what it points to, looks up which member is at the
/// offset (a constant by then), and lets it be read.
#[inline(always)]
pub(crate) unsafe fn is_owned_by_user(tcp_sock: *const c_void) -> bool {
    // SAFETY: as promised by the caller. A TCP socket begins with the general one.
    unsafe { ptr::read_volatile(tcp_sock.byte_add(SOCK_LOCK_OWNED.load() as usize).cast::<i32>()) != 0 }
}

/// The process that a task belongs to.
///
/// # Safety
/// `task` comes from `bpf_get_current_task_btf`, for the same reason.
#[inline(always)]
pub(crate) unsafe fn tgid_of(task: *const c_void) -> u32 {
    // SAFETY: as promised by the caller.
    unsafe { ptr::read_volatile(task.byte_add(TASK_TGID.load() as usize).cast()) }
}

/// The sequence number after the last byte that was written to a TCP socket.
///
/// # Safety
/// As above.
#[inline(always)]
pub(crate) unsafe fn write_seq(tcp_sock: *const c_void) -> u32 {
    // SAFETY: as promised by the caller.
    unsafe { ptr::read_volatile(tcp_sock.byte_add(TCP_WRITE_SEQ.load() as usize).cast()) }
}

/// Offset of `interp` in `struct linux_binprm`.
#[inline(always)]
pub(crate) fn binprm_interp() -> u64 {
    BINPRM_INTERP.load().into()
}

/// Offset of the owner in `struct sock`.
#[inline(always)]
pub(crate) fn sock_uid() -> u64 {
    SOCK_UID.load().into()
}

/// Offsets from `struct linux_binprm` to what tells its file from others, and to where that is.
#[derive(Clone, Copy)]
pub(crate) struct FileOffsets {
    pub(crate) binprm_file: u64,
    pub(crate) file_dentry: u64,
    pub(crate) dentry_parent: u64,
    pub(crate) dentry_inode: u64,
    pub(crate) dentry_name: u64,
    pub(crate) file_inode: u64,
    pub(crate) inode_number: u64,
    pub(crate) inode_generation: u64,
    pub(crate) inode_superblock: u64,
    pub(crate) superblock_device: u64,
}

impl FileOffsets {
    /// Reads what the loader wrote.
    #[inline(always)]
    pub(crate) fn load() -> Self {
        Self {
            binprm_file: BINPRM_FILE.load().into(),
            file_dentry: FILE_DENTRY.load().into(),
            dentry_parent: DENTRY_PARENT.load().into(),
            dentry_inode: DENTRY_INODE.load().into(),
            dentry_name: DENTRY_NAME.load().into(),
            file_inode: FILE_INODE.load().into(),
            inode_number: INODE_NUMBER.load().into(),
            inode_generation: INODE_GENERATION.load().into(),
            inode_superblock: INODE_SUPERBLOCK.load().into(),
            superblock_device: SUPERBLOCK_DEVICE.load().into(),
        }
    }
}

/// Offsets from `struct cgroup` to its id, and to that of its tree.
#[derive(Clone, Copy)]
pub(crate) struct CgroupOffsets {
    pub(crate) root: u64,
    pub(crate) hierarchy_id: u64,
    pub(crate) node: u64,
    pub(crate) node_id: u64,
}

impl CgroupOffsets {
    /// Reads what the loader wrote.
    #[inline(always)]
    pub(crate) fn load() -> Self {
        Self {
            root: CGROUP_ROOT.load().into(),
            hierarchy_id: HIERARCHY_ID.load().into(),
            node: CGROUP_NODE.load().into(),
            node_id: NODE_ID.load().into(),
        }
    }
}

/// Offsets into `struct task_struct`, and what follows from there.
#[derive(Clone, Copy)]
pub(crate) struct TaskOffsets {
    pub(crate) group_leader: u64,
    pub(crate) tgid: u64,
    pub(crate) start_boottime: u64,
    pub(crate) flags: u64,
    pub(crate) signal: u64,
    pub(crate) signal_live: u64,
    pub(crate) comm: u64,
    pub(crate) cred: u64,
    pub(crate) cred_uid: u64,
    /// To `struct css_set`, and from there to the cgroup of version 2.
    pub(crate) cgroups: u64,
    pub(crate) cgroups_default: u64,
}

impl TaskOffsets {
    /// Reads what the loader wrote.
    #[inline(always)]
    pub(crate) fn load() -> Self {
        Self {
            group_leader: TASK_GROUP_LEADER.load().into(),
            tgid: TASK_TGID.load().into(),
            start_boottime: TASK_START_BOOTTIME.load().into(),
            flags: TASK_FLAGS.load().into(),
            signal: TASK_SIGNAL.load().into(),
            signal_live: SIGNAL_LIVE.load().into(),
            comm: TASK_COMM.load().into(),
            cred: TASK_CRED.load().into(),
            cred_uid: CRED_UID.load().into(),
            cgroups: TASK_CGROUPS.load().into(),
            cgroups_default: CSS_SET_CGROUP.load().into(),
        }
    }
}

/// Offsets from a packet to its socket and on to the network namespace.
#[derive(Clone, Copy)]
pub(crate) struct SocketOffsets {
    pub(crate) skb_sk: usize,
    pub(crate) kern_sock_byte: u64,
    pub(crate) kern_sock_bit: u32,
    pub(crate) net: u64,
    pub(crate) net_cookie: u64,
}

impl SocketOffsets {
    /// Reads what the loader wrote.
    #[inline(always)]
    pub(crate) fn load() -> Self {
        Self {
            skb_sk: SKB_SK.load() as usize,
            kern_sock_byte: SOCK_KERN_SOCK.load().into(),
            kern_sock_bit: SOCK_KERN_SOCK_BIT.load() & 7,
            net: SOCK_NET.load().into(),
            net_cookie: NET_COOKIE.load().into(),
        }
    }
}
