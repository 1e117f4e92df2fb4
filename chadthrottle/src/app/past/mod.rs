//! The view of the history: whose it was in a span of time, and when.

mod axis;
mod lines;

use std::{cmp::Ordering, time::Duration};

use super::{
    App, Effect, View,
    keys::{Action, Motion},
    table::stepped,
};
use crate::{
    history::{
        By,
        past::{Asked, Past, Span},
        store::Used,
    },
    lookout::Question,
};

/// As often as it is written.
const REFRESH: Duration = Duration::from_secs(5);

/// In which order names stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Both,
    Sent,
    Received,
    Name,
}

impl Order {
    const fn next(self) -> Self {
        match self {
            Self::Both => Self::Sent,
            Self::Sent => Self::Received,
            Self::Received => Self::Name,
            Self::Name => Self::Both,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Both => "both together",
            Self::Sent => "what was sent",
            Self::Received => "what was received",
            Self::Name => "name",
        }
    }

    fn compare(self, a: &Used, b: &Used) -> Ordering {
        let amounts = match self {
            Self::Both => Ordering::Equal,
            Self::Sent => b.traffic.upload.cmp(&a.traffic.upload),
            Self::Received => b.traffic.download.cmp(&a.traffic.download),
            Self::Name => a.name.to_lowercase().cmp(&b.name.to_lowercase()),
        };
        amounts.then_with(|| b.traffic.sum().cmp(&a.traffic.sum())).then_with(|| a.name.cmp(&b.name))
    }
}

/// What is shown, and what is known of it. It stays as it is while another view is open.
#[derive(Clone, Debug)]
pub(super) struct PastView {
    by: By,
    span: Span,
    order: Order,
    is_reversed: bool,
    /// Whose amounts are drawn; nobody's are everybody's.
    chosen: Option<String>,
    answer: Option<Result<Past, String>>,
    /// Whether a question is on its way.
    is_asking: bool,
    asked_at: Duration,
}

impl Default for PastView {
    fn default() -> Self {
        Self {
            by: By::Program,
            span: Span::default(),
            order: Order::Both,
            is_reversed: false,
            chosen: None,
            answer: None,
            is_asking: false,
            asked_at: Duration::ZERO,
        }
    }
}

impl PastView {
    fn asked(&self) -> Asked {
        Asked { by: self.by, span: self.span, of: self.chosen.clone() }
    }

    /// What is to be asked now. One question at a time: where one is on its way its answer leads to the next.
    fn question(&mut self, now: Duration) -> Option<Question> {
        if self.is_asking {
            return None;
        }
        (self.is_asking, self.asked_at) = (true, now);
        Some(Question::Past(self.asked()))
    }

    fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.asked_at) >= REFRESH
    }

    /// Takes an answer in. Whether something else has been asked for meanwhile.
    fn take_in(&mut self, asked: &Asked, past: Result<Past, String>) -> bool {
        self.is_asking = false;
        if (asked.by, asked.span) == (self.by, self.span) {
            if let (Ok(past), Some(chosen)) = (&past, &self.chosen)
                && past.used.iter().all(|used| used.name != *chosen)
            {
                self.chosen = None;
            }
            self.answer = Some(past);
        }
        *asked != self.asked()
    }

    /// All names in their order.
    fn rows(&self) -> Vec<&Used> {
        let Some(Ok(past)) = &self.answer else { return Vec::new() };
        let mut rows: Vec<&Used> = past.used.iter().collect();
        rows.sort_by(|a, b| self.order.compare(a, b));
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }

    /// Where the chosen one stands; the first line is everybody's.
    fn place(&self, rows: &[&Used]) -> usize {
        let chosen = self.chosen.as_deref();
        let place = chosen.and_then(|chosen| rows.iter().position(|used| used.name == chosen));
        place.map_or(0, |place| place + 1)
    }

    fn step(&mut self, motion: Motion, room: usize) {
        let rows = self.rows();
        let place = stepped(self.place(&rows), motion, room, rows.len() + 1);
        self.chosen = place.checked_sub(1).and_then(|place| rows.get(place)).map(|used| used.name.clone());
    }

    fn turn(&mut self, by: By) {
        (self.by, self.chosen, self.answer) = (by, None, None);
    }

    fn zoom(&mut self, longer: bool) {
        let span = self.span.zoomed(longer);
        if span != self.span {
            (self.span, self.answer) = (span, None);
        }
    }

    fn sort(&mut self, order: Order, is_reversed: bool) -> String {
        (self.order, self.is_reversed) = (order, is_reversed);
        let first = match (order == Order::Name, is_reversed) {
            (true, false) => "from A to Z",
            (true, true) => "from Z to A",
            (false, false) => "largest first",
            (false, true) => "smallest first",
        };
        format!("Sorted by {}, {first}.", order.name())
    }
}

impl App {
    /// Opens the history.
    pub(super) fn show_past(&mut self) -> Vec<Effect> {
        self.view = View::History;
        self.ask_for_past()
    }

    /// What keys do here that do something else elsewhere.
    pub(super) fn act_on_past(&mut self, action: Action) -> Option<Vec<Effect>> {
        if self.overlay.is_some() || !matches!(self.view, View::History) {
            return None;
        }
        match action {
            Action::Move(motion) => {
                let room = lines::Rooms::of(self.room_for_past()).rows;
                self.past.step(motion, room);
            }
            Action::NextGrouping => self.past.turn(self.past.by.next()),
            Action::Zoom { longer } => self.past.zoom(longer),
            Action::NextSort => {
                let words = self.past.sort(self.past.order.next(), false);
                self.say(words);
                return Some(Vec::new());
            }
            Action::ReverseSort => {
                let words = self.past.sort(self.past.order, !self.past.is_reversed);
                self.say(words);
                return Some(Vec::new());
            }
            _ => return None,
        }
        Some(self.ask_for_past())
    }

    fn ask_for_past(&mut self) -> Vec<Effect> {
        self.past.question(self.elapsed).map(Effect::Ask).into_iter().collect()
    }

    /// What has been recorded since, from time to time, while somebody looks.
    pub(super) fn renew_past(&mut self) -> Option<Question> {
        let is_shown = matches!(self.view, View::History) && !self.paused;
        if is_shown && self.past.is_due(self.elapsed) { self.past.question(self.elapsed) } else { None }
    }

    pub(super) fn take_in_past(&mut self, asked: &Asked, past: Result<Past, String>) -> Vec<Effect> {
        let is_stale = self.past.take_in(asked, past);
        if is_stale && matches!(self.view, View::History) { self.ask_for_past() } else { Vec::new() }
    }
}
