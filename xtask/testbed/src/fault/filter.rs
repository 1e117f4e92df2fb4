//! The filter: calls that are decided on wait, all others do what they do.

use std::{io, os::fd::FromRawFd, os::fd::OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::calls::Trapped;

/// Where the number of the call and its arguments are in `struct seccomp_data` (include/uapi/linux/seccomp.h), and the
/// half of an argument that flags are in.
const NUMBER: u32 = 0;
const ARGUMENTS: u32 = 16;
const LOW_HALF: u32 = if cfg!(target_endian = "big") { 4 } else { 0 };

/// The program: for each call four instructions, which leave the number loaded for the next.
pub(super) fn program(calls: &[Trapped]) -> Vec<libc::sock_filter> {
    let mut program = vec![load(NUMBER)];
    for call in calls {
        let number = u32::try_from(call.number).unwrap_or(u32::MAX);
        match call.only {
            None => program.extend([jump(libc::BPF_JEQ, number, 0, 1), give(libc::SECCOMP_RET_USER_NOTIF)]),
            Some((argument, bits)) => program.extend([
                jump(libc::BPF_JEQ, number, 0, 4),
                load(ARGUMENTS + 8 * u32::try_from(argument).unwrap_or_default() + LOW_HALF),
                jump(libc::BPF_JSET, bits.cast_unsigned(), 0, 1),
                give(libc::SECCOMP_RET_USER_NOTIF),
                give(libc::SECCOMP_RET_ALLOW),
            ]),
        }
    }
    program.push(give(libc::SECCOMP_RET_ALLOW));
    program
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

fn load(at: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0)
}

fn jump(comparison: u32, to: u32, yes: u8, no: u8) -> libc::sock_filter {
    statement(libc::BPF_JMP | comparison | libc::BPF_K, to, yes, no)
}

fn give(verdict: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, verdict, 0, 0)
}

/// Puts it on this process. What waits is heard of by the descriptor that is returned, which an exec closes.
///
/// Called between fork and exec, so it allocates nothing.
pub(super) fn install(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the pointer is to a program that lives as long as the call, with its length; the kernel only reads it.
    let listener = unsafe {
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    let listener = i32::try_from(Errno::result(listener)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

#[cfg(test)]
mod tests {
    use super::super::calls::TRAPPED;
    use super::*;

    /// What the filter says of a call, by walking it as the kernel does.
    fn verdict(number: libc::c_long, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(i32::try_from(number).expect("a number").to_ne_bytes());
        data.extend([0; 12]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let program = program(TRAPPED);
        let (mut at, mut loaded) = (0, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let is = |comparison: u32| u32::from(step.code) == libc::BPF_JMP | comparison | libc::BPF_K;
            if u32::from(step.code) == libc::BPF_RET | libc::BPF_K {
                return step.k;
            } else if is(libc::BPF_JEQ) {
                at += usize::from(if loaded == step.k { step.jt } else { step.jf });
            } else if is(libc::BPF_JSET) {
                at += usize::from(if loaded & step.k != 0 { step.jt } else { step.jf });
            } else {
                let place = usize::try_from(step.k).expect("an offset");
                loaded = u32::from_ne_bytes(data[place..place + 4].try_into().expect("four bytes"));
            }
        }
    }

    #[test]
    fn what_changes_something_waits_and_what_reads_does_not() {
        let flags = |flags: libc::c_int| [0, 0, u64::from(flags.cast_unsigned()), 0, 0, 0];
        for (number, arguments, is_trapped) in [
            (libc::SYS_bpf, [0; 6], true),
            (libc::SYS_bind, [0; 6], true),
            (libc::SYS_read, [0; 6], false),
            (libc::SYS_openat, flags(libc::O_RDONLY | libc::O_CLOEXEC), false),
            (libc::SYS_openat, flags(libc::O_WRONLY | libc::O_CREAT), true),
            (libc::SYS_flock, [0; 6], true),
        ] {
            let expected = if is_trapped { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
            assert_eq!(verdict(number, arguments), expected, "call {number}");
        }
    }
}
