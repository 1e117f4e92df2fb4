//! Senders, receivers, and limits on them.

use std::{
    net::{SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use testbed::{Family, Host, Process, Testbed, traffic};

use crate::support::{PATIENCE, chadthrottle, interface_bytes};

/// IP bytes of a datagram here, over IPv4, and its payload.
pub(crate) const DATAGRAM: u64 = 1400;
pub(crate) const PAYLOAD: u64 = DATAGRAM - 28;
/// A limit, in IP bytes a second.
pub(crate) const CAP: f64 = 1e6;
/// What a target may save up, in seconds of its limit.
pub(crate) const BURST: f64 = 0.24;
/// The bytes of a frame beside the packet's, which interfaces count.
const FRAME: f64 = 14.0;

/// Copies of programs under paths of their own, where every user can execute them.
pub(crate) struct Copies(tempfile::TempDir);

impl Copies {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        Ok(Self(directory))
    }

    /// A copy of a program.
    pub(crate) fn of(&self, program: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let copy = self.0.path().join(name);
        // By another process, so that no descriptor here that writes to it is inherited by anybody (ETXTBSY).
        ensure!(Command::new("cp").arg(program).arg(&copy).status()?.success());
        Ok(copy)
    }

    /// A copy of `traffic`.
    pub(crate) fn traffic(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.of(traffic::traffic_binary()?, name)
    }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are text")
}

/// Starts `chadthrottle` with these options, and waits until the limit is in force.
pub(crate) fn limit(bed: &Testbed, options: &[&str]) -> anyhow::Result<Process> {
    let limiter = Process::spawn(chadthrottle(bed).args(options))?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    Ok(limiter)
}

/// A receiver of datagrams.
pub(crate) struct Sink {
    process: Process,
    pub(crate) address: SocketAddr,
    /// On the same host.
    teller: UdpSocket,
}

impl Sink {
    /// On a host, until it is asked for its report.
    pub(crate) fn start(host: &Host, family: Family) -> anyhow::Result<Self> {
        Self::listening(host, host.socket_address(family, 0))
    }

    /// The same with an address and port.
    pub(crate) fn listening(host: &Host, address: SocketAddr) -> anyhow::Result<Self> {
        let listen = address.to_string();
        let until = ["--until-told", "--idle-exit", "300", "--first-wait", "120000"];
        let process =
            Process::spawn(traffic::command(host)?.args(["udp-sink", "--listen", &listen]).args(until))?;
        let teller = host.run(|| Ok(UdpSocket::bind(SocketAddr::new(address.ip(), 0))?))?;
        Ok(Self { address: traffic::ready(&process)?, process, teller })
    }

    /// What came, by when nothing has come for a moment: to be asked for when whoever sends has ended.
    pub(crate) fn report(self) -> anyhow::Result<traffic::Report> {
        self.teller.send_to(&[], self.address)?;
        traffic::Report::parse(&self.process.success(PATIENCE)?)
    }
}

/// Arguments of `traffic`: datagrams at a rate of payload, for so many seconds.
pub(crate) fn send_for(to: SocketAddr, rate: u64, seconds: &str) -> Vec<String> {
    let numbers = [("--rate", rate.to_string()), ("--size", PAYLOAD.to_string())];
    let mut words = vec!["udp-send".to_owned(), "--to".to_owned(), to.to_string()];
    words.extend(numbers.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    words.extend(["--seconds".to_owned(), seconds.to_owned()]);
    words
}

/// Datagrams that are sent at once.
const FEW: &str = "40";

/// Arguments of `traffic`: a few datagrams.
pub(crate) fn send_few(to: SocketAddr) -> Vec<String> {
    let to = to.to_string();
    let words = ["udp-send", "--to", &to, "--rate", "1000000", "--size", "1372", "--datagrams", FEW];
    words.map(str::to_owned).to_vec()
}

/// Sends a few datagrams at once by a command, and says how many of them arrived at the server.
pub(crate) fn arrivals(bed: &Testbed, command: &mut Command) -> anyhow::Result<u64> {
    let sink = Sink::start(bed.server(), Family::V4)?;
    let sent = Process::spawn(command.args(send_few(sink.address)))?.success(PATIENCE)?;
    let sent = traffic::Report::parse(sent.trim_end())?;
    ensure!(sent.datagrams > 20 && sent.errors.is_empty(), "{sent:?}");
    Ok(sink.report()?.datagrams)
}

/// Whether datagrams that a command sends come through. Where some do, all have to.
pub(crate) fn comes_through(bed: &Testbed, command: &mut Command) -> anyhow::Result<bool> {
    let arrived = arrivals(bed, command)?;
    ensure!(arrived == 0 || arrived > 20, "{arrived} datagrams have come through");
    Ok(arrived > 0)
}

/// What comes out at an interface, in IP bytes of packets as long as those here.
pub(crate) struct Meter<'a> {
    host: &'a Host,
    direction: &'static str,
    start: (Instant, u64),
}

impl<'a> Meter<'a> {
    /// What arrives at the server.
    pub(crate) fn uploads(bed: &'a Testbed) -> anyhow::Result<Self> {
        Self::new(bed.server(), "rx")
    }

    /// What leaves the client, or comes to it: what is dropped there has come.
    pub(crate) fn new(host: &'a Host, direction: &'static str) -> anyhow::Result<Self> {
        let bytes = interface_bytes(host, host.interfaces()[0], direction)?;
        Ok(Self { host, direction, start: (Instant::now(), bytes) })
    }

    /// Bytes since it began, and in how many seconds.
    pub(crate) fn read(&self) -> anyhow::Result<(f64, f64)> {
        let bytes = interface_bytes(self.host, self.host.interfaces()[0], self.direction)? - self.start.1;
        let seconds = self.start.0.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
        let bytes = bytes as f64;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let datagram = DATAGRAM as f64;
        Ok((bytes * datagram / (datagram + FRAME), seconds))
    }

    /// Bytes a second over so long from now on.
    pub(crate) fn rate(bed: &'a Testbed, window: Duration) -> anyhow::Result<f64> {
        let meter = Self::uploads(bed)?;
        std::thread::sleep(window);
        let (bytes, seconds) = meter.read()?;
        Ok(bytes / seconds)
    }
}

/// Does something again, twice at most, where it fails: a path that is made of threads falters on a machine that does much
/// else.
pub(crate) fn in_three_attempts(work: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    for _ in 0..2 {
        match work() {
            Ok(()) => return Ok(()),
            Err(error) => println!("once more: {error:#}"),
        }
    }
    work()
}

/// That what arrives at the server comes to what a limit allows. A sender that does not get the CPU for a while has less,
/// and then for a moment what it has saved up.
pub(crate) fn holds(bed: &Testbed, cap: f64, what: &str) -> anyhow::Result<()> {
    for _ in 0..5 {
        let share = Meter::rate(bed, Duration::from_millis(800))? / cap;
        println!("{what}: {share:.3} of the limit");
        ensure!(share < 1.35, "{what}: {share:.3} of the limit");
        if (0.85..1.1).contains(&share) {
            return Ok(());
        }
    }
    anyhow::bail!("{what}: never what the limit allows")
}

/// That a rate is what a limit allows, nearly.
pub(crate) fn assert_held(rate: f64, cap: f64, what: &str) {
    println!("{what}: {:.3} of the limit", rate / cap);
    assert!((0.6..1.2).contains(&(rate / cap)), "{what}: {rate} B/s, limited to {cap}");
}
