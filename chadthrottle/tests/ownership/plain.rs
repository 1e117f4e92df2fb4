//! Sockets of one process: short lives, many sockets, many packets.

use std::net::UdpSocket;

use testbed::{Family, Process, traffic};

use crate::{
    books::{Books, bed, parts, start, with_retransmissions},
    peer::{self, Flow},
    support::{Monitor, PATIENCE},
};

#[test]
fn fifty_processes_that_live_twenty_milliseconds() -> anyhow::Result<()> {
    let bed = bed("fifty")?;
    let monitor = Monitor::start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 50, peer::receive)?;
    // 64 KB in 20 ms.
    let send = format!("tcp-send --to {to} --bytes 65536 --rate 3200000");
    let senders: Vec<_> = (0..50).map(|_| start(bed.client(), &send)).collect::<Result<_, _>>()?;
    let mut ports = Vec::new();
    for mut sender in senders {
        assert!(sender.wait_timeout(PATIENCE)?.success());
        ports.push((sender.pid(), traffic::ready(&sender)?.port()));
    }
    let flows = peer.join().expect("no panic")?;
    let books = Books::close(&monitor)?;
    books.check_sum("8", flows.values().copied().sum());
    for (pid, port) in ports {
        let row = books.row(pid)?;
        assert_eq!((&row["name"], &row["alive"]), (&"traffic".into(), &false.into()));
        books.check("8", pid, flows[&port]);
    }
    Ok(())
}

#[test]
fn two_thousand_sockets_of_one_process() -> anyhow::Result<()> {
    let bed = bed("many")?;
    let monitor = Monitor::start(&bed, &[])?;
    let (to, peer) = peer::serve_in_turn(bed.server(), 2000, peer::receive)?;
    let parts = parts(start(bed.client(), &format!("many --to {to} --connections 2000 --bytes 5000"))?)?;
    let flow = with_retransmissions(peer.join().expect("no panic")?.into_values().sum(), &parts);
    let books = Books::close(&monitor)?;
    books.check_sum("12", flow);
    books.check("12", parts[0].pid, flow);
    Ok(())
}

#[test]
fn two_processes_of_one_name() -> anyhow::Result<()> {
    let bed = bed("names")?;
    let monitor = Monitor::start(&bed, &[])?;
    let mut senders = Vec::new();
    for bytes in [1_000_000, 3_000_000] {
        let (to, peer) = peer::serve(bed.server(), 1, peer::receive)?;
        let send = format!("many --to {to} --connections 1 --bytes {bytes}");
        senders.push((start(bed.client(), &send)?, peer));
    }
    let mut expected = Vec::new();
    for (sender, peer) in senders {
        let parts = parts(sender)?;
        let flow = peer.join().expect("no panic")?.into_values().sum();
        expected.push((parts[0].pid, with_retransmissions(flow, &parts)));
    }
    let books = Books::close(&monitor)?;
    books.check_sum("15", expected.iter().map(|(_, flow)| *flow).sum());
    for (pid, flow) in expected {
        assert_eq!(books.row(pid)?["name"], "traffic");
        books.check("15", pid, flow);
    }
    Ok(())
}

#[test]
fn a_process_that_ends_while_its_bytes_still_wait() -> anyhow::Result<()> {
    let bed = bed("quit")?;
    // So that what it wrote last leaves when it is gone.
    let narrow = "qdisc add dev ctrserver root tbf rate 16mbit burst 20k limit 1m";
    Process::spawn(bed.router().command("tc").args(narrow.split(' ')))?.success(PATIENCE)?;
    let monitor = Monitor::start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 1, peer::receive)?;
    let mut sender = start(bed.client(), &format!("tcp-send --to {to} --bytes 1000000 --quit"))?;
    let pid = sender.pid();
    assert!(sender.wait_timeout(PATIENCE)?.success());
    let at_its_end = Books::close(&monitor)?.counted(pid);
    let flow: Flow = peer.join().expect("no panic")?.into_values().sum();
    let books = Books::close(&monitor)?;
    assert!(at_its_end.up < flow.up, "nothing was left to wait: {at_its_end:?} of {flow:?}");
    // Less than the sum's thousandth: the last exchange of headers may find no socket on this side any more.
    books.check("16", pid, flow);
    Ok(())
}

#[test]
fn two_hundred_thousand_small_datagrams() -> anyhow::Result<()> {
    let bed = bed("small")?;
    let monitor = Monitor::start(&bed, &[])?;
    // It need not read: what matters is that nobody refuses them.
    let socket = bed.server().run(|| Ok(UdpSocket::bind(bed.server().socket_address(Family::V4, 0))?))?;
    let to = socket.local_addr()?;
    let send = format!("udp-send --to {to} --rate 10000000 --size 100 --datagrams 200000");
    let mut sender = start(bed.client(), &send)?;
    let pid = sender.pid();
    assert!(sender.wait_timeout(PATIENCE)?.success());
    let report = traffic::Report::parse(&sender.stdout())?;
    assert_eq!(report.datagrams, 200_000, "{report:?}");
    let books = Books::close(&monitor)?;
    assert_eq!(books.counted(pid), Flow { up: 200_000 * 128, down: 0 });
    Ok(())
}
