//! TCP without a buffer of the program's own: `sendfile` and `splice`.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;

use crate::announce;
use crate::args::Args;
use crate::family::Tally;

/// Bytes per call: what a pipe holds.
const PIECE: u64 = 64 << 10;

/// Sends out of a file, closes that half, and receives to the end by `splice`.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let to: SocketAddr = args.required("to")?;
    let bytes: u64 = args.required("bytes")?;
    let way: String = args.required("by")?;
    args.finish()?;
    let file = File::from(memfd_create(c"traffic", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(bytes)?;
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    announce(stream.local_addr()?);
    let (reader, writer) = pipe()?;
    match way.as_str() {
        "sendfile" => send_file(&file, &stream, bytes)?,
        "splice" => splice_file(&file, (&reader, &writer), &stream, bytes)?,
        other => bail!("I do not know how to send by {other}"),
    }
    stream.shutdown(Shutdown::Write)?;
    let (received, receipts) = splice_away(&stream, (&reader, &writer))?;
    let mut tally = Tally { sent: bytes, received, receipts, ..Tally::default() };
    tally.note_retransmissions(&stream)?;
    Ok(tally.report())
}

fn send_file(file: &File, stream: &TcpStream, bytes: u64) -> anyhow::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left)?;
        // SAFETY: two open descriptors; no offset, so that the file's own is used.
        let sent = unsafe { libc::sendfile(stream.as_raw_fd(), file.as_raw_fd(), ptr::null_mut(), length) };
        let sent = u64::try_from(Errno::result(sent).context("sendfile")?)?;
        ensure!(sent > 0, "the file ended {left} bytes early");
        left -= sent;
    }
    Ok(())
}

fn splice_file(
    file: &File,
    (reader, writer): (&PipeReader, &PipeWriter),
    stream: &TcpStream,
    bytes: u64,
) -> anyhow::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let mut in_pipe = splice(file.as_raw_fd(), writer.as_raw_fd(), left.min(PIECE))?;
        ensure!(in_pipe > 0, "the file ended {left} bytes early");
        left -= in_pipe;
        while in_pipe > 0 {
            in_pipe -= splice(reader.as_raw_fd(), stream.as_raw_fd(), in_pipe)?;
        }
    }
    Ok(())
}

/// Receives to the end; what comes goes nowhere. Returns bytes and calls.
fn splice_away(
    stream: &TcpStream,
    (reader, writer): (&PipeReader, &PipeWriter),
) -> anyhow::Result<(u64, u64)> {
    let mut nowhere = File::options().write(true).open("/dev/null")?;
    let (mut received, mut receipts) = (0, 0);
    loop {
        let mut in_pipe = splice(stream.as_raw_fd(), writer.as_raw_fd(), PIECE)?;
        if in_pipe == 0 {
            nowhere.flush()?;
            return Ok((received, receipts));
        }
        received += in_pipe;
        receipts += 1;
        while in_pipe > 0 {
            in_pipe -= splice(reader.as_raw_fd(), nowhere.as_raw_fd(), in_pipe)?;
        }
    }
}

fn splice(from: RawFd, to: RawFd, bytes: u64) -> anyhow::Result<u64> {
    // SAFETY: two open descriptors, one of them a pipe; no offsets.
    let moved =
        unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), usize::try_from(bytes)?, 0) };
    Ok(u64::try_from(Errno::result(moved).context("splice")?)?)
}
