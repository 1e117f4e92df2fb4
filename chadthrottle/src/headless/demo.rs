//! `--demo`: the screen over a simulated host.

use std::{io::Write, time::Duration};

use ratatui::layout::Size;

use crate::{
    app::{BackendNames, Setup},
    backends::demo::{Demo, Part},
    failure::Failure,
    run::{
        self, Ended, Host, RunOptions,
        measure::measure,
        still::{Still, moves},
    },
    sys::{signals::Signals, spawn::status_of_signal},
};

/// What host, and how it is looked at.
#[derive(Clone, Debug)]
pub struct Options {
    /// The same seed makes the same host.
    pub seed: u64,
    /// How old the host is when it is looked at.
    pub age: Duration,
    /// How many more processes there are.
    pub crowd: usize,
    /// Which part of it panics, where one is to.
    pub panics: Option<Part>,
    /// Columns and rows of a picture, instead of the screen.
    pub picture: Option<Size>,
    /// Measure instead, and write the figures as JSON.
    pub measure: bool,
    /// What is done before the picture is taken.
    pub keys: String,
}

const BACKENDS: BackendNames = BackendNames { monitor: "demo", upload: "demo", download: Some("demo") };
/// The window that is measured.
const LARGE: Size = Size { width: 160, height: 50 };

fn setup(screen: RunOptions) -> Setup {
    let RunOptions { looks, units, hidden, .. } = screen;
    Setup { looks, units, hidden, is_demo: true, ..Setup::new(BACKENDS) }
}

/// Opens the screen, or writes the picture, and returns the exit status.
///
/// # Errors
/// When there is no terminal, or the keys for a picture are none.
pub fn run(options: &Options, screen: RunOptions, out: &mut impl Write) -> anyhow::Result<u8> {
    if options.measure {
        let setup = setup(screen);
        for measured in measure(setup, options.picture.unwrap_or(LARGE), options.crowd)? {
            writeln!(out, "{}", serde_json::to_string(&measured)?)?;
        }
        return Ok(0);
    }
    if let Some(size) = options.picture {
        let moves = moves(&options.keys).map_err(|error| Failure::Usage(format!("--demo-keys: {error}")))?;
        let setup = setup(screen);
        let mut still = Still::new(options.seed, setup, size)?;
        still.wait(options.age)?;
        still.go(&moves)?;
        write!(out, "{}", still.text())?;
        return Ok(0);
    }
    let signals = Signals::hold_for_screen()?;
    run::require_terminal().map_err(|error| Failure::Usage(error.to_string()))?;
    let demo = Demo::new(options.seed, options.age, options.crowd).panicking(options.panics);
    let screen = RunOptions { is_demo: true, ..screen };
    let host = Host {
        lookout: Box::new(demo.lookout()),
        names: Box::new(demo.names()),
        supply: Box::new(demo.clone()),
        rules: None,
    };
    let start = move || Ok((demo.monitor(), demo.manager()?));
    match run::run(BACKENDS, start, host, screen, signals)? {
        Ended::ByUser => Ok(0),
        Ended::BySignal(signal) => Ok(u8::try_from(status_of_signal(signal))?),
    }
}
