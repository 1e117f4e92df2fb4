//! Connections of one process that carry much: both ways, by both versions of IP, at line rate, open before the start.

use std::{
    net::TcpStream,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use testbed::{Family, Process, Testbed, traffic};

use crate::{
    backend::Backend,
    books::{Books, bed, end, start},
    peer::{self, Flow, OPENED, Peer, SYN},
};

const BYTES: usize = 50_000_000;
/// Fifty readings of the monitor.
const LINE_RATE: Duration = Duration::from_secs(5);

pub(crate) fn a_long_upload(backend: Backend) -> anyhow::Result<()> {
    upload(backend, "1", Family::V4)
}

pub(crate) fn a_long_download(backend: Backend) -> anyhow::Result<()> {
    download(backend, "2", Family::V4)
}

pub(crate) fn ipv6(backend: Backend) -> anyhow::Result<()> {
    upload(backend, "6", Family::V6)?;
    download(backend, "6", Family::V6)
}

fn upload(backend: Backend, what: &str, family: Family) -> anyhow::Result<()> {
    let bed = bed("upload")?;
    let monitor = backend.start(&bed, &[])?;
    let sending = send(&bed, family, &format!("--bytes {BYTES} --rate {BYTES}"))?;
    let (pid, flow) = sending.end()?;
    let books = Books::close(&monitor)?;
    books.check_sum(what, flow)?;
    books.check_name(pid, "traffic")?;
    books.check(what, pid, flow)
}

fn download(backend: Backend, what: &str, family: Family) -> anyhow::Result<()> {
    const PIECES: usize = 50;
    const PAUSE: Duration = Duration::from_millis(20);
    let evenly = |stream: &TcpStream| {
        (0..PIECES).try_for_each(|_| {
            std::thread::sleep(PAUSE);
            peer::send(stream, BYTES / PIECES)
        })
    };
    let bed = bed("download")?;
    let monitor = backend.start(&bed, &[])?;
    let (pid, flow) = receive(&bed, family, evenly)?.end()?;
    let books = Books::close(&monitor)?;
    books.check_sum(what, flow)?;
    books.check_name(pid, "traffic")?;
    books.check(what, pid, flow)
}

/// A process that uses a connection, and the other side of that.
struct Transfer {
    program: Process,
    peer: Peer,
}

impl Transfer {
    /// Waits for the end, and returns who did it, and how much it was.
    fn end(self) -> anyhow::Result<(u32, Flow)> {
        let (pid, printed) = end(self.program)?;
        let flow = peer::flow(self.peer)?;
        let retransmitted = traffic::Report::parse(&printed)?.retransmitted;
        Ok((pid, Flow { up: flow.up + retransmitted, ..flow }))
    }
}

fn send(bed: &Testbed, family: Family, how: &str) -> anyhow::Result<Transfer> {
    let address = bed.server().socket_address(family, 0);
    let (to, peer) = peer::serve_at(bed.server(), address, 1, peer::receive)?;
    Ok(Transfer { program: start(bed.client(), &format!("tcp-send --to {to} {how}"))?, peer })
}

fn receive(
    bed: &Testbed,
    family: Family,
    talk: impl Fn(&TcpStream) -> anyhow::Result<()> + Clone + Send + 'static,
) -> anyhow::Result<Transfer> {
    let address = bed.server().socket_address(family, 0);
    let (from, peer) = peer::serve_at(bed.server(), address, 1, talk)?;
    Ok(Transfer { program: start(bed.client(), &format!("tcp-receive --from {from}"))?, peer })
}

pub(crate) fn an_accepted_connection(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("accept")?;
    let monitor = backend.start(&bed, &[])?;
    // On all addresses: its IPv4 connections have addresses that are mapped into IPv6.
    for family in Family::ALL {
        let program = start(bed.client(), "tcp-source --listen [::]:0 --bytes 20000000 --rate 40000000")?;
        let to = bed.client().socket_address(family, traffic::ready(&program)?.port());
        let (_, flow) = bed.server().run(|| peer::connect(to, peer::receive))?;
        let (pid, printed) = end(program)?;
        let flow = Flow { up: flow.up + traffic::Report::parse(&printed)?.retransmitted, ..flow };
        Books::close(&monitor)?.check(&format!("6, accepted, {family:?}"), pid, flow)?;
    }
    Ok(())
}

pub(crate) fn open_before_the_start(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("before")?;
    let mut sending = send(&bed, Family::V4, "--bytes 20000000 --rate 40000000 --wait-stdin")?;
    let go = Arc::new(Barrier::new(2));
    let has_begun = Arc::clone(&go);
    let receiving = receive(&bed, Family::V4, move |stream| {
        has_begun.wait();
        peer::send(stream, 20_000_000)
    })?;
    for transfer in [&sending, &receiving] {
        traffic::ready(&transfer.program)?;
    }
    let monitor = backend.start(&bed, &[])?;
    sending.program.send_line("go")?;
    go.wait();
    let mut transfers = Vec::new();
    for transfer in [sending, receiving] {
        let (pid, flow) = transfer.end()?;
        transfers.push((pid, Flow { up: flow.up - OPENED, down: flow.down - SYN }));
    }
    let books = Books::close(&monitor)?;
    books.check_sum("11", transfers.iter().map(|(_, flow)| *flow).sum())?;
    transfers.into_iter().try_for_each(|(pid, flow)| {
        books.check_name(pid, "traffic")?;
        books.check("11", pid, flow)
    })
}

pub(crate) fn line_rate_for_five_seconds(backend: Backend) -> anyhow::Result<()> {
    fn flood(stream: &TcpStream) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < LINE_RATE {
            peer::send(stream, 1 << 20)?;
        }
        Ok(())
    }
    let bed = bed("line")?;
    let monitor = backend.start(&bed, &[])?;
    // Both at once.
    let sending = send(&bed, Family::V4, &format!("--seconds {}", LINE_RATE.as_secs()))?;
    let transfers = [sending, receive(&bed, Family::V4, flood)?];
    let mut flows = Vec::new();
    for transfer in transfers {
        flows.push(transfer.end()?);
    }
    let books = Books::close(&monitor)?;
    books.check_sum("14", flows.iter().map(|(_, flow)| *flow).sum())?;
    flows.into_iter().try_for_each(|(pid, flow)| books.check("14", pid, flow))
}
