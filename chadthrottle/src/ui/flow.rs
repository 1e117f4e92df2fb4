//! Pieces of text one after the other, each shown whole or not at all.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use crate::app::{layout, text::width};

/// Between two pieces.
const GAP: usize = 2;

/// A few lines that fill up.
pub(super) struct Flow {
    area: Rect,
    lines: Vec<Line<'static>>,
}

impl Flow {
    /// Nothing yet.
    pub(super) fn new(area: Rect) -> Self {
        Self {
            area,
            lines: (0..area.height).map(|_| Line::raw(" ".repeat(usize::from(layout::MARGIN)))).collect(),
        }
    }

    /// Adds a piece to the line `wanted`, or to the first that has room. Whether any had.
    pub(super) fn add(&mut self, wanted: usize, spans: impl IntoIterator<Item = Span<'static>>) -> bool {
        let spans: Vec<Span> = spans.into_iter().collect();
        let length: usize = spans.iter().map(|span| width(&span.content)).sum();
        let room = usize::from(self.area.width);
        let last = self.lines.len().saturating_sub(1);
        let mut places = std::iter::once(wanted.min(last)).chain(0..self.lines.len());
        let place =
            places.find(|&place| self.lines.get(place).is_some_and(|line| used(line) + length <= room));
        let Some(line) = place.and_then(|place| self.lines.get_mut(place)) else { return false };
        line.spans.extend(spans);
        line.push_span(Span::raw(" ".repeat(GAP)));
        true
    }

    /// Draws what had room.
    pub(super) fn draw(self, frame: &mut Frame) {
        for (row, line) in self.area.rows().zip(self.lines) {
            frame.render_widget(line, row);
        }
    }
}

fn used(line: &Line) -> usize {
    line.spans.iter().map(|span| width(&span.content)).sum()
}
