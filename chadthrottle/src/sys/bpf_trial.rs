//! Whether the kernel takes a program of a kind: one that does nothing is loaded, attached to nothing, and thrown away.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use nix::libc;

/// `BPF_PROG_LOAD` (include/uapi/linux/bpf.h).
const PROG_LOAD: libc::c_long = 5;
/// `r0 = 0; exit`, as `struct bpf_insn` each.
const NOTHING: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

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
    let attributes = Attributes {
        program_type,
        attach_type,
        instruction_count: 2,
        instructions: NOTHING.as_ptr() as u64,
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
