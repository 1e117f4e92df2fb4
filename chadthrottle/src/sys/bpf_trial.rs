//! Whether the kernel takes a program of a kind: one that does nothing is loaded, attached to nothing, and thrown away.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use nix::libc;

/// `BPF_PROG_LOAD` (include/uapi/linux/bpf.h).
const PROG_LOAD: libc::c_long = 5;
/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Of two bit-fields, whose order is that of the machine's bytes.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, immediate: i32) -> Instruction {
    let registers = if cfg!(target_endian = "big") { to << 4 | from } else { from << 4 | to };
    Instruction { code, registers, offset: 0, immediate }
}

/// `r0 = 0`, and `exit`.
const NOTHING: [Instruction; 2] = [instruction(0xb7, 0, 0, 0), instruction(0x95, 0, 0, 0)];
/// Reads eight bytes at address 0 to its stack by `bpf_probe_read_kernel`, which fails and harms nothing, then the same.
const READING: [Instruction; 7] = [
    instruction(0xbf, 1, 10, 0),
    instruction(0x07, 1, 0, -8),
    instruction(0xb7, 2, 0, 8),
    instruction(0xb7, 3, 0, 0),
    instruction(0x85, 0, 0, 113),
    NOTHING[0],
    NOTHING[1],
];
/// Asks for the current task by `bpf_get_current_task_btf`, then the same.
const ASKING: [Instruction; 3] = [instruction(0x85, 0, 0, 158), NOTHING[0], NOTHING[1]];
/// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
const RAW_TRACEPOINT: u32 = 17;
/// `BPF_PROG_TYPE_CGROUP_SKB`.
const PACKETS: u32 = 8;

/// A kind of program that is about a function of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_PROG_TYPE_TRACING` with `BPF_TRACE_FENTRY`.
    Fentry,
    /// `BPF_PROG_TYPE_LSM` with `BPF_LSM_MAC`.
    Lsm,
}

/// The part of `union bpf_attr` that is needed to load one.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
    attach_btf_fd: u32,
    core_relocation_count: u32,
}

/// Loads one that is about the function with this number in the kernel's BTF.
///
/// # Errors
/// Why the kernel does not take it.
pub fn load(kind: Kind, function: u32) -> io::Result<()> {
    let (program_type, attach_type) = match kind {
        Kind::Fentry => (26, 24),
        Kind::Lsm => (29, 27),
    };
    load_as(program_type, attach_type, function, &NOTHING)
}

/// Whether programs may read the kernel's memory. Where it is locked down for confidentiality, the call for that is unknown
/// to those that are loaded (`bpf_tracing_func_proto`, `kernel/trace/bpf_trace.c`).
///
/// # Errors
/// Why the kernel takes no program that does: `EINVAL` where it is for that reason.
pub fn load_reader() -> io::Result<()> {
    load_as(RAW_TRACEPOINT, 0, 0, &READING)
}

/// Whether programs that see packets may ask for the current task: before Linux 5.15 only those may that trace
/// (`bpf_base_func_proto`, `kernel/bpf/helpers.c`).
///
/// # Errors
/// Why the kernel takes no program that does: `EINVAL` where it is for that reason.
pub fn load_asking() -> io::Result<()> {
    load_as(PACKETS, 0, 0, &ASKING)
}

fn load_as(
    program_type: u32,
    attach_type: u32,
    function: u32,
    instructions: &[Instruction],
) -> io::Result<()> {
    let attributes = Attributes {
        program_type,
        attach_type,
        instruction_count: u32::try_from(instructions.len()).unwrap_or(0),
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_btf_id: function,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads `attributes`, of that size, and what its two pointers lead to, all of which outlive the
    // call; a non-negative result is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Attributes>());
        match RawFd::try_from(fd) {
            Ok(fd) if fd >= 0 => drop(OwnedFd::from_raw_fd(fd)),
            _ => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_as_the_kernel_reads_them() {
        assert_eq!(size_of::<Instruction>(), 8);
        let copy = instruction(0xbf, 1, 10, -8);
        assert_eq!(copy.code, 0xbf);
        assert_eq!(copy.registers, if cfg!(target_endian = "big") { 0x1a } else { 0xa1 });
        assert_eq!((copy.offset, copy.immediate), (0, -8));
    }
}
