//! One TCP socket of a target.

use std::{io, net::IpAddr, os::fd::RawFd, time::Duration};

use super::{
    Counted,
    control::Seen,
    held::{Clamp, Pacing},
    members::Members,
    smooth::real,
};
use crate::{
    backends::throttle::guard::{Guard, Note, Originals},
    sys::{tcp_info::TcpInfo, tcp_socket::TcpSocket},
};

/// `TCP_ESTABLISHED`, `TCP_SYN_SENT`, `TCP_CLOSE` and `TCP_LISTEN` (`include/net/tcp_states.h`).
pub(super) const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
/// Where no round trip has been measured yet.
const UNKNOWN_TRIP: Duration = Duration::from_millis(20);
/// A connection that has received less is new, in bytes.
const FRESH: u64 = 100_000;
/// One that has moved nothing for so long is quiet.
const QUIET: Duration = Duration::from_secs(1);
/// `net.ipv4.tcp_min_tso_segs` and `tcp_tso_rtt_log`, as they are where nobody has changed them, and the longest
/// super-packet, in bytes (`GSO_LEGACY_MAX_SIZE`, include/linux/netdevice.h).
const LEAST_AT_ONCE: f64 = 2.0;
const TSO_RTT_LOG: u32 = 9;
const SUPER_PACKET: u32 = 65_536;
/// What a segment carries, where that is not known.
const USUAL_MSS: u32 = 1448;

/// A socket that a target has, by where it is and what it has counted.
#[derive(Debug)]
pub(super) struct Socket {
    cookie: u64,
    pub(super) inode: u32,
    /// Which processes have it open, and as what.
    pub(super) holders: Vec<(i32, RawFd)>,
    /// Its own address, and its peer's.
    ends: (IpAddr, IpAddr),
    info: TcpInfo,
    /// Payload that it has counted as sent, but that was not taken from it.
    refused: u64,
    /// When it was last read, in seconds.
    pub(super) read_at: f64,
    pub(super) pacing: Option<Pacing>,
    pub(super) clamp: Option<Clamp>,
    /// The window that was last asked for.
    pub(super) window: u32,
    /// What the guard knows of it.
    told: Originals,
}

/// What a socket is good for.
#[derive(Debug)]
pub(super) enum Kind {
    /// An end of a connection.
    Connection(Box<Socket>),
    /// It may become one, or gets others accepted.
    NotYet,
    /// Nothing that is limited.
    Other,
}

impl Kind {
    /// Looks at a new descriptor of a target.
    pub(super) fn of(
        members: &Members,
        (pid, fd): (i32, RawFd),
        inode: u32,
        counted: &Counted,
        now: f64,
    ) -> io::Result<Self> {
        let Some(member) = members.get(pid) else { return Ok(Self::NotYet) };
        let Some(socket) = member.duplicate(fd)? else { return Ok(Self::Other) };
        let info = socket.info()?;
        if matches!(info.state, CLOSE | LISTEN) {
            return Ok(Self::NotYet);
        }
        let Ok((local, remote)) = socket.ends() else { return Ok(Self::NotYet) };
        // A socket of family AF_INET6 may speak IPv4: its addresses are mapped then.
        let (local, remote) = (local.ip().to_canonical(), remote.ip().to_canonical());
        if !counted.contains(local, remote) {
            return Ok(Self::Other);
        }
        Ok(Self::Connection(Box::new(Socket {
            cookie: socket.cookie()?,
            inode,
            holders: vec![(pid, fd)],
            ends: (local, remote),
            refused: refused(&info),
            info,
            read_at: now,
            pacing: None,
            clamp: None,
            window: u32::MAX,
            told: Originals::default(),
        })))
    }
}

impl Socket {
    /// Duplicates it for as long as `work` takes. None where nobody has it any more, or we have no descriptor left.
    pub(super) fn with<T>(
        &mut self,
        members: &Members,
        work: impl FnOnce(&mut Self, &TcpSocket) -> io::Result<T>,
    ) -> Option<T> {
        // The descriptor may be another socket's by now.
        let mut holders = self.holders.iter();
        let socket = holders.find_map(|&(pid, fd)| members.get(pid)?.duplicate_known(fd, self.cookie))?;
        // When its owner closes it meanwhile the connection ends with the line below, microseconds later.
        work(self, &socket).inspect_err(|error| log::debug!("a socket refuses: {error}")).ok()
    }

    /// Tells the guard what is to be put back, where it does not know.
    pub(super) fn tell(&mut self, guard: Option<&Guard>) -> io::Result<()> {
        let originals = Originals {
            pacing: self.pacing.as_ref().map(Pacing::original),
            window: self.clamp.as_ref().map(Clamp::original),
        };
        let Some(guard) = guard.filter(|_| originals != self.told) else { return Ok(()) };
        guard.note(&Note::flow(self.cookie, self.inode, originals))?;
        self.told = originals;
        Ok(())
    }

    /// Leaves it to the guard, with all that was set on it: whom we had it from has it no more.
    pub(super) fn leave_to(&mut self, guard: Option<&Guard>) {
        let originals = std::mem::take(&mut self.told);
        if let Some(guard) = guard.filter(|_| originals != Originals::default()) {
            // If the guard has ended nobody is left who could.
            let _ = guard.note(&Note::flow(self.cookie, self.inode, originals).lost());
        }
    }

    /// Whether it has hardly received anything. With the first segments the kernel opens the window again (see
    /// [`Clamp::may_be_undone`]), so that it wants to be looked at more often than others.
    pub(super) const fn is_fresh(&self) -> bool {
        self.info.received < FRESH && self.clamp.is_some()
    }

    /// Whether it has not sent or received anything for a while, when it was last read.
    pub(super) fn is_quiet(&self) -> bool {
        self.info.quiet > QUIET
    }

    /// The state of the connection, as last read.
    pub(super) const fn info(&self) -> &TcpInfo {
        &self.info
    }

    /// Reads what it has counted since the last time: what went out, and what came in.
    pub(super) fn read(&mut self, socket: &TcpSocket, now: f64) -> io::Result<(Seen, Seen)> {
        let before = std::mem::replace(&mut self.info, socket.info()?);
        let dt = (now - std::mem::replace(&mut self.read_at, now)).max(1e-3);
        let info = &self.info;
        let header = info.header(self.ends.1);
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let segments = |now: u32, before: u32| u64::from(now.wrapping_sub(before).min(1 << 31));
        let sent = since(info.sent, before.sent) + header * segments(info.segments_out, before.segments_out);
        let received =
            since(info.received, before.received) + header * segments(info.segments_in, before.segments_in);
        // It shows late where segments that are not full were on their way.
        let more = refused(info).saturating_sub(self.refused);
        self.refused += more;
        let refused = more + header * more.div_ceil(info.send_mss.max(1).into());
        Ok((Seen { refused: refused.min(sent), ..self.outgoing(dt, sent) }, self.incoming(dt, received)))
    }

    /// What a controller is told of what it sends.
    pub(super) fn outgoing(&self, dt: f64, bytes: u64) -> Seen {
        let seen = self.seen(dt, bytes, [self.info.rtt, self.info.rtt], self.info.send_mss);
        Seen { is_waiting: self.info.unsent > 0, ..seen }
    }

    /// What a controller is told of what it receives.
    pub(super) fn incoming(&self, dt: f64, bytes: u64) -> Seen {
        let trip = self.round_trip();
        // What it has measured of its own segments, the first of which met no queue that its sender had filled.
        let own = self.info.rtt;
        let least = if own.is_zero() { trip } else { trip.min(own) };
        self.seen(dt, bytes, [trip, least], self.info.receive_mss)
    }

    /// The round trip as the receiver sees it, where it does.
    pub(super) const fn round_trip(&self) -> Duration {
        if self.info.receive_rtt.is_zero() { self.info.rtt } else { self.info.receive_rtt }
    }

    fn seen(&self, dt: f64, bytes: u64, trips: [Duration; 2], mss: u32) -> Seen {
        let window = self.clamp.as_ref().map_or(u32::MAX, Clamp::in_force);
        let seconds = |trip: Duration| if trip.is_zero() { UNKNOWN_TRIP } else { trip }.as_secs_f64();
        let [round_trip, least_trip] = trips.map(seconds);
        let mss = f64::from(if mss < 64 { USUAL_MSS } else { mss });
        let segment = (mss, mss + real(self.info.header(self.ends.1)));
        Seen {
            socket: self.cookie,
            dt,
            bytes,
            refused: 0,
            round_trip,
            least_trip,
            window,
            is_waiting: false,
            ahead: self.info.receive_window.map(|promised| promised.saturating_sub(window)),
            unit: 1 << self.info.window_scale,
            segment,
            burst: self.segments_at_once(mss) * segment.1,
        }
    }

    /// How many segments leave together when it is paced: two, and on short round trips as many as a super-packet holds and
    /// the congestion window allows, however low its rate (`tcp_tso_autosize`, `net/ipv4/tcp_output.c`, 5.18).
    fn segments_at_once(&self, mss: f64) -> f64 {
        let halvings = u32::try_from(self.info.min_rtt.as_micros() >> TSO_RTT_LOG).unwrap_or(u32::MAX);
        let more = f64::from(SUPER_PACKET.checked_shr(halvings).unwrap_or_default()) / mss;
        more.min(self.info.congestion_window.into()).max(LEAST_AT_ONCE)
    }

    /// Whether it is among those that count.
    pub(super) fn counts(&self, counted: &Counted) -> bool {
        counted.contains(self.ends.0, self.ends.1)
    }

    /// What tells it from all others.
    pub(super) const fn cookie(&self) -> u64 {
        self.cookie
    }
}

/// Payload that a socket has counted as sent, but that was dropped before it left this host, so that it still has it: at least
/// so much. What is on its way is taken for full segments.
fn refused(info: &TcpInfo) -> u64 {
    let on_its_way = u64::from(info.unacked) * u64::from(info.send_mss);
    info.sent.saturating_sub(info.acked + on_its_way + info.sent_again)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_told_from_what_was_not_taken() {
        // Three full segments on their way; one was sent again.
        let info = TcpInfo {
            send_mss: 1000,
            sent: 10_000,
            sent_again: 1000,
            acked: 6000,
            unacked: 3,
            ..TcpInfo::default()
        };
        assert_eq!(refused(&info), 0);
        // Two super-packets were not taken.
        assert_eq!(refused(&TcpInfo { sent: 110_000, ..info }), 100_000);
        // Small ones on their way hide it until they are acknowledged.
        let small = TcpInfo { sent: 110_030, acked: 9000, unacked: 3, ..info };
        assert_eq!(refused(&small), 97_030);
        assert_eq!(refused(&TcpInfo { acked: 9030, unacked: 0, ..small }), 100_000);
        // Before Linux 4.19 only what is acknowledged is known.
        assert_eq!(refused(&TcpInfo { sent: 6000, sent_again: 0, ..info }), 0);
    }
}
