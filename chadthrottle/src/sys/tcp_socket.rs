//! What one may ask of and set on a TCP socket, be it one's own or a duplicate of another process's.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::libc;

use super::tcp_info::TcpInfo;

/// The least window that the kernel takes, in bytes: half of `SOCK_MIN_RCVBUF` (`tcp_set_window_clamp`,
/// net/ipv4/tcp.c).
pub const LEAST_WINDOW: u32 = 1152;
/// The pacing rate that stands for none.
pub const UNPACED: u64 = u64::MAX;
/// `SOCK_RCVBUF_LOCK` (include/uapi/linux/socket.h): the buffer is as long as it was set, and never grows by itself.
const RECEIVE_BUFFER_LOCK: u32 = 2;
/// More than the `tcp_info` of any kernel so far.
const INFO_ROOM: usize = 512;

/// A TCP socket. While it lives, the connection does: where it is a duplicate, keep it for as short as possible.
#[derive(Debug)]
pub struct TcpSocket(TcpStream);

impl TcpSocket {
    /// Takes a descriptor. None where it is no TCP socket over IP.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Option<Self> {
        Self::of(socket).ok().flatten()
    }

    /// The same, for who would take it for something else for ever.
    ///
    /// # Errors
    /// When the kernel does not tell what it is.
    pub fn of(socket: OwnedFd) -> io::Result<Option<Self>> {
        let number = |option| get::<libc::c_int>(&socket, libc::SOL_SOCKET, option);
        let is_tcp = number(libc::SO_DOMAIN).and_then(|domain| {
            Ok(matches!(domain, libc::AF_INET | libc::AF_INET6)
                && number(libc::SO_PROTOCOL)? == libc::IPPROTO_TCP)
        });
        match is_tcp {
            Err(error) if error.raw_os_error() != Some(libc::ENOTSOCK) => Err(error),
            is_tcp => Ok(is_tcp.unwrap_or_default().then(|| Self(socket.into()))),
        }
    }

    /// Takes a descriptor that is one, if it is still the socket with this cookie.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn known(socket: OwnedFd, cookie: u64) -> io::Result<Option<Self>> {
        let socket = Self(socket.into());
        Ok((socket.cookie()? == cookie).then_some(socket))
    }

    /// The number that tells it from all other sockets since boot.
    ///
    /// # Errors
    /// When the kernel does not tell (before 4.12).
    pub fn cookie(&self) -> io::Result<u64> {
        get(&self.0, libc::SOL_SOCKET, libc::SO_COOKIE)
    }

    /// Its own address and that of the other end.
    ///
    /// # Errors
    /// When it is not connected.
    pub fn ends(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.0.local_addr()?, self.0.peer_addr()?))
    }

    /// What it tells of itself.
    ///
    /// # Errors
    /// When the kernel refuses, or tells less than Linux 4.2 does.
    pub fn info(&self) -> io::Result<TcpInfo> {
        let mut bytes = [0_u8; INFO_ROOM];
        let length = get_bytes(&self.0, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
        TcpInfo::read(&bytes[..length]).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Paces what it sends: payload in bytes a second, or [`UNPACED`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_max_pacing_rate(&self, rate: u64) -> io::Result<()> {
        set(&self.0, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, rate)
    }

    /// Has TCP try to send what it has been given and has not sent, as whoever takes a cork off that is not there does
    /// (`__tcp_sock_set_cork`, net/ipv4/tcp.c). Nothing where the program itself has put a cork on.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn push(&self) -> io::Result<()> {
        let cork: u32 = get(&self.0, libc::IPPROTO_TCP, libc::TCP_CORK)?;
        if cork == 0 { set(&self.0, libc::IPPROTO_TCP, libc::TCP_CORK, 0_u32) } else { Ok(()) }
    }

    /// The most that its receive window opens, in bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn window_clamp(&self) -> io::Result<u32> {
        get(&self.0, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP)
    }

    /// Sets the most that its receive window opens. The kernel makes at least [`LEAST_WINDOW`] of it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_window_clamp(&self, bytes: u32) -> io::Result<()> {
        set(&self.0, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, bytes)
    }

    /// The length of its receive buffer in bytes, with what the kernel adds for itself.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn receive_buffer(&self) -> io::Result<u32> {
        get(&self.0, libc::SOL_SOCKET, libc::SO_RCVBUF)
    }

    /// Whether its receive buffer never grows by itself.
    ///
    /// # Errors
    /// `ENOPROTOOPT` before Linux 5.15.
    pub fn receive_buffer_locked(&self) -> io::Result<bool> {
        Ok(self.buffer_locks()? & RECEIVE_BUFFER_LOCK != 0)
    }

    /// Sets whether its receive buffer grows by itself. That of the send buffer stays as it is.
    ///
    /// # Errors
    /// `ENOPROTOOPT` before Linux 5.15.
    pub fn lock_receive_buffer(&self, lock: bool) -> io::Result<()> {
        let others = self.buffer_locks()? & !RECEIVE_BUFFER_LOCK;
        let locks = if lock { others | RECEIVE_BUFFER_LOCK } else { others };
        set(&self.0, libc::SOL_SOCKET, libc::SO_BUF_LOCK, locks)
    }

    fn buffer_locks(&self) -> io::Result<u32> {
        get(&self.0, libc::SOL_SOCKET, libc::SO_BUF_LOCK)
    }
}

/// An option that is a number.
fn get<T: Number>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = length_of::<T>();
    // SAFETY: the pointers are to a live number of this length, any bits of which are one, and to its length.
    let result = unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value, &raw mut length)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn get_bytes(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    bytes: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(bytes.len()).unwrap_or_default();
    // SAFETY: the pointers are to a live buffer of this length and to its length.
    let result = unsafe {
        let bytes = bytes.as_mut_ptr().cast();
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, bytes, &raw mut length)
    };
    if result == 0 {
        Ok(usize::try_from(length).unwrap_or_default())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set<T: Number>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: the pointer is to a live number of this length.
    let result = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value, length_of::<T>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}

/// What options are made of: any bits are a value.
trait Number: Copy + Default {}
impl Number for i32 {}
impl Number for u32 {}
impl Number for u64 {}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, UdpSocket},
        time::Duration,
    };

    use super::*;

    fn connected() -> (TcpSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("ports are left");
        let near = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (far, _) = listener.accept().expect("it is there");
        (TcpSocket::new(near.into()).expect("it is one"), far)
    }

    #[test]
    fn options_are_read_as_they_were_set() -> io::Result<()> {
        let (socket, far) = connected();
        assert_eq!(socket.ends()?.1, far.local_addr()?);
        let info = socket.info()?;
        assert_eq!((info.state, info.max_pacing_rate), (1, UNPACED));
        // More than 32 bits.
        socket.set_max_pacing_rate(5_000_000_000)?;
        assert_eq!(socket.info()?.max_pacing_rate, 5_000_000_000);
        socket.set_max_pacing_rate(UNPACED)?;
        assert_eq!(socket.info()?.max_pacing_rate, UNPACED);
        socket.set_window_clamp(20_000)?;
        assert_eq!(socket.window_clamp()?, 20_000);
        socket.set_window_clamp(1)?;
        assert_eq!(socket.window_clamp()?, LEAST_WINDOW);
        assert!(!socket.receive_buffer_locked()?);
        socket.lock_receive_buffer(true)?;
        assert!(socket.receive_buffer_locked()?);
        assert!(socket.receive_buffer()? > 1000);
        assert_ne!(socket.cookie()?, 0);
        Ok(())
    }

    #[test]
    fn a_push_leaves_corks_as_they_are() -> io::Result<()> {
        let (socket, mut far) = connected();
        far.set_read_timeout(Some(Duration::from_millis(20)))?;
        let cork = |socket: &TcpSocket| get::<u32>(&socket.0, libc::IPPROTO_TCP, libc::TCP_CORK);
        set(&socket.0, libc::IPPROTO_TCP, libc::TCP_CORK, 1_u32)?;
        nix::unistd::write(&socket.0, b"less than a segment")?;
        socket.push()?;
        assert_eq!(cork(&socket)?, 1);
        far.read(&mut [0; 32]).expect_err("its program has put a cork on");
        set(&socket.0, libc::IPPROTO_TCP, libc::TCP_CORK, 0_u32)?;
        socket.push()?;
        assert_eq!(cork(&socket)?, 0);
        Ok(())
    }

    #[test]
    fn what_is_no_tcp_socket_is_none() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("ports are left");
        assert!(TcpSocket::new(udp.into()).is_none());
        let file = std::fs::File::open("/dev/null").expect("it is there");
        assert!(TcpSocket::new(file.into()).is_none());
    }
}
