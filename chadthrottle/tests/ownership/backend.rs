//! The monitors that the scenarios are tried on.

use testbed::Testbed;

use crate::support::{self, Monitor};

/// A monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Ebpf,
    Pnet,
    SockDiag,
}

/// What happens, and whether this monitor counts it for the right process.
pub(crate) type Scenario = fn(Backend) -> anyhow::Result<()>;

impl Backend {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Pnet => "pnet",
            Self::SockDiag => "sock_diag",
        }
    }

    /// After so many of its lines whatever has happened is in one. Those that search /proc may have to wait for that.
    pub(crate) fn lines_behind(name: &str) -> usize {
        if name == Self::Ebpf.name() { 2 } else { 10 }
    }

    /// Starts it on the bed's client.
    pub(crate) fn start(self, bed: &Testbed, options: &[&str]) -> anyhow::Result<Monitor> {
        let mut command = match self {
            Self::Ebpf => support::chadthrottle(bed),
            // They see the bed's client and nothing else.
            Self::Pnet | Self::SockDiag => bed.client().command(support::BINARY),
        };
        command.args(["--monitor-backend", self.name()]);
        let monitor = Monitor::start_by(&mut command, options)?;
        anyhow::ensure!(monitor.last()?["monitor"] == self.name());
        Ok(monitor)
    }
}
