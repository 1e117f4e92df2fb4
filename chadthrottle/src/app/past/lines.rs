//! The history in lines: what is shown, the list, and two graphs.

use ratatui::layout::Size;

use super::{App, Order, PastView, axis};
use crate::{
    app::{
        graph::Graph,
        layout,
        lines::{FactLine, Tone},
        text::{end, left, right, start, width, wrap},
    },
    history::{
        By, Step,
        past::{Past, Span},
        store::Used,
    },
    stats::Traffic,
};

/// What is chosen, and the headings.
const HEAD: usize = 3;
/// The line of everybody together.
const SUM: usize = 1;
/// The words above each graph, and the times below.
const WORDS: usize = 3;
/// `999Mi` and a line.
const GUTTER: usize = 8;
/// `RECEIVED`, a mark and a space.
const FIGURE: usize = 10;
/// `SHARE`, and the space before.
const SHARE: usize = 7;
/// `> `
const MARK: usize = 2;

/// How lines are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rooms {
    /// For names.
    pub(super) rows: usize,
    /// For each of two curves.
    curve: usize,
}

impl Rooms {
    /// Of so many lines. Names get what curves leave, which is two fifths of them.
    pub(super) fn of(lines: usize) -> Self {
        let left = lines.saturating_sub(HEAD + SUM);
        let curve = ((left * 3 / 5).saturating_sub(WORDS) / 2).max(1);
        Self { rows: left.saturating_sub(2 * curve + WORDS), curve }
    }
}

impl App {
    /// Lines between header and messages.
    pub(super) fn room_for_past(&self) -> usize {
        lines_for_past(self, self.size)
    }

    /// All lines in a window of that size.
    pub(in crate::app) fn past_lines(&self, size: Size) -> Vec<FactLine> {
        let (room, height) = (layout::details(size.width), lines_for_past(self, size));
        let view = &self.past;
        let mut lines = vec![view.of_what(room), view.how_far(room)];
        let rooms = Rooms::of(height);
        match &view.answer {
            None => lines.push(FactLine::text("Reading the history…")),
            Some(Err(words)) => lines.extend(told(words, room, Tone::Error)),
            Some(Ok(past)) if past.used.is_empty() => {
                let words = format!("Nothing was recorded in the last {}.", view.span.name());
                lines.extend(told(&words, room, Tone::Plain));
                lines.extend(past.note.iter().flat_map(|note| told(note, room, Tone::Plain)));
            }
            Some(Ok(past)) => {
                let notes: Vec<_> = past.note.iter().flat_map(|note| told(note, room, Tone::Faint)).collect();
                let rooms = Rooms { rows: rooms.rows.saturating_sub(notes.len()), ..rooms };
                lines.extend(self.list(past, room, rooms.rows));
                lines.extend(self.curves(past, room, rooms.curve));
                lines.extend(notes);
            }
        }
        lines.truncate(height);
        lines
    }

    fn list(&self, past: &Past, room: usize, count: usize) -> Vec<FactLine> {
        let (view, rows) = (&self.past, self.past.rows());
        let all = rows.iter().fold(Traffic::default(), |sum, used| sum.plus(used.traffic));
        let place = view.place(&rows);
        let line = |name: &str, traffic: Traffic, is_chosen: bool| {
            let mark = if is_chosen { "> " } else { "  " };
            let name = left(name, room.saturating_sub(MARK + 3 * FIGURE + SHARE));
            let tone = if is_chosen { Tone::Selected } else { Tone::Plain };
            FactLine::text(format!("{mark}{name}{}", self.figures(traffic, all))).toned(tone)
        };
        let everybody = format!("all {} together", past.used.len());
        let mut lines = vec![view.headings(room), line(&everybody, all, place == 0)];
        // The chosen one in the middle, as far as there are others on both sides.
        let first = place.saturating_sub(count / 2 + 1).min(rows.len().saturating_sub(count));
        let shown = rows.iter().enumerate().skip(first).take(count);
        lines.extend(shown.map(|(index, used)| {
            let name = room.saturating_sub(MARK + 3 * FIGURE + SHARE);
            line(&called(view.by, used, name), used.traffic, index + 1 == place)
        }));
        // Graphs stay where they are.
        lines.resize(HEAD - 2 + SUM + count, FactLine::default());
        lines
    }

    fn figures(&self, traffic: Traffic, all: Traffic) -> String {
        let amount = |bytes: u64| right(&self.setup.units.amount(bytes), FIGURE - 1);
        let share = u128::from(traffic.sum()) * 100 / u128::from(all.sum()).max(1);
        let share = right(&format!("{share} %"), SHARE);
        let [sent, received, both] = [traffic.upload, traffic.download, traffic.sum()].map(amount);
        format!("{sent} {received} {both} {share}")
    }

    /// What was sent, and what was received, step by step.
    fn curves(&self, past: &Past, room: usize, height: usize) -> Vec<FactLine> {
        let view = &self.past;
        let whose = if view.chosen.is_some() { &past.of } else { &past.all };
        let mut lines = Vec::new();
        let (sent, received): (Vec<u64>, Vec<u64>) =
            whose.iter().map(|amount| (amount.upload, amount.download)).unzip();
        for (name, values) in [("sent", sent), ("received", received)] {
            lines.extend(self.curve(name, &values, room, height));
        }
        let times = axis::axis(view.span, view.span.since(past.now), &past.zone, room.saturating_sub(GUTTER));
        lines.push(FactLine::text(format!("{}{times}", " ".repeat(GUTTER))).toned(Tone::Faint));
        lines
    }

    fn curve(&self, name: &str, values: &[u64], room: usize, height: usize) -> Vec<FactLine> {
        let (view, units) = (&self.past, self.setup.units);
        let peak = values.iter().copied().max().unwrap_or_default();
        let sum = values.iter().fold(0_u64, |sum, value| sum.saturating_add(*value));
        let whose = view.chosen.as_ref().map_or_else(
            || "all together".to_owned(),
            |chosen| end(named(view.by, chosen), room.saturating_sub(50).max(12)),
        );
        let (sum, most) = (units.amount(sum), units.amount(peak));
        let words = format!("  {whose}: {sum}, at most {most} {}", each(view.span.step()));
        let mut lines = vec![FactLine {
            strong: name.to_owned(),
            text: start(&words, room.saturating_sub(width(name))),
            tone: Tone::Plain,
        }];
        let ascii = self.setup.looks.ascii;
        let columns = room.saturating_sub(GUTTER);
        let dots = if ascii { columns } else { 2 * columns };
        let shown = thinned(values, dots);
        #[expect(clippy::cast_precision_loss, reason = "a column has some hundred dots")]
        let top = peak as f32;
        let graph =
            Graph { values: &shown, points: shown.len(), top, limit: None, mean: None, peak: None, ascii };
        lines.extend(graph.lines(columns, height).into_iter().enumerate().map(|(line, curve)| {
            let level = match line {
                0 => most.clone(),
                line if line + 1 == height => "0".to_owned(),
                _ => String::new(),
            };
            FactLine::text(format!("{}│{curve}", right(&level, GUTTER - 1))).toned(Tone::Curve)
        }));
        lines
    }
}

impl PastView {
    fn of_what(&self, room: usize) -> FactLine {
        let choices = By::ALL.map(|by| choice(by.name(), by == self.by)).concat();
        FactLine {
            strong: "History".into(),
            text: start(&format!("  by {choices}"), room),
            tone: Tone::Plain,
        }
    }

    fn how_far(&self, room: usize) -> FactLine {
        let choices = Span::ALL.map(|span| choice(span.name(), span == self.span)).concat();
        let since = match &self.answer {
            Some(Ok(past)) => axis::beginning(self.span, self.span.since(past.now), &past.zone),
            _ => String::new(),
        };
        FactLine::text(start(&format!("  the last {choices} {since}"), room))
    }

    fn headings(&self, room: usize) -> FactLine {
        let arrow = if (self.order == Order::Name) == self.is_reversed { '▼' } else { '▲' };
        let heading = |words: &str, order: Order, room: usize| {
            let mark = if order == self.order { arrow } else { ' ' };
            right(&format!("{words}{mark}"), room)
        };
        let name = self.by.name().to_uppercase();
        let name = if self.order == Order::Name { format!("{name}{arrow}") } else { name };
        let name = left(&name, room.saturating_sub(MARK + 3 * FIGURE + SHARE));
        FactLine::title(format!(
            "{}{name}{}{}{}{}",
            " ".repeat(MARK),
            heading("SENT", Order::Sent, FIGURE),
            heading("RECEIVED", Order::Received, FIGURE),
            heading("BOTH", Order::Both, FIGURE),
            right("SHARE", SHARE),
        ))
    }
}

fn lines_for_past(app: &App, size: Size) -> usize {
    usize::from(layout::body(size)).saturating_sub(app.said(size).len())
}

fn told(words: &str, room: usize, tone: Tone) -> Vec<FactLine> {
    wrap(words, room).into_iter().map(|line| FactLine::text(line).toned(tone)).collect()
}

fn choice(name: &str, is_chosen: bool) -> String {
    if is_chosen { format!("[{name}]") } else { format!(" {name} ") }
}

/// A name in so many columns. Of a path, the end tells the most.
fn called(by: By, used: &Used, room: usize) -> String {
    end(named(by, &used.name), room)
}

const fn named(by: By, name: &str) -> &str {
    match by {
        _ if !name.is_empty() => name,
        By::Unit => "(no unit)",
        By::User => "(not known)",
        By::Program | By::Interface => "(no name)",
    }
}

const fn each(step: Step) -> &'static str {
    match step {
        Step::Minute => "a minute",
        Step::Hour => "an hour",
        Step::Day => "a day",
        Step::FourWeeks => "four weeks",
    }
}

/// No more values than there are dots: of several in one place the largest is drawn, so that none is lost.
#[expect(clippy::cast_precision_loss, reason = "a column has some hundred dots")]
fn thinned(values: &[u64], dots: usize) -> Vec<f32> {
    if values.len() <= dots || dots == 0 {
        return values.iter().map(|value| *value as f32).collect();
    }
    let place = |dot: usize| dot * values.len() / dots;
    let most = |dot: usize| values[place(dot)..place(dot + 1)].iter().copied().max().unwrap_or_default();
    (0..dots).map(|dot| most(dot) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_values_in_one_place_the_largest_is_seen() {
        let mut values = vec![0; 365];
        values[200] = 9;
        let thin = thinned(&values, 142);
        assert_eq!((thin.len(), thin.iter().filter(|value| **value > 8.0).count()), (142, 1));
        assert_eq!(thinned(&[1, 2], 142), [1.0, 2.0]);
        assert_eq!(thinned(&[1, 2], 0), [1.0, 2.0]);
    }

    #[test]
    fn lines_are_shared_out_in_windows_of_all_sizes() {
        for lines in 0..100 {
            let Rooms { rows, curve } = Rooms::of(lines);
            let all = HEAD + SUM + rows + 2 * curve + WORDS;
            assert!(all == lines || (rows == 0 && curve == 1), "{lines}: {rows} {curve}");
        }
    }
}
