//! The one place with threads, time and channels.
//!
//! The main thread owns the application and the terminal, and waits for messages. Four others send them: the
//! engine (which owns the backends and carries out what the application wants done), the looker (which answers what
//! is asked on demand), the one that reads keys, and the one that waits for signals. Whatever takes its time in the kernel does so in the engine, and never
//! holds up a key.

mod engine;
mod looker;
pub mod measure;
mod namer;
mod screen;
mod session;
pub mod still;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use crossterm::event::{self, Event as Input, MouseEventKind};
use nix::sys::signal::Signal;
use ratatui::Terminal;

use self::{
    engine::Engine,
    looker::Looker,
    namer::Namer,
    screen::Screen,
    session::{Askable, Session},
};
use crate::{
    app::{App, BackendNames, Event, Setup, chooser::Hidden, looks::Looks, units::Units},
    backends::{monitor::MonitorBackend, supply::Supply, throttle::ThrottleManager},
    daemon::remote::Remote,
    lookout::Lookout,
    names::Names,
    rules::keeper::RuleFiles,
    sys::signals::Signals,
};

/// How the screen is to be run.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// How often figures are read.
    pub interval: Duration,
    /// What the terminal can show.
    pub looks: Looks,
    /// In which units figures are shown.
    pub units: Units,
    /// Whether the host is a simulated one.
    pub is_demo: bool,
    /// Whether the mouse is ours.
    pub mouse: bool,
    /// Columns that nobody wants to see.
    pub hidden: Hidden,
    /// What is to be known from the start, in a sentence.
    pub notice: Option<&'static str>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            looks: Looks::default(),
            units: Units::default(),
            is_demo: false,
            mouse: true,
            hidden: Hidden::default(),
            notice: None,
        }
    }
}

/// What is asked and ordered beside figures and limits.
pub struct Host {
    /// Answers questions.
    pub lookout: Box<dyn Lookout>,
    /// Knows what hosts are called.
    pub names: Box<dyn Names>,
    /// Makes other backends.
    pub supply: Box<dyn Supply>,
    /// Keeps rules, where there are files for them.
    pub rules: Option<Keeping>,
}

/// Who keeps rules.
pub enum Keeping {
    /// We do.
    Here(Box<RuleFiles>),
    /// The daemon whose limits and figures are shown.
    Daemon(Remote),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A key was pressed.
    ByUser,
    /// A signal came.
    BySignal(Signal),
}

/// What the other threads tell the main one.
#[derive(Debug)]
enum Message {
    /// Something for the application.
    Event(Event),
    /// A signal that ends the program.
    Signal(Signal),
    /// The program is to stop until it is let go on.
    Suspend,
    /// The window may have another size.
    Resized,
    /// The backends could not be made ready.
    NotStarted(anyhow::Error),
    /// The engine has ended, of itself.
    EngineEnded,
    /// Keys or signals can no longer be read; in words.
    Deaf(String),
}

/// How long the thread that reads keys goes without looking whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether there is a terminal to draw on and to read keys from. Better asked before backends are made ready.
///
/// # Errors
/// When there is none.
pub fn require_terminal() -> anyhow::Result<()> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        return Ok(());
    }
    bail!("chadthrottle needs a terminal; for scripts there is `chadthrottle monitor --json`")
}

/// Shows the screen until it is ended by a key or a signal. `start` makes the backends with these names ready, beside
/// the first picture: nobody waits for the kernel before anything is seen. However this returns, the terminal is as it was and everything that the backends did has been taken back, as far as that
/// was possible.
///
/// # Errors
/// When there is no terminal, when it fails, when `start` does, and when something could not be taken back.
pub fn run(
    backends: BackendNames,
    start: impl FnOnce() -> anyhow::Result<(Box<dyn MonitorBackend>, ThrottleManager)> + Send + 'static,
    host: Host,
    options: RunOptions,
    signals: Signals,
) -> anyhow::Result<Ended> {
    require_terminal()?;
    let (send, messages) = mpsc::channel();
    let engine = Engine::start(Box::new(start), host.supply, host.rules, options.interval, send.clone())?;
    let looker = Looker::start(host.lookout, send.clone())?;
    let namer = Namer::new(host.names, send.clone());
    spawn("signals", {
        let send = send.clone();
        move || watch_signals(&signals, &send)
    })?;

    let screen = Screen::enter(options.mouse).context("cannot take over the terminal")?;
    let wanted = Arc::new(AtomicBool::new(true));
    spawn("input", {
        let wanted = Arc::clone(&wanted);
        move || read_input(&wanted, &send)
    })?;
    let terminal = Terminal::new(screen::backend()).context("cannot draw on the terminal")?;
    let size = terminal.size().context("cannot tell the size of the terminal")?;
    let RunOptions { looks, units, is_demo, mouse, hidden, .. } = options;
    let setup = Setup { backends, looks, units, is_demo, mouse, hidden };
    let mut app = App::new(setup, size);
    if let Some(notice) = options.notice {
        app.update(Event::Notice(notice.to_owned()));
    }
    let mut session = Session::new(app, terminal, engine, Askable { looker, namer }, messages);
    let ended = session.run_to_the_end();

    // The terminal first: taking limits back may take its time, and is no reason to leave it unusable.
    wanted.store(false, Ordering::Relaxed);
    drop(screen);
    let taken_back = session.end();
    let ended = ended?;
    taken_back.map_err(anyhow::Error::msg)?;
    Ok(ended)
}

/// Starts a thread that nobody waits for: it may be blocked for good when the program ends.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).context("cannot start a thread")?;
    Ok(())
}

/// Waits for the first signal that ends the program. Nobody listens to a failed send: then it is ending anyway.
fn watch_signals(signals: &Signals, send: &Sender<Message>) {
    loop {
        let message = match signals.wait(None) {
            Ok(None | Some(Signal::SIGCHLD)) => continue,
            Ok(Some(Signal::SIGTSTP)) => {
                if send.send(Message::Suspend).is_err() {
                    return;
                }
                continue;
            }
            Ok(Some(signal)) => Message::Signal(signal),
            Err(error) => Message::Deaf(format!("cannot wait for signals: {error}")),
        };
        let _ = send.send(message);
        return;
    }
}

/// Whether it is anything but moving about, which terminals tell of for each cell.
const fn matters(kind: MouseEventKind) -> bool {
    matches!(kind, MouseEventKind::Down(_) | MouseEventKind::ScrollUp | MouseEventKind::ScrollDown)
}

/// Hands on what is typed, for as long as that is wanted.
fn read_input(wanted: &AtomicBool, send: &Sender<Message>) {
    while wanted.load(Ordering::Relaxed) {
        let message = match event::poll(PATIENCE).and_then(|ready| ready.then(event::read).transpose()) {
            Ok(Some(Input::Key(key))) => Message::Event(Event::Key(key)),
            Ok(Some(Input::Paste(text))) => Message::Event(Event::Paste(text)),
            Ok(Some(Input::Mouse(mouse))) if matters(mouse.kind) => Message::Event(Event::Mouse(mouse)),
            Ok(Some(Input::Resize(..))) => Message::Resized,
            Ok(None | Some(_)) => continue,
            Err(error) => {
                let _ = send.send(Message::Deaf(format!("cannot read keys: {error}")));
                return;
            }
        };
        if send.send(message).is_err() {
            return;
        }
    }
}
