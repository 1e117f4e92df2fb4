//! The BPF objects of the whole machine, listed with bpf(2), so that no program for it has to be installed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// A kind of BPF object, and its commands in `enum bpf_cmd`.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    next_id: u32,
    fd_by_id: u32,
    /// Where its name is in `struct bpf_<kind>_info`; links have none.
    name_offset: Option<usize>,
}

pub(crate) const PROGRAMS: Kind = Kind { name: "program", next_id: 11, fd_by_id: 13, name_offset: Some(64) };
pub(crate) const KINDS: [Kind; 3] = [
    PROGRAMS,
    Kind { name: "map", next_id: 12, fd_by_id: 14, name_offset: Some(24) },
    Kind { name: "link", next_id: 31, fd_by_id: 30, name_offset: None },
];

const OBJ_GET_INFO_BY_FD: u32 = 15;
/// `BPF_OBJ_NAME_LEN`.
const NAME_LENGTH: usize = 16;

/// As much of `union bpf_attr` as a command needs; the kernel takes the rest for zero.
#[repr(C, align(8))]
pub(crate) struct Attr<const WORDS: usize>(pub(crate) [u32; WORDS]);

impl Kind {
    /// The ids of all objects of this kind.
    pub(crate) fn ids(&self) -> io::Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut last = 0;
        loop {
            // start_id, next_id
            let mut attr = Attr([last, 0, 0, 0]);
            match bpf(self.next_id, &mut attr) {
                Ok(_) => last = attr.0[1],
                Err(Errno::ENOENT) => return Ok(ids),
                Err(errno) => return Err(errno.into()),
            }
            ids.push(last);
        }
    }

    /// A descriptor of the object, which keeps it; none where it has gone.
    pub(crate) fn open(&self, id: u32) -> Result<OwnedFd, Errno> {
        open(self.fd_by_id, &mut Attr([id, 0, 0, 0]))
    }

    /// The type (a number of the kind's own enum) and name of an object; none where it has gone.
    pub(crate) fn describe(&self, id: u32) -> Option<String> {
        let bytes = info::<128>(self.open(id).ok()?.as_fd()).ok()?;
        Some(match self.name_offset {
            Some(at) => {
                format!("{:?}, type {}", name(&bytes, at), number(&bytes, 0))
            }
            None => format!("of program {}, type {}", number(&bytes, 8), number(&bytes, 0)),
        })
    }
}

/// The first bytes of what the kernel tells of an object: a `struct bpf_<kind>_info`. What it does not know of is zero.
pub(crate) fn info<const BYTES: usize>(object: BorrowedFd) -> Result<[u8; BYTES], Errno> {
    let mut info = [0_u8; BYTES];
    let [low, high] = address(info.as_mut_ptr());
    // bpf_fd, info_len, info
    let length = u32::try_from(BYTES).map_err(|_| Errno::EINVAL)?;
    bpf(OBJ_GET_INFO_BY_FD, &mut Attr([object.as_raw_fd().cast_unsigned(), length, low, high]))?;
    Ok(info)
}

/// A number in a structure of the kernel's.
pub(crate) fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// A long number in a structure of the kernel's.
pub(crate) fn long_number(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A name in a structure of the kernel's.
pub(crate) fn name(bytes: &[u8], at: usize) -> String {
    let name = bytes[at..at + NAME_LENGTH].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// An address as the kernel takes it: a u64, here in two halves.
pub(crate) fn address<T>(pointer: *const T) -> [u32; 2] {
    let bytes = (pointer.expose_provenance() as u64).to_ne_bytes();
    [number(&bytes, 0), number(&bytes, 4)]
}

/// A command that makes a descriptor.
pub(crate) fn open<const WORDS: usize>(command: u32, attr: &mut Attr<WORDS>) -> Result<OwnedFd, Errno> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<const WORDS: usize>(command: u32, attr: &mut Attr<WORDS>) -> Result<i32, Errno> {
    // SAFETY: `attr` is valid for reads and writes of the size that is passed. Of the commands used in this crate only
    // OBJ_GET_INFO_BY_FD writes elsewhere: to a buffer, alive in `info`, whose size is in `attr` too.
    let result = unsafe {
        let size = size_of::<Attr<WORDS>>();
        libc::syscall(libc::SYS_bpf, libc::c_long::from(command), std::ptr::from_mut(attr), size)
    };
    #[expect(clippy::cast_possible_truncation, reason = "zero or a descriptor")]
    Errno::result(result).map(|value| value as i32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_map_is_seen_until_it_is_closed() -> anyhow::Result<()> {
        const MAP_CREATE: u32 = 0;
        const ARRAY: u32 = 2;
        crate::require_root()?;
        let kind = &KINDS[1];
        let before = kind.ids()?;
        // Type, bytes of a key, bytes of a value, entries.
        let fd = open(MAP_CREATE, &mut Attr([ARRAY, 4, 8, 1]))?;
        // Others may make maps meanwhile.
        let new =
            || anyhow::Ok(kind.ids()?.into_iter().filter(|id| !before.contains(id)).collect::<Vec<_>>());
        let array = format!("\"\", type {ARRAY}");
        let ours = new()?.into_iter().find(|id| kind.describe(*id).as_deref() == Some(&array));
        let ours = ours.expect("the map is listed");
        drop(fd);
        crate::until("the map is freed", Duration::from_secs(5), || {
            Ok((!new()?.contains(&ours)).then_some(()))
        })
    }
}
