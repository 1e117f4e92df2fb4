//! Sockets of one process: short lives, many sockets.

use anyhow::{Context, ensure};
use testbed::{Process, traffic};

use crate::{
    backend::Backend,
    books::{Books, bed, end, parts, start, with_retransmissions},
    interface::Counters,
    peer,
    support::PATIENCE,
};

pub(crate) fn fifty_processes_that_live_twenty_milliseconds(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("fifty")?;
    let monitor = backend.start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 50, peer::receive)?;
    // 64 KB in 20 ms.
    let send = format!("tcp-send --to {to} --bytes 65536 --rate 3200000");
    let senders: Vec<_> = (0..50).map(|_| start(bed.client(), &send)).collect::<Result<_, _>>()?;
    let mut ports = Vec::new();
    for sender in senders {
        let port = traffic::ready(&sender)?.port();
        ports.push((end(sender)?.0, port));
    }
    let flows = peer::flows(peer)?;
    let books = Books::close(&monitor)?;
    books.check_sum("8", flows.values().copied().sum())?;
    let check = |(pid, port): (u32, u16)| {
        books.check("8", pid, *flows.get(&port).context("nobody came from this port")?)?;
        books.check_name(pid, "traffic")?;
        ensure!(books.row(pid)?["alive"] == false, "{pid} has ended");
        Ok(())
    };
    let wrong: Vec<anyhow::Error> = ports.into_iter().filter_map(|sender| check(sender).err()).collect();
    ensure!(wrong.is_empty(), "{} of 50 are wrong, the first one: {:#}", wrong.len(), wrong[0]);
    Ok(())
}

pub(crate) fn two_thousand_sockets_of_one_process(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("many")?;
    let monitor = backend.start(&bed, &[])?;
    let (to, peer) = peer::serve_in_turn(bed.server(), 2000, peer::receive)?;
    let [part] = parts(start(bed.client(), &format!("many --to {to} --connections 2000 --bytes 5000"))?)?;
    let flow = with_retransmissions(peer::flow(peer)?, std::slice::from_ref(&part));
    let books = Books::close(&monitor)?;
    books.check_sum("12", flow)?;
    books.check("12", part.pid, flow)
}

pub(crate) fn two_processes_of_one_name(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("names")?;
    let monitor = backend.start(&bed, &[])?;
    let mut senders = Vec::new();
    for bytes in [1_000_000, 3_000_000] {
        let (to, peer) = peer::serve(bed.server(), 1, peer::receive_and_stay)?;
        let send = format!("many --to {to} --connections 1 --bytes {bytes}");
        senders.push((start(bed.client(), &send)?, peer));
    }
    let mut expected = Vec::new();
    for (sender, peer) in senders {
        let [part] = parts(sender)?;
        let flow = with_retransmissions(peer::flow(peer)?, std::slice::from_ref(&part));
        expected.push((part.pid, flow));
    }
    let books = Books::close(&monitor)?;
    books.check_sum("15", expected.iter().map(|(_, flow)| *flow).sum())?;
    for (pid, flow) in expected {
        books.check_name(pid, "traffic")?;
        books.check("15", pid, flow)?;
    }
    Ok(())
}

pub(crate) fn a_process_that_ends_while_its_bytes_still_wait(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("quit")?;
    // So that what it wrote last leaves when it is gone.
    let narrow = "qdisc add dev ctrserver root tbf rate 16mbit burst 20k limit 1m";
    Process::spawn(bed.router().command("tc").args(narrow.split(' ')))?.success(PATIENCE)?;
    let monitor = backend.start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 1, peer::receive)?;
    let send = format!("tcp-send --to {to} --bytes 2000000 --wait-stdin --quit");
    let mut sender = start(bed.client(), &send)?;
    traffic::ready(&sender)?;
    peer::stay();
    sender.send_line("go")?;
    let (pid, _) = end(sender)?;
    let counters = || Counters::read(bed.client(), bed.client().interfaces()[0]);
    let at_its_end = counters()?;
    let flow = peer::flow(peer)?;
    let waited = counters()?.since(at_its_end).ip.up;
    // How much a socket takes depends on the kernel and the machine.
    ensure!(waited > 50_000, "{waited} of {} bytes were left to wait", flow.up);
    let books = Books::close(&monitor)?;
    // Less than the sum's thousandth: the last exchange of headers may find no socket on this side any more.
    books.check("16", pid, flow)
}
