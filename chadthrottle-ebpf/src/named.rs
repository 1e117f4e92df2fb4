//! What has the name of something limited: programs, by their files and where those are, and cgroups.
//!
//! A program that is upgraded is another file in the same place, and a unit that is restarted is another cgroup with the
//! same path. Both are limited from their first packet on, before userspace has seen them.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes},
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use chadthrottle_common::{CGROUP_PATH_LEN, CgroupPath, FileId, ProgramPlace};

use crate::{
    maps::{
        CGROUP_PATH, Control, LIMITED_CGROUPS, LIMITED_PATHS, LIMITED_PLACES, LIMITED_PROGRAMS,
        NO_CGROUP_PATH, NO_PLACE, PLACE, count_lost,
    },
    offsets::{CgroupOffsets, FileOffsets},
};

/// The tree of cgroup v2 (`cgrp_dfl_root`, kernel/cgroup/cgroup.c: the first one).
const DEFAULT_HIERARCHY: u32 = 0;

/// The target of who executes a program: of a script it is the interpreter, as with /proc/PID/exe. 0 where it is none's.
#[inline(always)]
pub(crate) fn target_of_program(binprm: u64) -> u32 {
    let offsets = FileOffsets::load();
    let Some(file) = address_at(binprm + offsets.binprm_file) else { return 0 };
    let by_file = address_at(file + offsets.file_inode).and_then(|inode| target_of_file(inode, &offsets));
    by_file.or_else(|| target_of_place(file, &offsets)).unwrap_or(0)
}

/// The target of an inode: of this very file, or of whoever has its number, where userspace knows no more than that.
#[inline(always)]
fn target_of_file(inode: u64, offsets: &FileOffsets) -> Option<u32> {
    let any = file_id(inode, offsets)?;
    // SAFETY: the helper checks the address; what is found is copied out at once.
    unsafe {
        let generation = bpf_probe_read_kernel((inode + offsets.inode_generation) as *const u32).ok()?;
        LIMITED_PROGRAMS.get(FileId { generation, ..any }).or_else(|| LIMITED_PROGRAMS.get(any)).copied()
    }
}

/// The same by where the file is, when it is not the one that was there when the limit was set.
#[inline(always)]
fn target_of_place(file: u64, offsets: &FileOffsets) -> Option<u32> {
    let place = PLACE.get_ptr_mut(0)?;
    let dentry = address_at(file + offsets.file_dentry)?;
    let directory = address_at(dentry + offsets.dentry_parent)?;
    let name = address_at(dentry + offsets.dentry_name)?;
    // SAFETY: this CPU's own copy; the helpers check the addresses. A preempted program's may be overwritten by
    // another's: of two programs that start at the same instant on one CPU one may be taken for the other, where that is
    // in a place of which the file was replaced.
    unsafe {
        *place = NO_PLACE;
        (*place).directory = file_id(address_at(directory + offsets.dentry_inode)?, offsets)?;
        bpf_probe_read_kernel_str_bytes(name as *const u8, &mut (*place).name).ok()?;
        let place: &ProgramPlace = &*place;
        LIMITED_PLACES.get(place).copied()
    }
}

/// A file by its inode, of whichever generation.
#[inline(always)]
fn file_id(inode: u64, offsets: &FileOffsets) -> Option<FileId> {
    let superblock = address_at(inode + offsets.inode_superblock)?;
    // SAFETY: the helper checks the addresses; a wrong one is an error, not a fault.
    unsafe {
        Some(FileId {
            inode: bpf_probe_read_kernel((inode + offsets.inode_number) as *const u64).ok()?,
            device: bpf_probe_read_kernel((superblock + offsets.superblock_device) as *const u32).ok()?,
            ..FileId::default()
        })
    }
}

/// A cgroup was made: the tracepoint has it, and its path (include/trace/events/cgroup.h). Nobody is in it yet.
#[inline(always)]
pub(crate) fn cgroup_made(ctx: &BtfTracePointContext) {
    if !Control::get().is_some_and(Control::has_limited_cgroups) {
        return;
    }
    let (cgroup, path): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let Some((id, target)) = target_of_path(cgroup, path) else { return };
    debug!(ctx, "the limited cgroup {} was made again", id);
    if LIMITED_CGROUPS.insert(id, target, u64::from(BPF_ANY)).is_err() {
        count_lost();
    }
}

/// The id of a cgroup of the tree of cgroup v2, and the target that its path is limited with.
#[inline(always)]
fn target_of_path(cgroup: u64, path: u64) -> Option<(u64, u32)> {
    let offsets = CgroupOffsets::load();
    let root = address_at(cgroup + offsets.root)?;
    let node = address_at(cgroup + offsets.node)?;
    let written = CGROUP_PATH.get_ptr_mut(0)?;
    // SAFETY: this CPU's own copy, under the lock that the tracepoint's own buffer is under; the helpers check the
    // addresses.
    unsafe {
        let hierarchy = bpf_probe_read_kernel((root + offsets.hierarchy_id) as *const u32).ok()?;
        if hierarchy != DEFAULT_HIERARCHY {
            return None;
        }
        *written = NO_CGROUP_PATH;
        let read = bpf_probe_read_kernel_str_bytes(path as *const u8, &mut (*written).bytes).ok()?;
        // Cut off, perhaps.
        if read.len() >= CGROUP_PATH_LEN - 1 {
            return None;
        }
        let path: &CgroupPath = &*written;
        let target = LIMITED_PATHS.get(path).copied()?;
        let id = bpf_probe_read_kernel((node + offsets.node_id) as *const u64).ok()?;
        Some((id, target))
    }
}

/// The address that stands at an address.
#[inline(always)]
pub(crate) fn address_at(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address; a wrong one is an error, not a fault.
    unsafe { bpf_probe_read_kernel(address as *const u64).ok() }
}
