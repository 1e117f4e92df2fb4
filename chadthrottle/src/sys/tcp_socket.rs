//! What one may ask of and set on a TCP socket, be it one's own or a duplicate of another process's.

use std::{
    io,
    mem::offset_of,
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::libc::{self, tcp_info};

/// The least window that the kernel takes, in bytes: half of `SOCK_MIN_RCVBUF` (`tcp_set_window_clamp`,
/// net/ipv4/tcp.c).
pub const LEAST_WINDOW: u32 = 1152;
/// The pacing rate that stands for none.
pub const UNPACED: u64 = u64::MAX;
/// `SOCK_RCVBUF_LOCK` (include/uapi/linux/socket.h): the buffer is as long as it was set, and never grows by itself.
const RECEIVE_BUFFER_LOCK: u32 = 2;
/// More than the `tcp_info` of any kernel so far.
const INFO_ROOM: usize = 512;
/// `TCPI_OPT_TIMESTAMPS` and `TCPI_OPT_WSCALE` (include/uapi/linux/tcp.h).
const OPT_TIMESTAMPS: u8 = 1;
const OPT_WSCALE: u8 = 4;

/// A TCP socket. While it lives, the connection does: where it is a duplicate, keep it for as short as possible.
#[derive(Debug)]
pub struct TcpSocket(TcpStream);

/// What a socket tells of itself (`TCP_INFO`). Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// `TCP_ESTABLISHED` and so on, 1 to 11.
    pub state: u8,
    /// Whether every segment carries a timestamp.
    pub timestamps: bool,
    /// The receive window counts in units of 2 to the power of this.
    pub window_scale: u8,
    /// Payload of a full segment that it sends.
    pub send_mss: u32,
    /// Payload of a full segment that it receives.
    pub receive_mss: u32,
    /// Since it last received payload, in milliseconds.
    pub quiet_ms: u32,
    /// How far its window may open by now, in bytes: never further than the clamp that was in force meanwhile.
    pub receive_threshold: u32,
    /// The round trip by its own segments; 0 where none was measured.
    pub round_trip: u32,
    /// The round trip by what it receives; 0 where none was measured.
    pub receive_round_trip: u32,
    /// In bytes a second; [`UNPACED`] for none.
    pub max_pacing_rate: u64,
    /// Payload received in order.
    pub bytes_received: u64,
    /// Payload sent, with what was sent again.
    pub bytes_sent: u64,
    /// Segments received. Wraps.
    pub segments_in: u32,
    /// Segments sent. Wraps.
    pub segments_out: u32,
}

impl TcpSocket {
    /// Takes a descriptor. None where it is no TCP socket over IP.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Option<Self> {
        let domain: libc::c_int = get(&socket, libc::SOL_SOCKET, libc::SO_DOMAIN).ok()?;
        let protocol: libc::c_int = get(&socket, libc::SOL_SOCKET, libc::SO_PROTOCOL).ok()?;
        let is_tcp = protocol == libc::IPPROTO_TCP && matches!(domain, libc::AF_INET | libc::AF_INET6);
        is_tcp.then(|| Self(socket.into()))
    }

    /// Takes a descriptor that is one, if it is still the socket with this cookie.
    #[must_use]
    pub fn known(socket: OwnedFd, cookie: u64) -> Option<Self> {
        let socket = Self(socket.into());
        (socket.cookie().ok()? == cookie).then_some(socket)
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

impl TcpInfo {
    /// Reads a `tcp_info`, which is longer on newer kernels and shorter on older ones.
    fn read(info: &[u8]) -> Option<Self> {
        let byte = |offset: usize| info.get(offset).copied();
        let u32_at =
            |offset: usize| info.get(offset..)?.first_chunk().map(|&field| u32::from_ne_bytes(field));
        let u64_at =
            |offset: usize| info.get(offset..)?.first_chunk().map(|&field| u64::from_ne_bytes(field));
        let options = byte(offset_of!(tcp_info, tcpi_options))?;
        let scales = byte(offset_of!(tcp_info, tcpi_snd_rcv_wscale))?;
        // A bit field: the second one is the upper half where the lowest byte comes first.
        let scale = if cfg!(target_endian = "little") { scales >> 4 } else { scales & 0xf };
        Some(Self {
            state: byte(offset_of!(tcp_info, tcpi_state))?,
            timestamps: options & OPT_TIMESTAMPS != 0,
            window_scale: if options & OPT_WSCALE == 0 { 0 } else { scale },
            send_mss: u32_at(offset_of!(tcp_info, tcpi_snd_mss))?,
            receive_mss: u32_at(offset_of!(tcp_info, tcpi_rcv_mss))?,
            quiet_ms: u32_at(offset_of!(tcp_info, tcpi_last_data_recv))?,
            receive_threshold: u32_at(offset_of!(tcp_info, tcpi_rcv_ssthresh))?,
            round_trip: u32_at(offset_of!(tcp_info, tcpi_rtt))?,
            receive_round_trip: u32_at(offset_of!(tcp_info, tcpi_rcv_rtt))?,
            max_pacing_rate: u64_at(offset_of!(tcp_info, tcpi_max_pacing_rate))?,
            bytes_received: u64_at(offset_of!(tcp_info, tcpi_bytes_received))?,
            // Before 4.19 only what was acknowledged is known.
            bytes_sent: u64_at(offset_of!(tcp_info, tcpi_bytes_sent))
                .or_else(|| u64_at(offset_of!(tcp_info, tcpi_bytes_acked)))?,
            segments_in: u32_at(offset_of!(tcp_info, tcpi_segs_in))?,
            segments_out: u32_at(offset_of!(tcp_info, tcpi_segs_out))?,
        })
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
    use std::net::{TcpListener, UdpSocket};

    use proptest::prelude::*;

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
    fn what_is_no_tcp_socket_is_none() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("ports are left");
        assert!(TcpSocket::new(udp.into()).is_none());
        let file = std::fs::File::open("/dev/null").expect("it is there");
        assert!(TcpSocket::new(file.into()).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(TcpInfo::read(&bytes).is_none() || bytes.len() >= 144);
        }
    }
}
