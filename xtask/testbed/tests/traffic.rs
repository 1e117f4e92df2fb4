//! Traffic through the bed is counted to the byte.

use std::time::Duration;

use testbed::iperf3::{Iperf3, Iperf3Server};
use testbed::traffic::{self, Report, ready};
use testbed::{Family, Host, Process, Testbed};

const SECONDS_10: Duration = Duration::from_secs(10);

fn start(host: &Host, args: &str) -> anyhow::Result<Process> {
    Process::spawn(traffic::command(host)?.args(args.split(' ')))
}

fn finish(process: Process) -> anyhow::Result<Report> {
    Report::parse(&process.success(SECONDS_10)?)
}

#[test]
fn tcp_uploads_are_counted_to_the_byte() -> anyhow::Result<()> {
    let bed = Testbed::new("tcp-upload")?;
    for family in Family::ALL {
        let listen = bed.server().socket_address(family, 0);
        let sink = start(bed.server(), &format!("tcp-sink --listen {listen} --connections 2"))?;
        let to = ready(&sink)?;
        let senders = [3_000_001_u64, 7]
            .map(|bytes| start(bed.client(), &format!("tcp-send --to {to} --bytes {bytes}")));
        for (sender, bytes) in senders.into_iter().zip([3_000_001, 7]) {
            assert_eq!(finish(sender?)?.bytes, bytes);
        }
        let received = finish(sink)?;
        assert_eq!((received.bytes, received.timeline.bytes()), (3_000_008, 3_000_008));
    }
    Ok(())
}

#[test]
fn tcp_downloads_are_counted_to_the_byte_and_start_when_told() -> anyhow::Result<()> {
    let bed = Testbed::new("tcp-download")?;
    let listen = bed.server().socket_address(Family::V6, 0);
    let mut source =
        start(bed.server(), &format!("tcp-source --listen {listen} --bytes 1234567 --wait-stdin"))?;
    let mut receiver = start(bed.client(), &format!("tcp-receive --from {}", ready(&source)?))?;
    ready(&receiver)?;
    assert!(receiver.wait_timeout(Duration::from_millis(200)).is_err(), "it was to wait");
    source.send_line("go")?;
    assert_eq!(finish(receiver)?.bytes, 1_234_567);
    assert_eq!(finish(source)?.bytes, 1_234_567);
    Ok(())
}

#[test]
fn a_rate_is_kept() -> anyhow::Result<()> {
    let bed = Testbed::new("rate")?;
    let sink =
        start(bed.server(), &format!("tcp-sink --listen {}", bed.server().socket_address(Family::V4, 0)))?;
    let sender =
        start(bed.client(), &format!("tcp-send --to {} --seconds 1.5 --rate 2000000", ready(&sink)?))?;
    let (sent, received) = (finish(sender)?, finish(sink)?);
    assert_eq!(sent.bytes, received.bytes);
    assert!((2_900_000..=3_100_000).contains(&received.bytes), "{received:?}");
    let second = received.timeline.max_window(1.0);
    assert!((1_900_000.0..=2_200_000.0).contains(&second), "{second} {received:?}");
    Ok(())
}

#[test]
fn datagrams_are_counted_one_by_one() -> anyhow::Result<()> {
    let bed = Testbed::new("udp")?;
    for (family, flag) in [(Family::V4, " --unconnected"), (Family::V6, "")] {
        let listen = bed.server().socket_address(family, 0);
        let sink = start(bed.server(), &format!("udp-sink --listen {listen} --idle-exit 200"))?;
        let to = ready(&sink)?;
        let args = format!("udp-send --to {to} --rate 5000000 --size 1000 --seconds 0.5{flag}");
        let (sent, received) = (finish(start(bed.client(), &args)?)?, finish(sink)?);
        assert_eq!(received.datagrams, sent.datagrams);
        assert_eq!(received.bytes, sent.datagrams * 1000);
        assert!(sent.errors.is_empty(), "{sent:?}");
        assert!((2_400_000..=2_600_000).contains(&received.bytes), "{received:?}");
        assert!((0.4..0.6).contains(&received.seconds), "{received:?}");
    }
    Ok(())
}

#[test]
fn a_refused_datagram_is_an_error_by_name() -> anyhow::Result<()> {
    let bed = Testbed::new("refused")?;
    let to = bed.server().socket_address(Family::V4, 9);
    // Nobody listens there, so that the answers to the first ones make the later ones fail.
    let sent =
        finish(start(bed.client(), &format!("udp-send --to {to} --rate 100000 --size 100 --seconds 0.2"))?)?;
    assert!(sent.errors["ECONNREFUSED"] > 0, "{sent:?}");
    Ok(())
}

#[test]
fn a_wrong_argument_is_refused() -> anyhow::Result<()> {
    let bed = Testbed::new("arguments")?;
    for wrong in ["tcp-sink", "tcp-sink --listen 10.77.1.2:0 --bytes 5", "fly", "tcp-send --to 10.77.1.2:9"] {
        let error = start(bed.client(), wrong)?.success(SECONDS_10).unwrap_err().to_string();
        assert!(error.contains("traffic: "), "{error}");
    }
    Ok(())
}

#[test]
fn tcp_is_not_slow_where_nothing_limits_it() -> anyhow::Result<()> {
    let bed = Testbed::new("fast")?;
    let sink =
        start(bed.server(), &format!("tcp-sink --listen {}", bed.server().socket_address(Family::V4, 0)))?;
    finish(start(bed.client(), &format!("tcp-send --to {} --seconds 1", ready(&sink)?))?)?;
    let rate = finish(sink)?.timeline.rate_after(0.2);
    // An order of magnitude above every limit that is tested, and far below what any machine reaches.
    assert!(rate > 200e6, "{rate} bytes per second");
    Ok(())
}

#[test]
fn iperf3_reports_what_the_receiver_got() -> anyhow::Result<()> {
    let bed = Testbed::new("iperf3")?;
    let server = Iperf3Server::start(bed.server(), 5201)?;
    let client = |family| Iperf3::client(bed.server(), family, server.port()).seconds(2);
    let cases = [
        client(Family::V4).flows(2).rate(1_000_000).length(10_000),
        client(Family::V6).flows(2).rate(1_000_000).length(10_000).reverse().congestion("cubic"),
        client(Family::V6).udp(2_000_000).length(1000),
        client(Family::V4).udp(2_000_000).length(1000).reverse(),
    ];
    for case in cases {
        let report = case.run(bed.client(), SECONDS_10)?;
        assert_eq!(report.received_bytes, report.intervals.bytes(), "{case:?}");
        assert_eq!(report.received_bytes, report.flows.iter().sum::<u64>(), "{case:?}");
        assert!((3_800_000..=4_200_000).contains(&report.received_bytes), "{case:?}: {report:?}");
        let rate = report.rate_after_first_second();
        assert!((1.9e6..2.1e6).contains(&rate), "{rate}: {case:?}: {report:?}");
        assert!((1.9e6..2.2e6).contains(&report.max_second()), "{case:?}: {report:?}");
    }
    let error = client(Family::V4).congestion("no-such-thing").run(bed.client(), SECONDS_10).unwrap_err();
    assert!(error.to_string().contains("congestion"), "{error}");
    Ok(())
}

#[test]
fn what_is_written_but_does_not_arrive_is_not_counted() -> anyhow::Result<()> {
    let bed = Testbed::new("iperf3-narrow")?;
    let server = Iperf3Server::start(bed.server(), 5201)?;
    // A narrow link: 1 MB/s on the wire, with a queue that holds a second of it.
    let narrow = "qdisc add dev ctrserver root tbf rate 8mbit burst 10k limit 1m";
    Process::spawn(bed.router().command("tc").args(narrow.split(' ')))?.success(SECONDS_10)?;
    let report =
        Iperf3::client(bed.server(), Family::V4, server.port()).seconds(3).run(bed.client(), SECONDS_10)?;
    assert!(report.sent_bytes > report.received_bytes, "{report:?}");
    let rate = report.rate_after_first_second();
    assert!((0.9e6..1.0e6).contains(&rate), "{rate}: {report:?}");
    Ok(())
}
