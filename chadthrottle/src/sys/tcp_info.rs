//! What the kernel has counted and measured of a TCP connection: `struct tcp_info` (include/uapi/linux/tcp.h).

use std::{mem::offset_of, net::IpAddr, time::Duration};

use nix::libc::tcp_info;

/// `TCPI_OPT_TIMESTAMPS` (include/uapi/linux/tcp.h).
pub(crate) const OPT_TIMESTAMPS: u8 = 1;
/// Length of a TCP header without options.
const TCP_HEADER: u64 = 20;
/// The timestamps option as Linux aligns it (`TCPOLEN_TSTAMP_ALIGNED`).
const TIMESTAMPS: u64 = 12;

/// A TCP connection at one instant, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Payload sent, retransmissions included.
    pub sent: u64,
    /// Payload received in order, each byte once.
    pub received: u64,
    /// Segments sent, acknowledgements included. Wraps.
    pub segments_out: u32,
    /// Segments received. Wraps.
    pub segments_in: u32,
    /// Whether segments carry timestamps.
    pub has_timestamps: bool,
    /// Since it last sent or received payload.
    pub quiet: Duration,
    /// Smoothed round-trip time; zero until the first one has been measured.
    pub rtt: Duration,
    /// Segments sent again.
    pub retransmits: u32,
}

impl TcpInfo {
    /// Reads a `tcp_info`, which is longer on newer kernels and shorter on older ones. `None` where it ends before the
    /// counters, as before Linux 4.2.
    #[must_use]
    pub fn read(info: &[u8]) -> Option<Self> {
        let options = *info.get(offset_of!(tcp_info, tcpi_options))?;
        let quiet_ms = u32_at(info, offset_of!(tcp_info, tcpi_last_data_sent))?
            .min(u32_at(info, offset_of!(tcp_info, tcpi_last_data_recv))?);
        let rtt_us = u32_at(info, offset_of!(tcp_info, tcpi_rtt))?;
        Some(Self {
            // Before 4.19 only what was acknowledged is known.
            sent: u64_at(info, offset_of!(tcp_info, tcpi_bytes_sent))
                .or_else(|| u64_at(info, offset_of!(tcp_info, tcpi_bytes_acked)))?,
            received: u64_at(info, offset_of!(tcp_info, tcpi_bytes_received))?,
            segments_out: u32_at(info, offset_of!(tcp_info, tcpi_segs_out))?,
            segments_in: u32_at(info, offset_of!(tcp_info, tcpi_segs_in))?,
            has_timestamps: options & OPT_TIMESTAMPS != 0,
            quiet: Duration::from_millis(quiet_ms.into()),
            rtt: Duration::from_micros(rtt_us.into()),
            retransmits: u32_at(info, offset_of!(tcp_info, tcpi_total_retrans))?,
        })
    }

    /// Bytes of headers of one segment, IP and TCP, on the way to `remote`.
    #[must_use]
    pub const fn header(&self, remote: IpAddr) -> u64 {
        let ip = if remote.is_ipv4() { 20 } else { 40 };
        ip + TCP_HEADER + if self.has_timestamps { TIMESTAMPS } else { 0 }
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|field| u32::from_ne_bytes(*field))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|field| u64::from_ne_bytes(*field))
}
