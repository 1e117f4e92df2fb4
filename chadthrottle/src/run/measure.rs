//! How long pictures and keys take with very many processes and connections, without a terminal.

use std::time::Duration;

use crossterm::event::{KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend, layout::Size};
use serde::Serialize;

use super::still::{Move, moves};
use crate::{
    app::{App, Effect, Event, Setup},
    backends::{
        demo::{Demo, DemoLookout},
        monitor::MonitorBackend,
    },
    lookout,
    stats::Stats,
    sys::cpu_time,
    ui,
};

/// How often each is measured.
const ROUNDS: u32 = 40;
/// What is looked at, and the keys that lead there.
const VIEWS: [(&str, &str); 4] = [
    ("processes", ""),
    ("tree", "vvvv"),
    ("filter", "/name~^worker and rate>=0<Enter>"),
    ("connections", "/pid=100000<Enter><Enter><Tab>"),
];
/// What is pressed in each of them.
const KEYS: &str = "<Down><Down><Up>sSl";

/// Milliseconds of a CPU: what others take of it meanwhile is not in them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    /// The one in the middle.
    pub median: f64,
    /// The longest.
    pub longest: f64,
}

/// What was measured in one view.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Which.
    pub view: &'static str,
    /// Taking in the figures of a second.
    pub figures_ms: Times,
    /// Drawing a picture.
    pub frame_ms: Times,
    /// A key, and the picture after it.
    pub key_ms: Times,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let milliseconds = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        Self { median: milliseconds(times.get(times.len() / 2)), longest: milliseconds(times.last()) }
    }
}

struct Bench {
    app: App,
    terminal: Terminal<TestBackend>,
    monitor: Box<dyn MonitorBackend>,
    lookout: DemoLookout,
    stats: Stats,
    now: Duration,
}

/// Measures every view of a host with that many processes more.
///
/// # Errors
/// When the monitor fails, which that of the simulated host does not.
pub fn measure(setup: Setup, size: Size, crowd: usize) -> anyhow::Result<Vec<Measured>> {
    VIEWS.iter().map(|&(view, keys)| Bench::new(setup, size, crowd).measured(view, keys)).collect()
}

impl Bench {
    fn new(setup: Setup, size: Size, crowd: usize) -> Self {
        let demo = Demo::stepping(1, Duration::from_secs(1), crowd);
        let terminal =
            Terminal::new(TestBackend::new(size.width, size.height)).unwrap_or_else(|never| match never {});
        let (monitor, lookout) = (demo.monitor(), demo.lookout());
        let app = App::new(setup, size);
        Self { app, terminal, monitor, lookout, stats: Stats::default(), now: Duration::ZERO }
    }

    fn measured(mut self, view: &'static str, keys: &str) -> anyhow::Result<Measured> {
        for _ in 0..3 {
            self.tick()?;
        }
        for step in moves(keys)? {
            self.press(step);
        }
        let (mut figures, mut frames, mut pressed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            figures.push(self.tick()?);
            frames.push(self.draw());
        }
        for step in moves(KEYS)?.into_iter().cycle().take(ROUNDS as usize) {
            let start = cpu_time::of_this_thread();
            self.press(step);
            self.draw();
            pressed.push(cpu_time::of_this_thread().saturating_sub(start));
        }
        let [figures_ms, frame_ms, key_ms] = [figures, frames, pressed].map(Times::of);
        Ok(Measured { view, figures_ms, frame_ms, key_ms })
    }

    /// A second passes. What the source takes for it is its own.
    fn tick(&mut self) -> anyhow::Result<Duration> {
        self.now += Duration::from_secs(1);
        let sample = self.monitor.update()?;
        let start = cpu_time::of_this_thread();
        let snapshot = self.stats.advance(self.now, &sample);
        self.app.update(Event::Limits(Vec::new()));
        let effects = self.app.update(Event::Snapshot(snapshot));
        let took = cpu_time::of_this_thread().saturating_sub(start);
        for effect in effects {
            self.carry_out(effect);
        }
        Ok(took)
    }

    fn press(&mut self, step: Move) {
        if let Move::Press(key) = step {
            let key = Event::Key(KeyEvent::new(key, KeyModifiers::NONE));
            for effect in self.app.update(key) {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        if let Effect::Ask(question) = effect {
            let answer = lookout::answer(&mut self.lookout, question, self.now);
            self.app.update(Event::Answer(answer));
        }
    }

    fn draw(&mut self) -> Duration {
        let start = cpu_time::of_this_thread();
        self.terminal.draw(|frame| ui::draw(frame, &self.app)).unwrap_or_else(|never| match never {});
        cpu_time::of_this_thread().saturating_sub(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::BackendNames;

    #[test]
    fn every_view_is_measured() {
        let names = BackendNames { monitor: "demo", upload: "demo", download: Some("demo") };
        let measured =
            measure(Setup::new(names), Size { width: 80, height: 24 }, 30).expect("it does not fail");
        assert_eq!(measured.len(), VIEWS.len());
        assert!(measured.iter().all(|view| view.frame_ms.median > 0.0 && view.key_ms.longest > 0.0));
        let line = serde_json::to_string(&measured[0]).expect("plain figures");
        assert!(line.contains("\"frame_ms\":{\"median\":"), "{line}");
    }
}
