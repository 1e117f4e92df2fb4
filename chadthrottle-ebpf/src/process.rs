//! Which process is it, what is it called, and has it ended?
//!
//! What is known of a process is noted when it opens or uses its first socket, and kept up to date: when it has ended
//! nobody else can tell any more.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{
        bpf_get_current_comm, bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes,
        generated::{bpf_get_current_task, bpf_get_current_task_btf},
    },
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use chadthrottle_common::{NS_PER_TICK, ProcessKey, ProcessRecord, ProgramPath};

use crate::{
    maps::{EXECUTED, PATH, PROCESSES, PROGRAMS, count_lost},
    membership,
    named::address_at,
    offsets::{CgroupOffsets, TaskOffsets, binprm_interp, tgid_of},
};

/// A task that belongs to the kernel (`PF_KTHREAD`, include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;

/// The current process.
#[inline(always)]
pub(crate) fn current_process() -> Option<ProcessKey> {
    // SAFETY: the helper returns the current task, valid for the program's run.
    identify(unsafe { bpf_get_current_task() })
}

/// The id of the current process. The helper for that may not be called from packet hooks before Linux 6.10, and this is
/// one instruction more than none.
#[inline(always)]
pub(crate) fn current_tgid() -> u32 {
    // SAFETY: the helper returns the current task, of which the verifier knows what it is.
    unsafe { tgid_of(bpf_get_current_task_btf() as *const c_void) }
}

/// Whether the current task is the kernel's own.
#[inline(always)]
pub(crate) fn is_kernel_thread() -> bool {
    // SAFETY: the helpers check the address.
    let flags = unsafe {
        let task = bpf_get_current_task();
        bpf_probe_read_kernel((task + TaskOffsets::load().flags) as *const u32)
    };
    flags.map_or(true, |flags| flags & PF_KTHREAD != 0)
}

/// Notes what is known of the current process.
#[inline(always)]
pub(crate) fn note(process: ProcessKey) {
    // SAFETY: looked up for existence alone.
    if unsafe { PROCESSES.get(process) }.is_some() {
        return;
    }
    let record = record_of_current();
    // A race with another thread of the process writes the same, so only a full table counts.
    if PROCESSES.insert(process, record, u64::from(BPF_ANY)).is_err() {
        count_lost();
    }
    // From here on it is not to make room for those of others.
    // SAFETY: copied by the helper at once.
    if let Some(program) = unsafe { PROGRAMS.get(process) } {
        // Where there is no room for it, there was none for the record.
        let _ = EXECUTED.insert(process, program, u64::from(BPF_ANY));
    }
}

/// What the current task shows of its process. Read from the task itself: packet hooks may not call the helpers that tell
/// a name (before Linux 6.15 or so), a user or a cgroup.
#[inline(always)]
fn record_of_current() -> ProcessRecord {
    let (task, cgroup) = (TaskOffsets::load(), CgroupOffsets::load());
    // SAFETY: the helper returns the current task, valid for the program's run.
    let current = unsafe { bpf_get_current_task() };
    // SAFETY: the helpers check the addresses; a wrong one is an error, not a fault.
    unsafe {
        let uid = address_at(current + task.cred)
            .and_then(|cred| bpf_probe_read_kernel((cred + task.cred_uid) as *const u32).ok());
        let cgroup_id = address_at(current + task.cgroups)
            .and_then(|cgroups| address_at(cgroups + task.cgroups_default))
            .and_then(|default| address_at(default + cgroup.node))
            .and_then(|node| bpf_probe_read_kernel((node + cgroup.node_id) as *const u64).ok());
        ProcessRecord {
            comm: bpf_probe_read_kernel((current + task.comm) as *const [u8; 16]).unwrap_or_default(),
            cgroup_id: cgroup_id.unwrap_or_default(),
            uid: uid.unwrap_or_default(),
            ..ProcessRecord::default()
        }
    }
}

/// A process or thread was made: the child runs its parent's program, and is a member of its parent's target where
/// children inherit that.
#[inline(always)]
pub(crate) fn forked(ctx: &BtfTracePointContext) {
    let (parent, child): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let (Some(parent), Some(child)) = (identify(parent), identify(child)) else {
        count_lost();
        return;
    };
    // A new thread: the process is known already.
    if parent == child {
        return;
    }
    // SAFETY: copied by the helper at once.
    if let Some(program) = unsafe { PROGRAMS.get(parent) } {
        // Full or not: the oldest one goes.
        let _ = PROGRAMS.insert(child, program, u64::from(BPF_ANY));
    }
    if membership::inherit(parent, child) {
        debug!(ctx, "{} is limited with its parent {}", child.tgid(), parent.tgid());
    }
}

/// The current process executes another program: the tracepoint has the task, its old pid and what is executed.
#[inline(always)]
pub(crate) fn executed(ctx: &BtfTracePointContext) {
    let (task, binprm): (u64, u64) = (ctx.arg(0), ctx.arg(2));
    let Some(process) = identify(task) else { return };
    let Some(path) = PATH.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own copy; the helpers check the addresses. A preempted program's path may be overwritten by
    // another's: of two programs that start at the same instant on one CPU one may get the other's path, until /proc
    // is asked.
    unsafe {
        // Of a script it is the interpreter, as /proc/PID/exe has it.
        let Ok(name) = bpf_probe_read_kernel((binprm + binprm_interp()) as *const u64) else { return };
        if bpf_probe_read_kernel_str_bytes(name as *const u8, &mut (*path).bytes).is_ok() {
            let path: &ProgramPath = &*path;
            let _ = PROGRAMS.insert(process, path, u64::from(BPF_ANY));
            if PROCESSES.get(process).is_some() {
                let _ = EXECUTED.insert(process, path, u64::from(BPF_ANY));
            }
        }
    }
    renamed_to(process, bpf_get_current_comm().unwrap_or_default());
    membership::executes(process, binprm);
}

/// A task gets another name; a process's name is that of its leader.
#[inline(always)]
pub(crate) fn renamed(ctx: &BtfTracePointContext) {
    let (task, name): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let offsets = TaskOffsets::load();
    // SAFETY: the helper checks the addresses.
    unsafe {
        let leader = bpf_probe_read_kernel((task + offsets.group_leader) as *const u64);
        if leader != Ok(task) {
            return;
        }
        let Some(process) = identify(task) else { return };
        let mut comm = [0; 16];
        if bpf_probe_read_kernel_str_bytes(name as *const u8, &mut comm).is_ok() {
            renamed_to(process, comm);
        }
    }
}

#[inline(always)]
fn renamed_to(process: ProcessKey, comm: [u8; 16]) {
    if let Some(record) = PROCESSES.get_ptr_mut(process) {
        // SAFETY: a live map value. Who reads it half-written sees `changes` move once more.
        unsafe {
            (*record).comm = comm;
            (*record).changes += 1;
        }
    }
}

/// A task ends, and with the last one its process.
#[inline(always)]
pub(crate) fn ended(ctx: &BtfTracePointContext) {
    let task: u64 = ctx.arg(0);
    let offsets = TaskOffsets::load();
    // SAFETY: the helper checks the addresses.
    let alive = unsafe {
        bpf_probe_read_kernel((task + offsets.signal) as *const u64)
            .and_then(|signal| bpf_probe_read_kernel((signal + offsets.signal_live) as *const i32))
    };
    // `do_exit` has taken this task off already (kernel/exit.c).
    if alive.is_ok_and(|alive| alive > 0) {
        return;
    }
    let Some(process) = identify(task) else { return };
    if let Some(record) = PROCESSES.get_ptr_mut(process) {
        // SAFETY: a live map value.
        unsafe { (*record).has_ended = 1 };
    } else {
        // It never had a socket: nobody will ask, and nothing of it is left to be limited.
        let _ = PROGRAMS.remove(process);
        membership::forget(process);
    }
}

/// Who the task at `task` belongs to: the thread group, and when its leader started.
#[inline(always)]
fn identify(task: u64) -> Option<ProcessKey> {
    let offsets = TaskOffsets::load();
    // SAFETY: the helper checks the address; a wrong one is an error, not a fault.
    unsafe {
        let leader: u64 = bpf_probe_read_kernel((task + offsets.group_leader) as *const u64).ok()?;
        let tgid: u32 = bpf_probe_read_kernel((task + offsets.tgid) as *const u32).ok()?;
        let start_ns: u64 = bpf_probe_read_kernel((leader + offsets.start_boottime) as *const u64).ok()?;
        Some(ProcessKey::new(tgid, start_ns / NS_PER_TICK))
    }
}

/// The helper returns two numbers of 32 bits in one: the user id is the lower one.
#[inline(always)]
pub(crate) const fn lower_half(both: u64) -> u32 {
    (both & 0xffff_ffff) as u32
}
