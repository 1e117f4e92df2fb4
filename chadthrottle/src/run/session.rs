//! The main thread's loop: messages in, effects out, and a screen that is drawn when something has changed.

use std::{
    io::{self, IsTerminal},
    mem::ManuallyDrop,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use ratatui::{Terminal, backend::Backend};

use super::{
    Ended, Message,
    engine::{Command, Engine},
    looker::Looker,
    namer::Namer,
    screen,
};
use crate::{
    app::{App, Effect, Event},
    backends::throttle::manager::Limits,
    ui,
};

/// The shortest time from one drawing to the next: more than thirty in a second nobody sees.
const FRAME: Duration = Duration::from_millis(33);

/// So long after a failure a signal may come that is its cause: the kernel takes a terminal away, and then tells.
const LAST_SIGNAL: Duration = Duration::from_secs(2);

/// Who is asked on demand.
pub(super) struct Askable {
    pub(super) looker: Looker,
    pub(super) namer: Namer,
}

/// The application, its terminal and its engine.
pub(super) struct Session<B: Backend> {
    app: App,
    /// Never dropped: that would panic where the terminal is gone, and who gives the terminal back is [`screen`].
    terminal: ManuallyDrop<Terminal<B>>,
    engine: Engine,
    askable: Askable,
    messages: Receiver<Message>,
    /// Whether something has changed since the last drawing.
    changed: bool,
    /// When the next drawing may be made.
    due: Instant,
}

impl<B> Session<B>
where
    B: Backend,
    B::Error: Send + Sync + 'static,
{
    /// Nothing drawn yet.
    pub(super) fn new(
        app: App,
        terminal: Terminal<B>,
        engine: Engine,
        askable: Askable,
        messages: Receiver<Message>,
    ) -> Self {
        let terminal = ManuallyDrop::new(terminal);
        Self { app, terminal, engine, askable, messages, changed: true, due: Instant::now() }
    }

    /// Goes on until a key or a signal ends it.
    pub(super) fn run(&mut self) -> anyhow::Result<Ended> {
        let first = self.app.start();
        self.carry_out(first);
        loop {
            if let Some(ended) = self.turn()? {
                return Ok(ended);
            }
        }
    }

    /// The same; where the terminal is gone, the signal that says so tells it better than what failed first.
    pub(super) fn run_to_the_end(&mut self) -> anyhow::Result<Ended> {
        self.run().or_else(|error| {
            if io::stdout().is_terminal() {
                return Err(error);
            }
            let deadline = Instant::now() + LAST_SIGNAL;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.messages.recv_timeout(left) {
                    Ok(Message::Signal(signal)) => return Ok(Ended::BySignal(signal)),
                    Ok(_) if !left.is_zero() => {}
                    _ => return Err(error),
                }
            }
        })
    }

    /// Draws when it is time to, or takes in one message. Without either, waits.
    pub(super) fn turn(&mut self) -> anyhow::Result<Option<Ended>> {
        let message = if self.changed {
            match self.messages.recv_timeout(self.due.saturating_duration_since(Instant::now())) {
                Ok(message) => Ok(message),
                Err(RecvTimeoutError::Timeout) => return self.draw().map(|()| None),
                Err(RecvTimeoutError::Disconnected) => Err(()),
            }
        } else {
            self.messages.recv().map_err(|_| ())
        };
        let Ok(message) = message else { bail!("every thread that could tell something has ended") };
        if !self.changed {
            self.changed = true;
            self.due = self.due.max(Instant::now());
        }
        let ended = self.take(message)?;
        // Messages that are there already are taken in first, but a flood of them must not keep the screen from
        // being drawn.
        if ended.is_none() && Instant::now() >= self.due + FRAME {
            self.draw()?;
        }
        Ok(ended)
    }

    /// Ends the engine, and waits until everything has been taken back.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.engine.stop()
    }

    fn take(&mut self, message: Message) -> anyhow::Result<Option<Ended>> {
        let (effects, ended) = match message {
            Message::Event(event) => (self.app.update(event), Ended::ByUser),
            Message::Signal(signal) => (self.app.update(Event::Signal), Ended::BySignal(signal)),
            Message::Resized => {
                screen::read_keys_again();
                return Ok(None);
            }
            Message::Suspend => {
                self.suspend()?;
                return Ok(None);
            }
            Message::NotStarted(error) => return Err(error),
            Message::EngineEnded => {
                let reason = self.end().err();
                return Err(anyhow!(reason.unwrap_or_else(|| "the engine ended".into())));
            }
            Message::Deaf(reason) => return Err(anyhow!(reason)),
        };
        if effects.contains(&Effect::Suspend) {
            self.suspend()?;
        }
        Ok(self.carry_out(effects).then_some(ended))
    }

    /// Hands on what is to be done. Whether that is to end.
    fn carry_out(&mut self, effects: Vec<Effect>) -> bool {
        for effect in effects {
            match effect {
                Effect::SetLimits { target, limits } => self.engine.order(Command { target, limits }),
                Effect::RemoveLimits { target } => {
                    self.engine.order(Command { target, limits: Limits::default() });
                }
                Effect::UseBackend { kind, name } => self.engine.use_backend(kind, name),
                Effect::SaveRule(rule) => self.engine.save_rule(rule),
                Effect::MeasurePackets(wanted) => self.engine.measure_packets(wanted),
                Effect::Mouse(wanted) => screen::set_mouse(wanted),
                Effect::Ask(question) => self.askable.looker.ask(question),
                Effect::Name(addresses) => self.askable.namer.ask(addresses),
                Effect::Suspend => {}
                Effect::Quit => return true,
            }
        }
        false
    }

    /// Stops with the terminal as it was, and draws everything anew afterwards.
    fn suspend(&mut self) -> anyhow::Result<()> {
        screen::suspend(self.app.mouse_is_ours()).context("cannot take over the terminal again")?;
        self.terminal.clear().context("cannot draw on the terminal")?;
        self.changed = true;
        Ok(())
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        // Asked for each time: the message about a new size may be late, and the drawing follows the real one.
        let size = self.terminal.size().context("cannot tell the size of the terminal")?;
        self.app.update(Event::Resize(size));
        let drawn = screen::draw(|| self.terminal.draw(|frame| ui::draw(frame, &self.app)).map(|_| ()));
        match drawn {
            Some(drawn) => drawn.context("cannot draw on the terminal")?,
            None => bail!("a part of the program failed; its last words are above"),
        }
        self.changed = false;
        self.due = Instant::now() + FRAME;
        Ok(())
    }
}

#[cfg(test)]
impl Session<ratatui::backend::TestBackend> {
    /// The words on the screen, in one line.
    pub(super) fn text(&self) -> String {
        let text = self.terminal.backend().to_string();
        text.split(['"', ' ', '\n']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Makes the window another size.
    pub(super) fn resize(&mut self, width: u16, height: u16) {
        self.terminal.backend_mut().resize(width, height);
    }
}
