//! Unusual ways to the network: without a buffer, through rings, raw, from another namespace, under another name.

use std::net::TcpStream;

use testbed::{Family, Process, traffic, until};

use crate::{
    books::{Books, bed, parts, start, with_retransmissions},
    peer::{self, Flow},
    support::{Monitor, PATIENCE, process},
};

/// Reads to the end, then answers.
fn answer(stream: &TcpStream) -> anyhow::Result<()> {
    peer::receive(stream)?;
    peer::send(stream, 3_000_000)
}

/// One process that sends and receives three megabytes.
fn both_ways(what: &str, mode: &str, options: &str) -> anyhow::Result<()> {
    let bed = bed(mode)?;
    let monitor = Monitor::start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.server(), 1, answer)?;
    let parts = parts(start(bed.client(), &format!("{mode} --to {to} --bytes 3000000{options}"))?)?;
    let flow = with_retransmissions(peer.join().expect("no panic")?.into_values().sum(), &parts);
    let books = Books::close(&monitor)?;
    assert_eq!((parts[0].sent, parts[0].received), (3_000_000, 3_000_000));
    books.check_sum(what, flow);
    books.check(what, parts[0].pid, flow);
    Ok(())
}

#[test]
fn sendfile_is_counted() -> anyhow::Result<()> {
    both_ways("17, sendfile", "zerocopy", " --by sendfile")
}

#[test]
fn splice_is_counted() -> anyhow::Result<()> {
    both_ways("17, splice", "zerocopy", " --by splice")
}

#[test]
fn io_uring_is_counted() -> anyhow::Result<()> {
    both_ways("21", "uring", "")
}

#[test]
fn io_uring_is_counted_where_a_kernel_thread_does_it() -> anyhow::Result<()> {
    both_ways("21, by worker", "uring", " --worker")
}

#[test]
fn another_network_namespace_is_counted() -> anyhow::Result<()> {
    let bed = bed("container")?;
    let monitor = Monitor::start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.client(), 1, peer::receive)?;
    // In the cgroup that is watched, on a host that is not the monitor's.
    let mut command = bed.server().command_in(bed.cgroup_root(), traffic::traffic_binary()?)?;
    let to = to.to_string();
    let sender = command.args(["many", "--to", &to, "--connections", "1", "--bytes", "3000000"]);
    let parts = parts(Process::spawn(sender)?)?;
    let flow = with_retransmissions(peer.join().expect("no panic")?.into_values().sum(), &parts);
    let books = Books::close(&monitor)?;
    books.check_sum("22", flow);
    books.check("22", parts[0].pid, flow);
    assert_eq!(books.row(parts[0].pid)?["name"], "traffic");
    Ok(())
}

#[test]
fn echo_requests_on_a_raw_socket_are_counted() -> anyhow::Result<()> {
    let bed = bed("icmp")?;
    let monitor = Monitor::start(&bed, &[])?;
    let to = bed.server().address(Family::V4);
    let parts = parts(start(bed.client(), &format!("icmp --to {to} --count 500 --size 1000"))?)?;
    let books = Books::close(&monitor)?;
    // 20 bytes of IP and 8 of ICMP.
    let each_way = 500 * 1028;
    assert_eq!(books.counted(parts[0].pid), Flow { up: each_way, down: each_way });
    Ok(())
}

#[test]
fn a_process_that_becomes_another_program_keeps_its_bytes_and_gets_its_name() -> anyhow::Result<()> {
    let bed = bed("rename")?;
    let monitor = Monitor::start(&bed, &[])?;
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("second-name");
    std::os::unix::fs::symlink(traffic::traffic_binary()?, &program)?;
    let (to, peer) = peer::serve(bed.server(), 2, peer::receive)?;
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
    assert!(sender.wait_timeout(PATIENCE)?.success());
    let flow: Flow = peer.join().expect("no panic")?.into_values().sum();
    let books = Books::close(&monitor)?;
    books.check_sum("30", flow);
    books.check("30", pid, flow);
    assert_eq!(books.row(pid)?["name"], "second-name");
    Ok(())
}
