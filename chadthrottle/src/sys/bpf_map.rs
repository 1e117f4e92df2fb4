//! Whole maps of the kernel, read in batches: a few system calls, however many entries there are.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::Pod;
use nix::libc;

/// `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h), for hash tables since Linux 5.6.
const LOOKUP_BATCH: libc::c_long = 24;
/// Entries that are asked for at once, at first.
const BATCH: usize = 256;
/// More than that is in no bucket of a table that hashes.
const MOST: usize = 1 << 16;

/// The part of `union bpf_attr` that the batch commands read.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Shows every entry of a hash table. `copies` is 1, or the number of possible CPUs where each has its own copy of the
/// values. Entries that come or go meanwhile may be shown or not, the others once.
///
/// # Errors
/// When the kernel refuses.
pub fn read_all<K: Pod + Default, V: Pod + Default>(
    map: impl AsFd,
    copies: usize,
    mut each: impl FnMut(K, &[V]),
) -> io::Result<()> {
    const {
        // The kernel rounds the size of each copy up to eight bytes (`bpf_map_copy_value`); these are that already.
        assert!(size_of::<V>().is_multiple_of(8));
    }
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let mut room = BATCH;
    // Where the kernel goes on: the number of a bucket.
    let mut position: Option<u32> = None;
    loop {
        keys.resize(room, K::default());
        values.resize(room * copies, V::default());
        let mut next = 0_u32;
        let (count, result) = lookup(map.as_fd(), position.as_ref(), &mut next, &mut keys, &mut values);
        for index in 0..count {
            each(keys[index], &values[index * copies..(index + 1) * copies]);
        }
        match result {
            Ok(()) => position = Some(next),
            Err(libc::ENOENT) => return Ok(()),
            // The next bucket holds more than there is room for; none has been read
            // (`__htab_map_lookup_and_delete_batch`, kernel/bpf/hashtab.c).
            Err(libc::ENOSPC) if room < MOST => room *= 2,
            Err(error) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// One call. Returns how many entries there are now in `keys` and `values`, and the error number if it failed.
fn lookup<K, V>(
    map: BorrowedFd<'_>,
    position: Option<&u32>,
    next: &mut u32,
    keys: &mut [K],
    values: &mut [V],
) -> (usize, Result<(), i32>) {
    let address = |pointer: *const libc::c_void| pointer as u64;
    let mut attributes = Attributes {
        in_batch: position.map_or(0, |position| address(std::ptr::from_ref(position).cast())),
        out_batch: address(std::ptr::from_mut(next).cast()),
        keys: address(keys.as_mut_ptr().cast()),
        values: address(values.as_mut_ptr().cast()),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: map.as_raw_fd().unsigned_abs(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel writes at most `count` keys and as many values (times the number of possible CPUs, which the
    // caller made room for), and one word to `next`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LOOKUP_BATCH,
            std::ptr::from_mut(&mut attributes),
            size_of::<Attributes>(),
        )
    };
    if result == 0 {
        return (attributes.count as usize, Ok(()));
    }
    let error = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    // With these two the kernel has said how many it found; with others `count` is still what it was.
    let count = match error {
        libc::ENOENT => attributes.count as usize,
        _ => 0,
    };
    (count, Err(error))
}
