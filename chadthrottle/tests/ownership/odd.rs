//! Unusual ways to the network: without a buffer, through rings, raw, under another name.

use std::net::TcpStream;

use anyhow::ensure;
use testbed::{Family, traffic, until};

use crate::{
    backend::Backend,
    books::{Books, bed, end, parts, start, with_retransmissions},
    peer::{self, Flow},
    support::{PATIENCE, process},
};

/// Reads to the end, then answers.
fn answer(stream: &TcpStream) -> anyhow::Result<()> {
    peer::receive_and_stay(stream)?;
    peer::send(stream, 3_000_000)
}

/// One process that sends and receives three megabytes.
fn both_ways(backend: Backend, what: &str, mode: &str, options: &str) -> anyhow::Result<()> {
    let bed = bed(mode)?;
    let monitor = backend.start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 1, answer)?;
    let [part] = parts(start(bed.client(), &format!("{mode} --to {to} --bytes 3000000{options}"))?)?;
    let flow = with_retransmissions(peer::flow(peer)?, std::slice::from_ref(&part));
    let books = Books::close(&monitor)?;
    ensure!((part.sent, part.received) == (3_000_000, 3_000_000), "{part:?}");
    books.check_sum(what, flow)?;
    books.check(what, part.pid, flow)
}

pub(crate) fn sendfile(backend: Backend) -> anyhow::Result<()> {
    both_ways(backend, "17, sendfile", "zerocopy", " --by sendfile")
}

pub(crate) fn splice(backend: Backend) -> anyhow::Result<()> {
    both_ways(backend, "17, splice", "zerocopy", " --by splice")
}

pub(crate) fn io_uring(backend: Backend) -> anyhow::Result<()> {
    both_ways(backend, "21", "uring", "")
}

pub(crate) fn io_uring_where_a_kernel_thread_does_it(backend: Backend) -> anyhow::Result<()> {
    both_ways(backend, "21, by worker", "uring", " --worker")
}

pub(crate) fn echo_requests_on_a_raw_socket(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("icmp")?;
    let monitor = backend.start(&bed, &[])?;
    let to = bed.server().address(Family::V4);
    let [part] = parts(start(bed.client(), &format!("icmp --to {to} --count 500 --size 1000"))?)?;
    // 20 bytes of IP and 8 of ICMP.
    let each_way = 500 * 1028;
    Books::close(&monitor)?.check_packets("29", part.pid, Flow { up: each_way, down: each_way })
}

pub(crate) fn a_process_that_becomes_another_program_keeps_its_bytes_and_gets_its_name(
    backend: Backend,
) -> anyhow::Result<()> {
    let bed = bed("rename")?;
    let monitor = backend.start(&bed, &[])?;
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("second-name");
    std::os::unix::fs::symlink(traffic::traffic_binary()?, &program)?;
    let (to, peer) = peer::serve(bed.server(), 2, peer::receive_and_stay)?;
    let program = program.display();
    let mut sender = start(bed.client(), &format!("rename --to {to} --bytes 1000000 --program {program}"))?;
    let pid = sender.pid();
    let name = |name: &str| monitor.until(name, |line| (process(line, pid)?["name"] == name).then_some(()));
    name("traffic")?;
    sender.send_line("become another")?;
    until("it is connected again", PATIENCE, || {
        Ok((sender.stdout().matches("ready").count() == 2).then_some(()))
    })?;
    name("second-name")?;
    sender.send_line("go")?;
    end(sender)?;
    let flow = peer::flow(peer)?;
    let books = Books::close(&monitor)?;
    books.check_sum("30", flow)?;
    books.check("30", pid, flow)?;
    books.check_name(pid, "second-name")
}

pub(crate) fn a_pid_that_is_used_again(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("reborn")?;
    let monitor = backend.start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 2, peer::receive_and_stay)?;
    let program = start(bed.client(), &format!("reborn --to {to} --bytes 1000000 --more 3000000"))?;
    let [_, first, second] = parts(program)?;
    ensure!(first.pid == second.pid, "the pid was to be used again: {first:?}, {second:?}");
    let mut flows: Vec<_> = peer::flows(peer)?.into_values().collect();
    flows.sort_by_key(|flow| flow.up);
    for (flow, part) in flows.iter_mut().zip([&first, &second]) {
        *flow = with_retransmissions(*flow, std::slice::from_ref(part));
    }
    let books = Books::close(&monitor)?;
    books.check_sum("30", flows.iter().copied().sum())?;
    books.check_in_turn("30", first.pid, &flows)
}
