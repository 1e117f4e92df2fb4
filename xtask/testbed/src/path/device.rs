//! A TUN device (Documentation/networking/tuntap.rst).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;

/// `struct ifreq` as `TUNSETIFF` reads it: a name and flags.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

/// Makes a TUN device in the network namespace of the calling thread. It goes when the file is closed.
///
/// It takes and gives super-packets of TCP whose checksums are not filled in, as the kernel has them anyway.
pub(super) fn open(name: &str) -> anyhow::Result<File> {
    let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = open.context("cannot open /dev/net/tun (CONFIG_TUN; `modprobe tun`)")?;
    set_up(&file, name).with_context(|| format!("cannot make the TUN device {name}"))?;
    Ok(file)
}

fn set_up(file: &File, name: &str) -> io::Result<()> {
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags, padding: [0; 22] };
    // One byte of the name stays zero.
    for (to, from) in request.name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the request is a live `struct ifreq`, as this ioctl wants it.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let offload = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6);
    // SAFETY: this ioctl takes a number.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offload) })?;
    Ok(())
}
