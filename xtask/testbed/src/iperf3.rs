//! Traffic by iperf3, which other tools are measured with too.

mod report;

use std::fmt::Display;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::{Family, Host, Process, poll, program};

pub use report::Iperf3Report;

/// Seconds from one report to the next: fine enough to slide a window of a second over them. iperf3's least.
const INTERVAL: &str = "0.1";

/// An iperf3 server, which serves one client after another until it is dropped.
#[derive(Debug)]
pub struct Iperf3Server {
    process: Process,
    port: u16,
}

impl Iperf3Server {
    /// Starts a server and returns when it listens, on all addresses of the host.
    ///
    /// # Errors
    ///
    /// That iperf3 is missing, or that it does not come to listen.
    pub fn start(host: &Host, port: u16) -> anyhow::Result<Self> {
        let program = program::require_program("iperf3")?;
        let mut command = host.command(program);
        // With -J here the client gets the server's report as JSON too, and not as text that rounds its bytes.
        command.args(["--server", "--json", "--interval", INTERVAL, "--port", &port.to_string()]);
        let mut server = Self { process: Process::spawn(&mut command)?, port };
        poll::until("iperf3 listens", Duration::from_secs(5), || {
            // With --json it does not print that it listens.
            Ok(server.listens()?.then_some(()))
        })?;
        Ok(server)
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn listens(&mut self) -> anyhow::Result<bool> {
        if self.process.wait_timeout(Duration::ZERO).is_ok() {
            bail!("the iperf3 server has ended: {}{}", self.process.stdout(), self.process.stderr());
        }
        for table in ["tcp", "tcp6"] {
            // The network of that process, whatever our own is.
            let path = format!("/proc/{}/net/{table}", self.process.pid());
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            if text.lines().any(|line| is_listener(line, self.port)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a line of `/proc/net/tcp` is a socket that listens on the port.
fn is_listener(line: &str, port: u16) -> bool {
    const TCP_LISTEN: &str = "0A";
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    matches!(fields[..], [_, local, _, TCP_LISTEN, ..] if local.ends_with(&format!(":{port:04X}")))
}

/// An iperf3 client: what it is to do. Rates are in bytes per second, as everywhere here; iperf3 takes bits.
#[derive(Debug, Clone)]
pub struct Iperf3 {
    args: Vec<String>,
}

impl Iperf3 {
    /// A client that sends by TCP to a server on this host.
    #[must_use]
    pub fn client(server: &Host, family: Family, port: u16) -> Self {
        Self::client_to(SocketAddr::new(server.address(family), port))
    }

    /// A client that sends by TCP to this address.
    #[must_use]
    pub fn client_to(server: SocketAddr) -> Self {
        let args = Self { args: vec!["--json".into(), "--get-server-output".into()] };
        args.option("--client", server.ip())
            .option("--port", server.port())
            .option("--interval", INTERVAL)
            // Milliseconds; without it a client that is dropped by a filter hangs for minutes.
            .option("--connect-timeout", 5000)
    }

    /// For how long to transfer, in whole seconds as iperf3 wants it.
    #[must_use]
    pub fn seconds(self, seconds: u32) -> Self {
        self.option("--time", seconds)
    }

    /// How many bytes to transfer, instead of a time.
    #[must_use]
    pub fn bytes(self, bytes: u64) -> Self {
        self.option("--bytes", bytes)
    }

    /// How many connections at once.
    #[must_use]
    pub fn flows(self, flows: u32) -> Self {
        self.option("--parallel", flows)
    }

    /// The server sends and the client receives.
    #[must_use]
    pub fn reverse(self) -> Self {
        self.flag("--reverse")
    }

    /// By UDP, at so many bytes of payload per second and flow.
    #[must_use]
    pub fn udp(self, bytes_per_second: u64) -> Self {
        self.flag("--udp").rate(bytes_per_second)
    }

    /// At so many bytes of payload per second and flow.
    #[must_use]
    pub fn rate(self, bytes_per_second: u64) -> Self {
        self.option("--bitrate", bytes_per_second * 8)
    }

    /// The sender's congestion control.
    #[must_use]
    pub fn congestion(self, name: &str) -> Self {
        self.option("--congestion", name)
    }

    /// Bytes per write, and of payload per UDP datagram.
    #[must_use]
    pub fn length(self, bytes: u32) -> Self {
        self.option("--length", bytes)
    }

    /// The arguments, for a program that starts iperf3 itself.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        self.args.clone()
    }

    /// The client as a command on a host.
    ///
    /// # Errors
    ///
    /// That iperf3 is missing.
    pub fn command(&self, host: &Host) -> anyhow::Result<Command> {
        let mut command = host.command(program::require_program("iperf3")?);
        command.args(&self.args);
        Ok(command)
    }

    /// Runs the client on a host to its end.
    ///
    /// # Errors
    ///
    /// That it fails, or has not ended by `timeout`.
    pub fn run(&self, host: &Host, timeout: Duration) -> anyhow::Result<Iperf3Report> {
        let mut process = Process::spawn(&mut self.command(host)?)?;
        process.wait_timeout(timeout)?;
        // Where it fails, the JSON says why.
        Iperf3Report::parse(&process.stdout())
    }

    fn flag(mut self, name: &str) -> Self {
        self.args.push(name.to_owned());
        self
    }

    fn option(self, name: &str, value: impl Display) -> Self {
        self.flag(name).flag(&format!("{value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let client = Iperf3::client_to("[fd77:2::2]:5201".parse().unwrap()).seconds(3).udp(1000).reverse();
        let args = client.args().join(" ");
        assert!(args.contains("--client fd77:2::2 --port 5201"), "{args}");
        assert!(args.ends_with("--time 3 --udp --bitrate 8000 --reverse"), "{args}");
    }

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let line =
            "   0: 00000000000000000000000000000000:1451 00000000000000000000000000000000:0000 0A 0:0 0";
        assert!(is_listener(line, 0x1451));
        assert!(!is_listener(line, 0x1452));
        assert!(!is_listener(&line.replace(" 0A ", " 01 "), 0x1451));
    }
}
