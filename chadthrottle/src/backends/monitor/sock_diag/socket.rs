//! What `inet_diag` tells of a TCP socket, in IP bytes.

use std::{net::IpAddr, time::Duration};

use netlink_packet_sock_diag::{
    constants::{TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_SYN_SENT},
    inet::{InetResponse, nlas::Nla},
};

use crate::{stats::Traffic, sys::tcp_info::TcpInfo};

/// A TCP socket at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// What the kernel tells sockets apart by; never used again, and kept when the process closes the socket.
    pub(super) cookie: u64,
    /// Its inode in the processes' descriptors; 0 once it is closed, and until it is accepted.
    pub(super) inode: u32,
    /// Whose it is.
    pub(super) uid: u32,
    /// Whether both ends are on this host.
    pub(super) is_loopback: bool,
    /// Whether no process has it, and none will.
    pub(super) is_orphan: bool,
    /// What it has counted.
    pub(super) counters: Counters,
}

/// A TCP socket's counters since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Payload sent, retransmissions included.
    sent: u64,
    /// Payload received in order, each byte once.
    received: u64,
    /// Segments sent, acknowledgements included. Wraps.
    segments_out: u32,
    /// Segments received. Wraps.
    segments_in: u32,
    /// Bytes of headers of one segment, IP and TCP.
    header: u64,
    /// Since it last sent or received payload.
    pub(super) quiet: Duration,
}

impl Socket {
    /// `None` where there are no counters, as for the remains of a connection (`TIME_WAIT`).
    pub(super) fn read(response: &InetResponse) -> Option<Self> {
        let header = &response.header;
        let id = &header.socket_id;
        let info = response.nlas.iter().find_map(|nla| match nla {
            Nla::TcpInfo(info) => Some(info),
            _ => None,
        })?;
        // A socket of family AF_INET6 may speak IPv4: its addresses are mapped then.
        let (local, remote) = (id.source_address.to_canonical(), id.destination_address.to_canonical());
        let may_be_taken = matches!(header.state, TCP_ESTABLISHED | TCP_CLOSE_WAIT | TCP_SYN_SENT);
        Some(Self {
            cookie: u64::from_ne_bytes(id.cookie),
            inode: header.inode,
            uid: header.uid,
            is_loopback: local == remote || (local.is_loopback() && remote.is_loopback()),
            // In one of those states it waits to be accepted.
            is_orphan: header.inode == 0 && !may_be_taken,
            counters: Counters::read(info, remote)?,
        })
    }
}

impl Counters {
    /// Reads a `tcp_info`, which is longer on newer kernels and shorter on older ones. `None` where it ends before the
    /// counters, as before Linux 4.2.
    fn read(info: &[u8], remote: IpAddr) -> Option<Self> {
        let info = TcpInfo::read(info)?;
        Some(Self {
            sent: info.sent,
            received: info.received,
            segments_out: info.segments_out,
            segments_in: info.segments_in,
            header: info.header(remote),
            quiet: info.quiet,
        })
    }

    /// IP bytes on top of what the same socket had counted earlier.
    pub(super) fn since(self, earlier: Self) -> Traffic {
        // A socket that was disconnected and connected again counts from zero (`tcp_disconnect`).
        let is_reset = self.sent < earlier.sent || self.received < earlier.received;
        let earlier = if is_reset { Self::default() } else { earlier };
        Traffic {
            upload: (self.sent - earlier.sent)
                .saturating_add(self.header * segments_since(self.segments_out, earlier.segments_out)),
            download: (self.received - earlier.received)
                .saturating_add(self.header * segments_since(self.segments_in, earlier.segments_in)),
        }
    }
}

/// Segments on top of `earlier`, in counters that wrap.
fn segments_since(now: u32, earlier: u32) -> u64 {
    let difference = now.wrapping_sub(earlier);
    // More than half the range at once is no wrap but a counter that began anew.
    u64::from(if now < earlier && difference > u32::MAX / 2 { now } else { difference })
}

/// What is counted of any socket: nothing on top of itself, and from nothing all that there is.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(response: &InetResponse) {
    if let Some(Socket { counters, .. }) = Socket::read(response) {
        assert_eq!(counters.since(counters), Traffic::default());
        let all = counters.since(Counters::default());
        assert!(all.upload >= counters.sent && all.download >= counters.received, "{counters:?}");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        mem::offset_of,
        net::{Ipv4Addr, Ipv6Addr},
    };

    use nix::libc::tcp_info;
    use proptest::prelude::*;

    use super::*;
    use crate::sys::tcp_info::OPT_TIMESTAMPS;

    /// Counters of a connection over IPv4 with timestamps: 52 bytes of headers a segment.
    pub(in super::super) fn counters(sent: u64, received: u64, segments: u32) -> Counters {
        let (segments_out, segments_in) = (segments, segments);
        Counters { sent, received, segments_out, segments_in, header: 52, quiet: Duration::ZERO }
    }

    /// A `tcp_info` of `length` bytes with these counters, timestamps on.
    fn info(length: usize, sent: u64, received: u64, segments: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let mut put =
            |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(offset_of!(tcp_info, tcpi_options), &[OPT_TIMESTAMPS]);
        put(offset_of!(tcp_info, tcpi_last_data_sent), &700_u32.to_ne_bytes());
        put(offset_of!(tcp_info, tcpi_last_data_recv), &300_u32.to_ne_bytes());
        put(offset_of!(tcp_info, tcpi_bytes_acked), &(sent / 2).to_ne_bytes());
        put(offset_of!(tcp_info, tcpi_bytes_sent), &sent.to_ne_bytes());
        put(offset_of!(tcp_info, tcpi_bytes_received), &received.to_ne_bytes());
        put(offset_of!(tcp_info, tcpi_segs_out), &segments.to_ne_bytes());
        put(offset_of!(tcp_info, tcpi_segs_in), &segments.to_ne_bytes());
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn a_longer_or_shorter_tcp_info_is_read_as_far_as_it_goes() {
        let remote = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        let whole = Counters::read(&info(4096, 1000, 50, 3), remote).expect("longer than any kernel's");
        assert_eq!(
            whole.since(Counters::default()),
            Traffic { upload: 1000 + 3 * 52, download: 50 + 3 * 52 }
        );
        assert_eq!(whole.quiet, Duration::from_millis(300));
        // Linux 4.2 ends after tcpi_segs_in: what was acknowledged stands for what was sent.
        let short = offset_of!(tcp_info, tcpi_segs_in) + 4;
        let old = Counters::read(&info(short, 1000, 50, 3), remote).expect("long enough");
        assert_eq!(old.since(Counters::default()).upload, 500 + 3 * 52);
        assert_eq!(Counters::read(&info(short - 1, 1000, 50, 3), remote), None);
        let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
        let whole = Counters::read(&info(232, 1000, 50, 3), v6).expect("Linux 5.4");
        assert_eq!(whole.since(Counters::default()).upload, 1000 + 3 * 72);
    }

    #[test]
    fn segment_counters_wrap_and_begin_anew() {
        assert_eq!(segments_since(5, u32::MAX - 4), 10);
        assert_eq!(segments_since(7, 3), 4);
        assert_eq!(segments_since(3, 7), 3, "reset by a new connection on the same socket");
        let before = counters(1000, 0, 10);
        assert_eq!(counters(100, 0, 2).since(before), Traffic { upload: 100 + 104, download: 104 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let read = Counters::read(&bytes, Ipv4Addr::LOCALHOST.into());
            if let Some(counters) = read {
                counters.since(Counters::default());
                Counters::default().since(counters);
            }
        }

        #[test]
        fn pieces_add_up_to_the_whole(
            steps in prop::collection::vec((0_u64..1 << 40, 0_u64..1 << 40, 0_u32..1 << 30), 1..20),
        ) {
            let mut now = counters(0, 0, 0);
            let (mut sum, mut expected) = (0, 0);
            for (sent, received, segments) in steps {
                let next = Counters {
                    sent: now.sent + sent,
                    received: now.received + received,
                    segments_out: now.segments_out.wrapping_add(segments),
                    segments_in: now.segments_in.wrapping_add(segments),
                    ..now
                };
                sum += next.since(now).sum();
                expected += sent + received + 2 * 52 * u64::from(segments);
                now = next;
            }
            prop_assert_eq!(sum, expected);
        }
    }
}
