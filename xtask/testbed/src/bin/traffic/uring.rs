//! TCP by `io_uring`, one operation at a time (`io_uring_setup(2)`, `io_uring_enter(2)`).

use std::fs::File;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::libc;
use serde_json::Value;

use crate::announce;
use crate::args::Args;
use crate::family::Tally;

// include/uapi/linux/io_uring.h
const IORING_OP_SEND: u8 = 26;
const IORING_OP_RECV: u8 = 27;
const IORING_OFF_SQ_RING: libc::off_t = 0;
const IORING_OFF_SQES: libc::off_t = 0x1000_0000;
const IORING_ENTER_GETEVENTS: libc::c_uint = 1;
const IORING_FEAT_SINGLE_MMAP: u32 = 1;
const IOSQE_ASYNC: u8 = 1 << 4;

/// Bytes per operation.
const PIECE: usize = 64 << 10;

/// Sends, closes that half, and receives to the end. With `--worker` a thread that the kernel makes for this process
/// does it.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let to: SocketAddr = args.required("to")?;
    let bytes: u64 = args.required("bytes")?;
    let flags = if args.flag("worker") { IOSQE_ASYNC } else { 0 };
    args.finish()?;
    let mut ring = Ring::open()?;
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    announce(stream.local_addr()?);
    let mut buffer = vec![b'x'; PIECE];
    let mut tally = Tally::default();
    while tally.sent < bytes {
        let length = PIECE.min(usize::try_from(bytes - tally.sent)?);
        tally.sent += ring.transfer(IORING_OP_SEND, flags, &stream, &mut buffer[..length])?;
    }
    stream.shutdown(Shutdown::Write)?;
    loop {
        let received = ring.transfer(IORING_OP_RECV, flags, &stream, &mut buffer)?;
        if received == 0 {
            tally.note_retransmissions(&stream)?;
            return Ok(tally.report());
        }
        tally.received += received;
        tally.receipts += 1;
    }
}

#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq_off: Offsets,
    cq_off: Offsets,
}

/// `io_sqring_offsets` and `io_cqring_offsets`, which differ in names only.
#[repr(C)]
#[derive(Default)]
struct Offsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags_or_overflow: u32,
    dropped_or_cqes: u32,
    array_or_flags: u32,
    resv: u32,
    user_addr: u64,
}

#[repr(C)]
#[derive(Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    msg_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    res: i32,
    flags: u32,
}

/// Two queues shared with the kernel, with room for one operation. They stay mapped until the program ends.
struct Ring {
    fd: File,
    params: Params,
    queues: *mut u8,
    submission: *mut Submission,
}

impl Ring {
    fn open() -> anyhow::Result<Self> {
        let mut params = Params::default();
        // SAFETY: the structure is the kernel's and lives through the call.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) };
        let fd = i32::try_from(Errno::result(fd).context("io_uring_setup")?)?;
        // SAFETY: the kernel has just made it for us.
        let fd = unsafe { File::from_raw_fd(fd) };
        ensure!(params.features & IORING_FEAT_SINGLE_MMAP != 0, "this kernel is older than 5.4");
        let submissions = params.sq_off.array_or_flags as usize + size_of::<u32>();
        let completions =
            params.cq_off.dropped_or_cqes as usize + params.cq_entries as usize * size_of::<Completion>();
        let queues = map(&fd, IORING_OFF_SQ_RING, submissions.max(completions))?;
        let submission = map(&fd, IORING_OFF_SQES, size_of::<Submission>())?.cast();
        Ok(Self { fd, params, queues, submission })
    }

    /// Sends or receives, and waits until that is done.
    fn transfer(
        &mut self,
        opcode: u8,
        flags: u8,
        stream: &TcpStream,
        buffer: &mut [u8],
    ) -> anyhow::Result<u64> {
        let submission = Submission {
            opcode,
            flags,
            fd: stream.as_raw_fd(),
            addr: buffer.as_mut_ptr() as u64,
            len: u32::try_from(buffer.len())?,
            ..Submission::default()
        };
        // SAFETY: the kernel looks at the one entry, whose number in the array is 0 from the beginning, when the tail
        // has moved on; the buffer lives until the operation is complete, which is waited for.
        unsafe {
            self.submission.write(submission);
            self.word(self.params.sq_off.tail).fetch_add(1, Ordering::Release);
        }
        let fd = self.fd.as_raw_fd();
        let none = ptr::null::<u8>();
        loop {
            // SAFETY: a descriptor of ours, and no signal mask.
            let result =
                unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, none, 0) };
            match Errno::result(result) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("io_uring_enter"),
            }
        }
        // SAFETY: within the mapping, by the kernel's own offsets; an entry is complete when the tail has passed it.
        let completion = unsafe {
            let head = self.word(self.params.cq_off.head);
            let number = head.load(Ordering::Relaxed);
            ensure!(
                self.word(self.params.cq_off.tail).load(Ordering::Acquire) != number,
                "nothing is complete"
            );
            let mask = self.word(self.params.cq_off.ring_mask).load(Ordering::Relaxed);
            let entries = self.queues.add(self.params.cq_off.dropped_or_cqes as usize);
            let entry = entries.add((number & mask) as usize * size_of::<Completion>());
            let completion = ptr::read_unaligned(entry.cast::<Completion>());
            head.store(number.wrapping_add(1), Ordering::Release);
            completion
        };
        let error = || Errno::from_raw(-completion.res);
        u64::try_from(completion.res).map_err(|_| error()).with_context(|| format!("operation {opcode}"))
    }

    /// A word in the queues.
    ///
    /// # Safety
    /// The offset is one of the kernel's.
    unsafe fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: within the mapping, and aligned: as promised by the caller.
        unsafe { AtomicU32::from_ptr(self.queues.add(offset as usize).cast()) }
    }
}

fn map(fd: &File, offset: libc::off_t, length: usize) -> anyhow::Result<*mut u8> {
    // SAFETY: a new mapping, wherever there is room.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            fd.as_raw_fd(),
            offset,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(Errno::last()).context("cannot map the queues");
    }
    Ok(address.cast())
}
