//! Kernels as they used to be, by seccomp(2): calls that they did not know fail as they did.

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::libc;

/// Where the number of the call and its third argument, the name of the option, are in `struct seccomp_data`
/// (include/uapi/linux/seccomp.h).
const NUMBER: u32 = 0;
const OPTION: u32 = 16 + 2 * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };

/// Makes a command and all that it starts run as on a kernel before 5.15, which knows no `SO_BUF_LOCK`.
///
/// Only calls of this machine's own architecture are looked at.
pub fn without_buffer_lock(command: &mut Command) -> &mut Command {
    let calls = [libc::SYS_getsockopt, libc::SYS_setsockopt].map(|call| u32::try_from(call).unwrap_or(0));
    let option = libc::SO_BUF_LOCK.unsigned_abs();
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOPROTOOPT.unsigned_abs();
    let load = |at: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let equal =
        |to: u32, yes: u8, no: u8| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to, yes, no);
    let give = |verdict: u32| statement(libc::BPF_RET | libc::BPF_K, verdict, 0, 0);
    // The level is not looked at: no other one that is used here has an option of this number.
    let filter = [
        load(NUMBER),
        equal(calls[0], 1, 0),
        equal(calls[1], 0, 2),
        load(OPTION),
        equal(option, 1, 0),
        give(libc::SECCOMP_RET_ALLOW),
        give(refuse),
    ];
    // SAFETY: what runs between fork and exec are two system calls and nothing that allocates.
    unsafe { command.pre_exec(move || install(&filter)) }
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

fn install(filter: &[libc::sock_filter; 7]) -> io::Result<()> {
    let program = libc::sock_fprog { len: 7, filter: filter.as_ptr().cast_mut() };
    let (on, off) = (1 as libc::c_ulong, 0 as libc::c_ulong);
    // SAFETY: numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, off, off, off) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the pointer is to a program that lives as long as the call, with its length; the kernel only reads it.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
