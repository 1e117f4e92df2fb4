//! The emulated path does what it was told. The bands are what a loaded machine allows; each test prints its figures.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use testbed::iperf3::{Iperf3, Iperf3Server};
use testbed::path::{Link, Path};
use testbed::{Family, Process, Testbed, traffic};

const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a datagram there and back, so often, and returns how long each took, the shortest first.
fn round_trips(bed: &Testbed, count: usize) -> anyhow::Result<Vec<Duration>> {
    let server = bed.server().run(|| Ok(UdpSocket::bind(bed.server().socket_address(Family::V4, 0))?))?;
    let client = bed.client().run(|| Ok(UdpSocket::bind(bed.client().socket_address(Family::V4, 0))?))?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    client.connect(server.local_addr()?)?;
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> anyhow::Result<()> {
            for _ in 0..count {
                let (_, from) = server.recv_from(&mut [0; 8])?;
                server.send_to(b"back", from)?;
            }
            Ok(())
        });
        let mut times = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            client.send(b"there")?;
            client.recv(&mut [0; 8])?;
            times.push(start.elapsed());
        }
        echo.join().expect("no panic")?;
        times.sort();
        Ok(times)
    })
}

#[test]
fn delay_is_exact_to_a_fraction_of_a_millisecond() -> anyhow::Result<()> {
    for milliseconds in [2, 20, 150] {
        let expected = Duration::from_millis(milliseconds);
        let bed = Testbed::with_path("delay", &Path::round_trip(expected))?;
        let times = round_trips(&bed, 21)?;
        let (least, median) = (times[0], times[times.len() / 2]);
        println!("{expected:?}: {least:?} to {:?}, median {median:?}", times[times.len() - 1]);
        assert!(least >= expected, "{least:?} is faster than {expected:?}");
        assert!(median < expected + Duration::from_micros(1500), "{median:?} instead of {expected:?}");
        bed.close()?;
    }
    Ok(())
}

#[test]
fn datagrams_are_lost_as_a_binomial_distribution_has_it() -> anyhow::Result<()> {
    const SENT: u64 = 20_000;
    let loss = Link { loss: 0.05, ..Link::delay(Duration::from_millis(1)) };
    let path = Path { to_server: loss, ..Path::round_trip(Duration::from_millis(2)) };
    let bed = Testbed::with_path("loss", &path)?;
    let listen = bed.server().socket_address(Family::V6, 0).to_string();
    let sink = ["udp-sink", "--listen", &listen, "--idle-exit", "500"];
    let sink = Process::spawn(traffic::command(bed.server())?.args(sink))?;
    let to = traffic::ready(&sink)?.to_string();
    let count = SENT.to_string();
    let send = ["udp-send", "--to", &to, "--rate", "4000000", "--size", "200", "--datagrams", &count];
    Process::spawn(traffic::command(bed.client())?.args(send))?.success(PATIENCE)?;
    let received = traffic::Report::parse(&sink.success(PATIENCE)?)?.datagrams;
    println!("of {SENT} datagrams {received} have arrived");
    // Five standard deviations: 5 √(20,000 · 0.05 · 0.95) = 154.
    assert!(received.abs_diff(SENT * 95 / 100) < 154, "of {SENT} datagrams {received} have arrived");
    bed.close()
}

#[test]
fn segments_within_super_packets_are_lost_and_sent_again() -> anyhow::Result<()> {
    for family in Family::ALL {
        let loss = Link { loss: 0.002, ..Link::delay(Duration::from_millis(1)) };
        let path = Path { to_server: loss, ..Path::round_trip(Duration::from_millis(2)) };
        let bed = Testbed::with_path("loss", &path)?;
        let _server = Iperf3Server::start(bed.server(), 5201)?;
        // BBR does not care for loss, and so goes on sending super-packets.
        let client = Iperf3::client(bed.server(), family, 5201).bytes(60_000_000).congestion("bbr");
        let report = client.run(bed.client(), PATIENCE)?;
        let payload = if family == Family::V4 { 1448 } else { 1428 };
        let segments = report.sent_bytes / payload;
        let retransmits = report.retransmits.unwrap_or_default();
        println!("{family:?}: {retransmits} of {segments} segments were sent again");
        // TCP may send some more than once that were only late; none fewer than were lost. Five standard deviations.
        let expected = segments / 500;
        assert!(retransmits > expected - expected.isqrt() * 5, "{retransmits} instead of {expected}");
        assert!(retransmits < expected * 2, "{retransmits} instead of {expected}");
        bed.close()?;
    }
    Ok(())
}

#[test]
fn the_rate_is_exact_to_a_percent_and_a_full_queue_delays() -> anyhow::Result<()> {
    for (rate, family) in [(1_000_000, Family::V4), (20_000_000, Family::V6)] {
        // Room for 50 ms.
        let path = Path::round_trip(Duration::from_millis(10)).rate(rate, rate / 20);
        let bed = Testbed::with_path("rate", &path)?;
        let _server = Iperf3Server::start(bed.server(), 5201)?;
        let client = Iperf3::client(bed.server(), family, 5201).seconds(4).congestion("cubic");
        let report = client.run(bed.client(), PATIENCE)?;
        let headers = if family == Family::V4 { 1500.0 / 1448.0 } else { 1500.0 / 1428.0 };
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let achieved = report.rate_after_first_second() * headers / rate as f64;
        println!("{rate} B/s: {achieved:.4}");
        assert!((0.98..1.01).contains(&achieved), "{achieved} of {rate} B/s");
        bed.close()?;
    }
    Ok(())
}

#[test]
fn it_carries_a_hundred_megabytes_a_second() -> anyhow::Result<()> {
    let bed = Testbed::with_path("fast", &Path::round_trip(Duration::from_millis(20)))?;
    let _server = Iperf3Server::start(bed.server(), 5201)?;
    for client in [
        Iperf3::client(bed.server(), Family::V4, 5201),
        Iperf3::client(bed.server(), Family::V4, 5201).reverse(),
    ] {
        let report = client.seconds(3).congestion("cubic").run(bed.client(), PATIENCE)?;
        let rate = report.rate_after_first_second();
        println!("{rate:.0} B/s, {:?} retransmits", report.retransmits);
        // Half of it, where others use the machine too.
        assert!(rate > 50e6, "{rate} B/s");
        // Next to no packet is lost where none is to be: one in a thousand is a bug of the emulator, less may be a queue of a
        // device that the machine had no time to empty.
        let lost = report.retransmits.unwrap_or(u64::MAX);
        assert!(lost <= report.received_bytes / 1_500_000, "{lost} retransmits");
    }
    bed.close()
}

#[test]
fn a_bed_without_a_path_counts_what_travels() -> anyhow::Result<()> {
    const BYTES: u32 = 5_000_000;
    let bed = Testbed::counted("counted")?;
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &listen]))?;
    let to = traffic::ready(&sink)?.to_string();
    let before = bed.carried().expect("it counts");
    let send = ["tcp-send", "--to", &to, "--bytes", &BYTES.to_string()];
    Process::spawn(traffic::command(bed.client())?.args(send))?.success(PATIENCE)?;
    let after = bed.carried().expect("it counts");
    let [carried, answered] = [0, 1].map(|way| after[way].bytes - before[way].bytes);
    // Full segments of 1448 bytes, 52 bytes of headers each, though the kernel handles many at once; and a few that are
    // not full.
    let expected = f64::from(BYTES) * 1500.0 / 1448.0;
    let share = f64::from(u32::try_from(carried)?) / expected;
    println!("{share:.4} of what is expected, {answered} bytes of answers");
    assert!((0.999..1.03).contains(&share), "{carried} bytes for {BYTES} of payload");
    assert!(answered > 52 && answered < carried / 5, "{answered} bytes of answers");
    bed.close()
}
