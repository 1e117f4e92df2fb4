//! The BPF objects of the whole machine, listed with bpf(2), so that no program for it has to be installed.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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

pub(crate) const KINDS: [Kind; 3] = [
    Kind { name: "program", next_id: 11, fd_by_id: 13, name_offset: Some(64) },
    Kind { name: "map", next_id: 12, fd_by_id: 14, name_offset: Some(24) },
    Kind { name: "link", next_id: 31, fd_by_id: 30, name_offset: None },
];

const OBJ_GET_INFO_BY_FD: u32 = 15;
/// `BPF_OBJ_NAME_LEN`.
const NAME_LENGTH: usize = 16;

/// The part of `union bpf_attr` that all commands used here fit into.
#[repr(C, align(8))]
#[derive(Default)]
struct Attr([u32; 4]);

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

    /// The type (a number of the kind's own enum) and name of an object; none where it has gone.
    pub(crate) fn describe(&self, id: u32) -> Option<String> {
        let fd = bpf(self.fd_by_id, &mut Attr([id, 0, 0, 0])).ok()?;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut info = [0_u64; 16];
        // The kernel takes the address of the buffer as a u64.
        let address = (info.as_mut_ptr().expose_provenance() as u64).to_ne_bytes();
        let halves = [number(&address, 0), number(&address, 4)];
        // bpf_fd, info_len, info
        let length = u32::try_from(size_of_val(&info)).ok()?;
        let mut attr = Attr([fd.as_raw_fd().cast_unsigned(), length, halves[0], halves[1]]);
        bpf(OBJ_GET_INFO_BY_FD, &mut attr).ok()?;
        let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Some(match self.name_offset {
            Some(at) => {
                let name = bytes[at..at + NAME_LENGTH].split(|byte| *byte == 0).next().unwrap_or_default();
                format!("{:?}, type {}", String::from_utf8_lossy(name), number(&bytes, 0))
            }
            None => format!("of program {}, type {}", number(&bytes, 8), number(&bytes, 0)),
        })
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn bpf(command: u32, attr: &mut Attr) -> Result<i32, Errno> {
    // SAFETY: `attr` is valid for reads and writes of the size that is passed. Of the commands used here only
    // OBJ_GET_INFO_BY_FD writes elsewhere: to a buffer, alive in `describe`, whose size is in `attr` too.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, libc::c_long::from(command), std::ptr::from_mut(attr), size_of::<Attr>())
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
        let fd = bpf(MAP_CREATE, &mut Attr([ARRAY, 4, 8, 1]))?;
        // SAFETY: as in `describe`.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
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
