//! Whole maps of the kernel: hash tables read in batches, a few system calls however many entries there are, and arrays
//! mapped into memory, which take none.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

use aya::Pod;
use nix::{
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

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
    // The kernel rounds the size of each copy up to eight bytes (`__htab_map_lookup_and_delete_batch`).
    debug_assert!(copies == 1 || size_of::<V>().is_multiple_of(8));
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

/// An array of the kernel in the memory of this process.
#[derive(Debug)]
pub struct Mapped<T> {
    entries: NonNull<T>,
    length: usize,
    bytes: usize,
}

impl<T: Pod> Mapped<T> {
    /// Maps an array of `length` entries that was made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(map: impl AsFd, length: usize) -> io::Result<Self> {
        const {
            // The kernel rounds the size of an entry up to eight bytes (`array_map_alloc`).
            assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8 && size_of::<T>() > 0);
        }
        let bytes = length * size_of::<T>();
        let size = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let entries = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, map, 0)? };
        Ok(Self { entries: entries.cast(), length, bytes })
    }

    /// A copy of an entry. The kernel writes to it at the same time, word by word.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        // SAFETY: inside the mapping; every bit pattern is a value.
        (index < self.length).then(|| unsafe { self.entries.add(index).read_volatile() })
    }

    /// A number in an entry, to be changed while the kernel does.
    #[must_use]
    pub fn word(&self, index: usize, offset: usize) -> Option<&AtomicU64> {
        let is_inside = index < self.length && offset + size_of::<u64>() <= size_of::<T>();
        // SAFETY: inside the mapping, which begins with a page, and every entry is a multiple of eight bytes long. Nobody
        // here has a reference to it that is not atomic.
        (is_inside && offset.is_multiple_of(8))
            .then(|| unsafe { AtomicU64::from_ptr(self.entries.add(index).byte_add(offset).cast().as_ptr()) })
    }

    /// Replaces an entry.
    pub fn set(&mut self, index: usize, value: T) {
        if index < self.length {
            // SAFETY: inside the mapping.
            unsafe { self.entries.add(index).write_volatile(value) };
        }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and gone with it.
        let unmapped = unsafe { munmap(self.entries.cast(), self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

// SAFETY: it is memory that belongs to nobody else in this process.
unsafe impl<T: Send> Send for Mapped<T> {}
