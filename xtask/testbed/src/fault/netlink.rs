//! Requests over netlink that are answered by us.

use std::io::{IoSlice, IoSliceMut};

use nix::errno::Errno;
use nix::libc;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// What a request is, by its first message.
pub(super) struct Request {
    pub(super) kind: u16,
    sequence: u32,
}

/// An answer that a socket waits for.
pub(super) struct Answer {
    sequence: u32,
    errno: Errno,
}

impl Request {
    /// Reads it from the memory of whoever sends it.
    pub(super) fn read(of: Pid, address: u64) -> Option<Self> {
        let mut header = [0; HEADER];
        let remote = RemoteIoVec { base: usize::try_from(address).ok()?, len: HEADER };
        let read = process_vm_readv(of, &mut [IoSliceMut::new(&mut header)], &[remote]).ok()?;
        (read == HEADER).then(|| Self {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
        })
    }

    pub(super) const fn answer(&self, errno: Errno) -> Answer {
        Answer { sequence: self.sequence, errno }
    }
}

impl Answer {
    /// As the kernel writes it: `struct nlmsghdr`, and `struct nlmsgerr` in it with the header of what was asked.
    fn bytes(&self) -> Vec<u8> {
        let error = -(self.errno as i32);
        let kind = u16::try_from(libc::NLMSG_ERROR).unwrap_or_default();
        let length = u32::try_from(2 * HEADER + size_of_val(&error)).unwrap_or_default();
        let mut bytes = Vec::new();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        // NLM_F_CAPPED.
        bytes.extend(0x100_u16.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(error.to_ne_bytes());
        bytes.extend([0; HEADER]);
        bytes
    }

    /// Writes it to where a recvfrom(2) with these arguments has its result. The length of that.
    pub(super) fn deliver(&self, to: Pid, arguments: &[u64; 6]) -> Option<i64> {
        let bytes = self.bytes();
        if u64::try_from(bytes.len()).ok()? > arguments[2] {
            return None;
        }
        write(to, arguments[1], &bytes)?;
        // `struct sockaddr_nl` of the kernel: family, padding, port 0, no groups.
        if arguments[4] != 0 && arguments[5] != 0 {
            let mut sender = [0; 12];
            sender[..2].copy_from_slice(&u16::try_from(libc::AF_NETLINK).ok()?.to_ne_bytes());
            write(to, arguments[4], &sender)?;
            write(to, arguments[5], &12_u32.to_ne_bytes())?;
        }
        i64::try_from(bytes.len()).ok()
    }
}

fn write(to: Pid, address: u64, bytes: &[u8]) -> Option<()> {
    let remote = RemoteIoVec { base: usize::try_from(address).ok()?, len: bytes.len() };
    let written = process_vm_writev(to, &[IoSlice::new(bytes)], &[remote]).ok()?;
    (written == bytes.len()).then_some(())
}
