//! Without a command: the screen.

use crate::{
    app::BackendNames,
    backends::{
        registry::{Backends, Wanted},
        throttle::{ThrottleManager, manager::Limits},
    },
    failure::Failure,
    lookout::Here,
    names::Resolver,
    run::{self, Ended, Host, RunOptions},
    sys::{
        capability::{self, NET_ADMIN},
        signals::Signals,
        spawn::status_of_signal,
    },
};

/// Opens the screen, and returns the exit status once it is closed.
///
/// # Errors
/// When no backend works here, or there is no terminal.
pub fn run(backends: &Backends, wanted: &Wanted, options: RunOptions) -> anyhow::Result<u8> {
    let signals = Signals::hold_for_screen()?;
    // Whatever can be told without changing the kernel is refused before the terminal is taken over.
    let mut monitor = backends.select_monitor_backend(wanted.monitor.as_deref())?;
    let (upload, download) = super::select_throttles(backends, wanted, Limits::default())?;
    run::require_terminal().map_err(|error| Failure::Usage(error.to_string()))?;
    let limits_udp = upload.capabilities().udp;
    let names = BackendNames {
        monitor: monitor.name(),
        upload: upload.name(),
        download: download.as_ref().map(|download| download.name()),
    };
    let is_partial = !(monitor.capabilities().udp && limits_udp);
    let options = RunOptions { notice: is_partial.then(what_is_missing), ..options };
    let host = Host {
        lookout: Box::new(Here::new(backends.clone(), wanted.clone())),
        names: Box::new(Resolver),
        supply: Box::new(backends.clone()),
    };
    let start = move || {
        // The monitor first: it finds out whose sockets are before anything is counted.
        monitor.init()?;
        Ok((monitor, ThrottleManager::new(upload, download)?.announced()))
    };
    match run::run(names, start, host, options, signals)? {
        Ended::ByUser => Ok(0),
        Ended::BySignal(signal) => Ok(u8::try_from(status_of_signal(signal))?),
    }
}

/// What backends leave out that know TCP alone.
fn what_is_missing() -> &'static str {
    if capability::first_missing(&[NET_ADMIN]).is_some() {
        "Without privilege: your own processes and TCP alone. sudo shows and limits everybody's, and UDP (QUIC, DNS)."
    } else {
        "TCP alone, no UDP (QUIC, DNS): --list-backends tells which backends do more."
    }
}
