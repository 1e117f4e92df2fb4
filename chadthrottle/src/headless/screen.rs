//! Without a command: the screen.

use std::env;

use crate::{
    app::Palette,
    backends::{
        registry::{Backends, Wanted},
        throttle::{ThrottleManager, manager::Limits},
    },
    failure::Failure,
    run::{self, Ended, RunOptions},
    sys::{signals::Signals, spawn::status_of_signal},
};

/// Opens the screen, and returns the exit status once it is closed.
///
/// # Errors
/// When no backend works here, or there is no terminal.
pub fn run(backends: &Backends, wanted: &Wanted) -> anyhow::Result<u8> {
    let signals = Signals::hold()?;
    // Everything that may be refused comes before anything that changes the kernel or the terminal.
    let mut monitor = backends.select_monitor_backend(wanted.monitor.as_deref())?;
    let (upload, download) = super::select_throttles(backends, wanted, Limits::default())?;
    run::require_terminal().map_err(|error| Failure::Usage(error.to_string()))?;
    let manager = ThrottleManager::new(upload, download)?;
    monitor.init()?;
    let options = RunOptions { palette: palette(), ..RunOptions::default() };
    match run::run(monitor, manager, options, signals)? {
        Ended::ByUser => Ok(0),
        Ended::BySignal(signal) => Ok(u8::try_from(status_of_signal(signal))?),
    }
}

/// Colours, unless `NO_COLOR` is set to anything but nothing (no-color.org).
fn palette() -> Palette {
    match env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => Palette::Plain,
        _ => Palette::Colour,
    }
}
