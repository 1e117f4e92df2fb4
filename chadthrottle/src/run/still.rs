//! One picture of the simulated host, without a terminal, threads or a clock: the same picture each time.

use std::{iter::Peekable, str::Chars, time::Duration};

use anyhow::bail;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell, CellWidth},
    layout::Size,
};

use super::engine::{self, Command};
use crate::{
    app::{App, Effect, Event, Setup},
    backends::{
        demo::{Demo, DemoLookout, DemoNames},
        monitor::MonitorBackend,
        throttle::{ThrottleManager, manager::Limits},
    },
    lookout::{self, Question},
    names::Names,
    rate::parse_time,
    stats::Stats,
    ui,
};

/// How often figures are read.
const INTERVAL: Duration = Duration::from_secs(1);
/// Nobody looks at a picture of more than a day.
const LONGEST: Duration = Duration::from_hours(24);

/// Something done on the way to the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Press this key.
    Press(KeyCode),
    /// Let this much time pass.
    Wait(Duration),
}

/// Reads what is to be done: letters are keys, `<Enter>`, `<Esc>`, `<Tab>`, `<Up>`, `<Down>`, `<Left>`, `<Right>`,
/// `<End>` and `<lt>` too, and `<5s>` waits.
///
/// # Errors
/// When something in angle brackets is none of these.
pub fn moves(typed: &str) -> anyhow::Result<Vec<Move>> {
    let mut moves = Vec::new();
    let mut characters = typed.chars().peekable();
    while let Some(character) = characters.next() {
        moves.push(if character == '<' { named(&mut characters)? } else { press(character) });
    }
    Ok(moves)
}

const fn press(character: char) -> Move {
    Move::Press(KeyCode::Char(character))
}

fn named(characters: &mut Peekable<Chars>) -> anyhow::Result<Move> {
    let name: String = characters.by_ref().take_while(|character| *character != '>').collect();
    Ok(Move::Press(match name.to_ascii_lowercase().as_str() {
        "enter" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "tab" => KeyCode::Tab,
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "left" => KeyCode::Left,
        "right" => KeyCode::Right,
        "end" => KeyCode::End,
        "lt" => KeyCode::Char('<'),
        time => match parse_time(time) {
            Ok(time) => return Ok(Move::Wait(time)),
            Err(_) => bail!(
                "<{name}> is no key and no time; there are <Enter>, <Esc>, <Tab>, <Up>, <Down>, <Left>, <Right>, \
                 <End>, <lt>, and times such as <5s>"
            ),
        },
    }))
}

/// The screen over the simulated host, driven by hand.
pub struct Still {
    app: App,
    size: Size,
    monitor: Box<dyn MonitorBackend>,
    manager: ThrottleManager,
    lookout: DemoLookout,
    stats: Stats,
    now: Duration,
}

impl Still {
    /// The screen of a host with this seed, at its first instant.
    ///
    /// # Errors
    /// When a backend refuses, which those of the simulated host do not.
    pub fn new(seed: u64, setup: Setup, size: Size) -> anyhow::Result<Self> {
        let demo = Demo::stepping(seed, INTERVAL, 0);
        let (monitor, manager) = (demo.monitor(), demo.manager()?);
        let app = App::new(setup, size);
        let mut still = Self {
            app,
            size,
            monitor,
            manager,
            lookout: demo.lookout(),
            stats: Stats::default(),
            now: Duration::ZERO,
        };
        for effect in still.app.start() {
            still.carry_out(effect);
        }
        still.tick()?;
        Ok(still)
    }

    /// Lets this much time pass, in whole seconds.
    ///
    /// # Errors
    /// When the monitor fails, which that of the simulated host does not.
    pub fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = self.now + time.min(LONGEST);
        while self.now + INTERVAL <= end {
            self.now += INTERVAL;
            self.tick()?;
        }
        Ok(())
    }

    /// Does all of these one after the other.
    ///
    /// # Errors
    /// When the monitor fails, which that of the simulated host does not.
    pub fn go(&mut self, moves: &[Move]) -> anyhow::Result<()> {
        for step in moves {
            match *step {
                Move::Press(key) => self.send(Event::Key(KeyEvent::new(key, KeyModifiers::NONE))),
                Move::Wait(time) => self.wait(time)?,
            }
        }
        Ok(())
    }

    /// Tells the application something, and does what it wants done about it.
    pub fn send(&mut self, event: Event) {
        for effect in self.app.update(event) {
            self.carry_out(effect);
        }
    }

    /// The application.
    #[must_use]
    pub const fn app(&self) -> &App {
        &self.app
    }

    /// What is on the screen, without the spaces at the ends of lines.
    #[must_use]
    pub fn text(&self) -> String {
        text(&drawn(&self.app, self.size))
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        let sample = self.monitor.update()?;
        let snapshot = self.stats.advance(self.now, &sample);
        let limits = engine::limits(&self.manager);
        self.send(limits);
        self.send(Event::Snapshot(snapshot));
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) {
        let events = match effect {
            Effect::SetLimits { target, limits } => {
                engine::carry_out(&mut self.manager, Command { target, limits })
            }
            Effect::RemoveLimits { target } => {
                engine::carry_out(&mut self.manager, Command { target, limits: Limits::default() })
            }
            Effect::Ask(question) => vec![self.answer(question)],
            Effect::Name(addresses) => {
                addresses.into_iter().map(|host| Event::Named(host, DemoNames.name(host))).collect()
            }
            Effect::MeasurePackets(_) => vec![Event::PacketCost(Ok(None))],
            Effect::Quit | Effect::Suspend | Effect::Mouse(_) | Effect::SaveRule(_) => Vec::new(),
            Effect::UseBackend { .. } => {
                vec![Event::NotSwitched("A simulated host has no other backends.".into())]
            }
        };
        for event in events {
            self.send(event);
        }
    }

    fn answer(&mut self, question: Question) -> Event {
        Event::Answer(lookout::answer(&mut self.lookout, question, self.now))
    }
}

/// The application on a window of that size.
#[must_use]
pub fn drawn(app: &App, size: Size) -> Buffer {
    let mut terminal =
        Terminal::new(TestBackend::new(size.width, size.height)).unwrap_or_else(|never| match never {});
    terminal.draw(|frame| ui::draw(frame, app)).unwrap_or_else(|never| match never {});
    terminal.backend().buffer().clone()
}

/// The characters of a window, without the spaces at the ends of lines.
#[must_use]
pub fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let mut text = String::new();
    for line in buffer.content.chunks(width) {
        // What is behind a wide character is not on the screen.
        let mut hidden = 0;
        let line = line.iter().filter(|cell| {
            let shown = hidden == 0;
            hidden = if shown { cell.cell_width().saturating_sub(1) } else { hidden - 1 };
            shown
        });
        let line: String = line.map(Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_names_and_times_are_waited_for() {
        let expected = [
            press('d'),
            press('2'),
            Move::Press(KeyCode::Enter),
            Move::Wait(Duration::from_secs(5)),
            press('<'),
        ];
        assert_eq!(moves("d2<Enter><5s><lt>").expect("they are known"), expected);
        let error = moves("<F13>").expect_err("it is not").to_string();
        assert!(error.contains("<F13> is no key"), "{error}");
    }
}
