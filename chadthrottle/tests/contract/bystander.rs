//! What is set on the sockets of another process.

use chadthrottle::sys::{
    pidfd::{self, PidFd},
    tcp_socket::TcpSocket,
};

/// The pacing and the receive window's lock of all of its connections, and their priorities and marks.
pub(super) fn options(pid: u32) -> anyhow::Result<Vec<String>> {
    let pid = i32::try_from(pid)?;
    let process = PidFd::open(pid)?;
    let mut all = Vec::new();
    for fd in pidfd::sockets(pid)? {
        let carried = carried(&process, fd)?;
        let Some(socket) = TcpSocket::new(process.duplicate(fd)?) else { continue };
        let (pacing, lock) = (socket.info()?.max_pacing_rate, socket.receive_buffer_locked()?);
        all.push(format!("{fd}: paced at {pacing}, locked: {lock}, {carried}"));
    }
    Ok(all)
}

#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables", feature = "throttle-ifb-tc"))]
fn carried(process: &PidFd, fd: std::os::fd::RawFd) -> anyhow::Result<String> {
    use chadthrottle::sys::socket_tag::{Field, TaggedSocket};

    let Some(socket) = TaggedSocket::new(process.duplicate(fd)?) else { return Ok(String::new()) };
    let (priority, mark) = (socket.field(Field::Priority)?, socket.field(Field::Mark)?);
    Ok(format!("priority {priority:x}, mark {mark:x}"))
}

#[cfg(not(any(feature = "throttle-tc-htb", feature = "throttle-nftables", feature = "throttle-ifb-tc")))]
fn carried(_: &PidFd, _: std::os::fd::RawFd) -> anyhow::Result<String> {
    Ok(String::new())
}
