//! The monitors that the scenarios are tried on.

use testbed::Testbed;

use crate::support::{self, Monitor};

/// A monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Ebpf,
}

/// What happens, and whether this monitor counts it for the right process.
pub(crate) type Scenario = fn(Backend) -> anyhow::Result<()>;

impl Backend {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
        }
    }

    /// Starts it on the bed's client.
    pub(crate) fn start(self, bed: &Testbed, options: &[&str]) -> anyhow::Result<Monitor> {
        let mut command = support::chadthrottle(bed);
        command.args(["--monitor-backend", self.name()]);
        let monitor = Monitor::start_by(&mut command, options)?;
        anyhow::ensure!(monitor.last()?["monitor"] == self.name());
        Ok(monitor)
    }
}
