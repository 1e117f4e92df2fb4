//! What the kernel has counted and measured of a TCP connection: `struct tcp_info` (include/uapi/linux/tcp.h).

use std::{mem::offset_of, net::IpAddr, time::Duration};

use nix::libc::tcp_info;

/// `TCPI_OPT_TIMESTAMPS` (include/uapi/linux/tcp.h).
pub(crate) const OPT_TIMESTAMPS: u8 = 1;
/// `TCPI_OPT_WSCALE` (there).
const OPT_WSCALE: u8 = 4;
/// Offset of `tcpi_notsent_bytes` (there, 4.6).
const UNSENT: usize = 144;
/// Offset of `tcpi_min_rtt` (there, 4.6).
const MIN_RTT: usize = 148;
/// What stands there before one was measured (`tcp_init_sock`, net/ipv4/tcp.c).
const UNMEASURED: Duration = Duration::from_micros(u32::MAX as u64);
/// Offset of `tcpi_rcv_wnd`, the last field so far that says something of a window (`include/uapi/linux/tcp.h`, 6.2).
const RECEIVE_WINDOW: usize = 232;
/// Length of a TCP header without options.
const TCP_HEADER: u64 = 20;
/// The timestamps option as Linux aligns it (`TCPOLEN_TSTAMP_ALIGNED`).
const TIMESTAMPS: u64 = 12;

/// A TCP connection at one instant; counters are since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// `TCP_ESTABLISHED` and so on, 1 to 13 (`include/net/tcp_states.h`).
    pub state: u8,
    /// Payload sent, retransmissions included, and also what was not taken from the socket on its way out, as often as it
    /// was offered (`__tcp_transmit_skb`, `net/ipv4/tcp_output.c`).
    pub sent: u64,
    /// Of that, retransmissions. 0 before Linux 4.19.
    pub sent_again: u64,
    /// Payload that its peer has acknowledged.
    pub acked: u64,
    /// Payload received in order, each byte once.
    pub received: u64,
    /// Segments sent, acknowledgements included. Wraps.
    pub segments_out: u32,
    /// Segments received. Wraps.
    pub segments_in: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Whether segments carry timestamps.
    pub has_timestamps: bool,
    /// The receive window counts in units of 2 to the power of this.
    pub window_scale: u8,
    /// Payload of a full segment that it sends.
    pub send_mss: u32,
    /// Payload of a full segment that it receives.
    pub receive_mss: u32,
    /// How far its receive window may open by now, in bytes: never further than the clamp that was in force meanwhile.
    pub receive_threshold: u32,
    /// What the program has given it and it has not sent yet, in bytes. 0 before Linux 4.6.
    pub unsent: u32,
    /// Segments that it has sent and that are not acknowledged.
    pub unacked: u32,
    /// As many segments may be on their way.
    pub congestion_window: u32,
    /// The shortest round trip of late; `Duration::MAX` where none was measured.
    pub min_rtt: Duration,
    /// What its sender may send from the last acknowledgement on, in bytes. Before Linux 6.2 it is not known.
    pub receive_window: Option<u32>,
    /// Since it last sent or received payload.
    pub quiet: Duration,
    /// Smoothed round-trip time; zero until the first one has been measured.
    pub rtt: Duration,
    /// The same by what it receives; zero where none was measured.
    pub receive_rtt: Duration,
    /// In bytes of payload a second; `u64::MAX` for none.
    pub max_pacing_rate: u64,
}

impl TcpInfo {
    /// Reads a `tcp_info`, which is longer on newer kernels and shorter on older ones. `None` where it ends before the
    /// counters, as before Linux 4.2.
    #[must_use]
    pub fn read(info: &[u8]) -> Option<Self> {
        let byte = |offset: usize| info.get(offset).copied();
        let microseconds = |offset: usize| Some(Duration::from_micros(u32_at(info, offset)?.into()));
        let options = byte(offset_of!(tcp_info, tcpi_options))?;
        let scales = byte(offset_of!(tcp_info, tcpi_snd_rcv_wscale))?;
        // A bit field: the second one is the upper half where the lowest byte comes first.
        let scale = if cfg!(target_endian = "little") { scales >> 4 } else { scales & 0xf };
        let quiet_ms = u32_at(info, offset_of!(tcp_info, tcpi_last_data_sent))?
            .min(u32_at(info, offset_of!(tcp_info, tcpi_last_data_recv))?);
        Some(Self {
            state: byte(offset_of!(tcp_info, tcpi_state))?,
            // Before 4.19 only what was acknowledged is known.
            sent: u64_at(info, offset_of!(tcp_info, tcpi_bytes_sent))
                .or_else(|| u64_at(info, offset_of!(tcp_info, tcpi_bytes_acked)))?,
            sent_again: u64_at(info, offset_of!(tcp_info, tcpi_bytes_retrans)).unwrap_or_default(),
            acked: u64_at(info, offset_of!(tcp_info, tcpi_bytes_acked))?,
            received: u64_at(info, offset_of!(tcp_info, tcpi_bytes_received))?,
            segments_out: u32_at(info, offset_of!(tcp_info, tcpi_segs_out))?,
            segments_in: u32_at(info, offset_of!(tcp_info, tcpi_segs_in))?,
            retransmits: u32_at(info, offset_of!(tcp_info, tcpi_total_retrans))?,
            has_timestamps: options & OPT_TIMESTAMPS != 0,
            window_scale: if options & OPT_WSCALE == 0 { 0 } else { scale },
            send_mss: u32_at(info, offset_of!(tcp_info, tcpi_snd_mss))?,
            receive_mss: u32_at(info, offset_of!(tcp_info, tcpi_rcv_mss))?,
            receive_threshold: u32_at(info, offset_of!(tcp_info, tcpi_rcv_ssthresh))?,
            unsent: u32_at(info, UNSENT).unwrap_or_default(),
            unacked: u32_at(info, offset_of!(tcp_info, tcpi_unacked))?,
            congestion_window: u32_at(info, offset_of!(tcp_info, tcpi_snd_cwnd))?,
            min_rtt: microseconds(MIN_RTT).filter(|trip| *trip != UNMEASURED).unwrap_or(Duration::MAX),
            receive_window: u32_at(info, RECEIVE_WINDOW),
            quiet: Duration::from_millis(quiet_ms.into()),
            rtt: microseconds(offset_of!(tcp_info, tcpi_rtt))?,
            receive_rtt: microseconds(offset_of!(tcp_info, tcpi_rcv_rtt))?,
            max_pacing_rate: u64_at(info, offset_of!(tcp_info, tcpi_max_pacing_rate))?,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(TcpInfo::read(&bytes).is_some(), bytes.len() >= 144);
        }
    }
}
