//! Sockets that more than one process has.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, ensure};
use testbed::{Family, Feature, Host, Testbed, skip_unless, traffic, until};

use crate::{
    backend::Backend,
    books::{Books, Part, all_parts, bed, parts, start, with_retransmissions},
    peer::{self, Flow, Flows, HEADERS, OPENED, SYN, Talk},
    support::PATIENCE,
};

/// Header of a datagram: IP and UDP.
const UDP: u64 = 28;

/// Whether this kernel does not tell who uses a socket that more than one process has: it is whoever opened it, or last sent
/// a packet by it, then.
fn is_out_of_reach(bed: &Testbed) -> anyhow::Result<bool> {
    skip_unless(bed, Feature::WhoReceives)
}

/// Workers on one listener, and peers that talk to them from the server: `at_once` or one after the other.
fn prefork(
    backend: Backend,
    what: &str,
    connections: u64,
    answer: usize,
    talk: Talk,
    peers: fn(&Host, SocketAddr, u64, Talk) -> anyhow::Result<Flows>,
) -> anyhow::Result<()> {
    const WORKERS: usize = 4;
    let bed = bed("prefork")?;
    if is_out_of_reach(&bed)? {
        return Ok(());
    }
    let monitor = backend.start(&bed, &[])?;
    let listen = bed.client().socket_address(Family::V4, 0);
    let each = connections / WORKERS as u64;
    let master = start(
        bed.client(),
        &format!("prefork --listen {listen} --workers {WORKERS} --connections {each} --answer {answer}"),
    )?;
    let to = traffic::ready(&master)?;
    let flows = peers(bed.server(), to, connections, talk)?;
    let parts: [Part; 1 + WORKERS] = parts(master)?;
    let books = Books::close(&monitor)?;

    books.check_sum(what, with_retransmissions(flows.values().copied().sum(), &parts))?;
    let [master, workers @ ..] = &parts;
    // Who listens makes the handshakes; the rest is the worker's.
    books.check_handshake(what, master.pid, Flow { up: connections * SYN, down: connections * OPENED })?;
    for worker in workers {
        let served = worker.ports.iter().filter_map(|port| flows.get(port)).copied().sum();
        let served = with_retransmissions(served, std::slice::from_ref(worker));
        let served = Flow { up: served.up - each * SYN, down: served.down - each * OPENED };
        books.check(what, worker.pid, served)?;
    }
    Ok(())
}

fn at_once(host: &Host, to: SocketAddr, connections: u64, talk: Talk) -> anyhow::Result<Flows> {
    host.run(|| {
        thread::scope(|scope| {
            let peers: Vec<_> =
                (0..connections).map(|_| scope.spawn(move || peer::connect(to, talk))).collect();
            peers.into_iter().map(|peer| peer.join().map_err(|_| anyhow!("a peer panicked"))?).collect()
        })
    })
}

fn one_by_one(host: &Host, to: SocketAddr, connections: u64, talk: Talk) -> anyhow::Result<Flows> {
    host.run(|| (0..connections).map(|_| peer::connect(to, talk)).collect())
}

pub(crate) fn prefork_workers_with_large_transfers_both_ways(backend: Backend) -> anyhow::Result<()> {
    fn talk(stream: &TcpStream) -> anyhow::Result<()> {
        peer::receive_exactly(stream, 2_000_000)?;
        peer::stay();
        peer::send(stream, 2_000_000)
    }
    prefork(backend, "9", 8, 2_000_000, talk, at_once)
}

pub(crate) fn prefork_workers_that_speak_first(backend: Backend) -> anyhow::Result<()> {
    let talk = |stream: &TcpStream| peer::receive_exactly(stream, 1000);
    prefork(backend, "25", 100, 1000, talk, one_by_one)?;
    prefork(backend, "25, at once", 100, 1000, talk, at_once)
}

pub(crate) fn prefork_workers_that_receive_small_uploads(backend: Backend) -> anyhow::Result<()> {
    let talk = |stream: &TcpStream| peer::send(stream, 1000);
    prefork(backend, "26", 100, 0, talk, one_by_one)?;
    // Most of these have received everything before anybody accepts them.
    prefork(backend, "26, at once", 100, 0, talk, at_once)
}

/// Reads to the end, then answers.
fn answer(stream: &TcpStream) -> anyhow::Result<()> {
    peer::receive_and_stay(stream)?;
    peer::send(stream, 1_000_000)
}

pub(crate) fn a_socket_passed_on_belongs_to_who_uses_it(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("pass")?;
    if is_out_of_reach(&bed)? {
        return Ok(());
    }
    let monitor = backend.start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 1, answer)?;
    let parts = parts(start(bed.client(), &format!("pass --to {to} --bytes 1000000"))?)?;
    let flow = with_retransmissions(peer::flow(peer)?, &parts);
    let books = Books::close(&monitor)?;
    let [giver, taker] = parts;
    books.check_sum("10", flow)?;
    books.check_handshake("10", giver.pid, Flow { up: OPENED, down: SYN })?;
    books.check("10", taker.pid, Flow { up: flow.up - OPENED, down: flow.down - SYN })
}

pub(crate) fn a_socket_passed_on_with_bytes_that_wait(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("waiting")?;
    if is_out_of_reach(&bed)? {
        return Ok(());
    }
    let monitor = backend.start(&bed, &[])?;
    let both_have_written = Arc::new(Barrier::new(2));
    let may_read = Arc::clone(&both_have_written);
    let (to, peer) = peer::serve(bed.server(), 1, move |stream| {
        // Until then next to nothing leaves: there is no room here.
        may_read.wait();
        peer::receive(stream)
    })?;
    let program = start(bed.client(), &format!("pass --to {to} --first 1000000 --bytes 2000000"))?;
    until("both have written", PATIENCE, || {
        Ok((program.stdout().matches("ready").count() == 2).then_some(()))
    })?;
    both_have_written.wait();
    let flow = peer::flow(peer)?;
    let parts = parts(program)?;
    let flow = with_retransmissions(flow, &parts);
    let books = Books::close(&monitor)?;
    let [giver, taker] = parts;
    ensure!((giver.sent, taker.sent) == (1_000_000, 2_000_000), "{giver:?}, {taker:?}");
    books.check_sum("28", flow)?;
    // Acknowledgements are whose the socket is.
    let first = Flow { up: tcp_ip_bytes(giver.sent) + OPENED, down: books.counted(giver.pid).down };
    books.check_roughly("28", giver.pid, first)?;
    books.check_roughly("28", taker.pid, Flow { up: flow.up - first.up, down: flow.down - first.down })
}

pub(crate) fn a_child_goes_on_with_the_connection_of_a_parent_that_has_ended(
    backend: Backend,
) -> anyhow::Result<()> {
    let bed = bed("orphan")?;
    if is_out_of_reach(&bed)? {
        return Ok(());
    }
    let monitor = backend.start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 1, answer)?;
    let program = start(bed.client(), &format!("orphan --to {to} --bytes 500000 --more 1500000"))?;
    let flow = peer::flow(peer)?;
    let parts = parts(program)?;
    let flow = with_retransmissions(flow, &parts);
    let books = Books::close(&monitor)?;
    let [parent, child] = parts;
    books.check_sum("20", flow)?;
    // Acknowledgements came for every piece alike; answers came to the child.
    let acknowledgements = flow.down - tcp_ip_bytes(1_000_000);
    let first = Flow { up: tcp_ip_bytes(500_000) + OPENED, down: books.counted(parent.pid).down };
    ensure!(first.down <= acknowledgements, "{first:?} of {flow:?}");
    books.check("20", parent.pid, first)?;
    books.check("20", child.pid, Flow { up: flow.up - first.up, down: flow.down - first.down })
}

/// IP bytes for so much payload in full segments.
fn tcp_ip_bytes(payload: u64) -> u64 {
    payload + payload.div_ceil(1448) * HEADERS
}

pub(crate) fn two_processes_take_turns_on_one_connection(backend: Backend) -> anyhow::Result<()> {
    const ROUNDS: u64 = 50;
    fn talk(stream: &TcpStream) -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            for bytes in [20_000, 60_000] {
                peer::receive_exactly(stream, bytes)?;
                peer::send(stream, usize::try_from(bytes)?)?;
            }
        }
        Ok(())
    }
    let bed = bed("turns")?;
    if is_out_of_reach(&bed)? {
        return Ok(());
    }
    let monitor = backend.start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 1, talk)?;
    let parts = parts(start(bed.client(), &format!("turns --to {to} --bytes 20000 --rounds {ROUNDS}"))?)?;
    let flow = with_retransmissions(peer::flow(peer)?, &parts);
    let books = Books::close(&monitor)?;
    let [parent, child] = parts;
    books.check_sum("27", flow)?;
    for (part, quarters) in [(parent, 1), (child, 3)] {
        let each_way = quarters * ROUNDS * 20_000;
        ensure!((part.sent, part.received) == (each_way, each_way), "{part:?}");
        let share = Flow { up: flow.up * quarters / 4, down: flow.down * quarters / 4 };
        books.check("27", part.pid, share)?;
    }
    Ok(())
}

/// Workers that share a UDP port echo what twenty sockets send them, unless they are silent. None where the kernel does not
/// tell whose sockets are that another process opened.
fn reuseport(backend: Backend, flags: &str) -> anyhow::Result<Option<(Vec<Part>, Books)>> {
    let bed = bed("reuseport")?;
    if flags.contains("inherited") && is_out_of_reach(&bed)? {
        return Ok(None);
    }
    let monitor = backend.start(&bed, &[])?;
    let listen = bed.client().socket_address(Family::V4, 7000);
    let program = start(bed.client(), &format!("reuseport --listen {listen} --workers 2{flags}"))?;
    traffic::ready(&program)?;
    let is_silent = flags.contains("silent");
    bed.server().run(|| {
        for _ in 0..20 {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(listen)?;
            for _ in 0..100 {
                socket.send(&[b'y'; 200])?;
                if is_silent {
                    // Slow enough to be received one by one.
                    thread::sleep(Duration::from_micros(100));
                } else {
                    anyhow::ensure!(socket.recv(&mut [0; 300])? == 200);
                }
            }
        }
        Ok(())
    })?;
    let parts = all_parts(program)?;
    let books = Books::close(&monitor)?;
    let datagrams: u64 = parts.iter().map(|part| part.receipts).sum();
    ensure!(datagrams == 2000, "{parts:?}");
    let all = datagrams * (200 + UDP);
    books.check_sum("19", Flow { up: if is_silent { 0 } else { all }, down: all })?;
    Ok(Some((parts, books)))
}

/// What a worker sent and received.
fn datagrams(part: &Part) -> anyhow::Result<Flow> {
    ensure!(part.receipts > 0, "chance has left one worker without work");
    // Each was sent back, or none was.
    let headers = if part.sent == 0 { 0 } else { part.receipts * UDP };
    Ok(Flow { up: part.sent + headers, down: part.received + part.receipts * UDP })
}

pub(crate) fn workers_that_share_a_port_have_their_own(backend: Backend) -> anyhow::Result<()> {
    let (parts, books) = reuseport(backend, "")?.context("nothing of it is out of reach")?;
    let (master, workers) = parts.split_first().context("nobody said anything")?;
    books.check_packets("19", master.pid, Flow::default())?;
    workers.iter().try_for_each(|worker| books.check_packets("19", worker.pid, datagrams(worker)?))
}

pub(crate) fn workers_have_their_own_on_sockets_that_their_parent_opened(
    backend: Backend,
) -> anyhow::Result<()> {
    // Those that never send leave no trace but that they receive.
    for flags in [" --inherited", " --inherited --silent"] {
        let Some((parts, books)) = reuseport(backend, flags)? else { return Ok(()) };
        for worker in &parts[1..] {
            books.check(&format!("19,{flags}"), worker.pid, datagrams(worker)?)?;
        }
    }
    Ok(())
}
