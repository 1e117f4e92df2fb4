//! What the mouse does: it selects, scrolls, sorts by headings and presses the keys in the footer.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Size;

use super::{
    App, Effect, View,
    columns::columns,
    footer,
    keys::{Action, Motion},
    layout,
    sort::Sort,
};

/// Lines that one turn of the wheel scrolls.
const WHEEL: usize = 3;

impl App {
    pub(super) fn mouse(&mut self, mouse: MouseEvent) -> Vec<Effect> {
        if !self.setup.mouse || layout::too_small(self.size) {
            return Vec::new();
        }
        match mouse.kind {
            MouseEventKind::ScrollUp => self.wheel(Motion::Up),
            MouseEventKind::ScrollDown => self.wheel(Motion::Down),
            MouseEventKind::Down(MouseButton::Left) => self.click(mouse.column, mouse.row),
            _ => Vec::new(),
        }
    }

    fn wheel(&mut self, motion: Motion) -> Vec<Effect> {
        // Dialogs have nothing to scroll, and a wheel must not move what is below them.
        let has_motion = self.place().bindings().iter().any(|binding| binding.action == Action::Move(motion));
        if !has_motion {
            return Vec::new();
        }
        (0..WHEEL).flat_map(|_| self.act(Action::Move(motion))).collect()
    }

    fn click(&mut self, x: u16, y: u16) -> Vec<Effect> {
        let Size { width, height } = self.size;
        let keys = layout::footer(self.size);
        if let Some(line) = y.checked_sub(height.saturating_sub(keys)) {
            let pieces = footer::pieces(self, width, keys);
            let piece = pieces.iter().find(|piece| piece.is_at(x, line));
            return piece.map(|piece| piece.action).map(|action| self.act(action)).unwrap_or_default();
        }
        let Some(line) = y.checked_sub(layout::header(self.size)) else { return Vec::new() };
        if self.overlay.is_some() || !matches!(self.view, View::Table) {
            return Vec::new();
        }
        match line.checked_sub(layout::HEADINGS) {
            None => self.sort_by(x),
            Some(line) => {
                let before = self.table.selected().cloned();
                let lines = usize::from(self.lines_of_table());
                if self.table.point(usize::from(line), lines) && self.table.selected() == before.as_ref() {
                    // The second click on it opens it.
                    return self.act(Action::Open);
                }
            }
        }
        Vec::new()
    }

    /// Sorts by the column there; by the same one again, the other way.
    fn sort_by(&mut self, x: u16) {
        let at = |column: &super::columns::Placed| {
            (column.x.saturating_sub(1)..column.x + column.width).contains(&usize::from(x))
        };
        let columns = columns(usize::from(self.size.width), self.setup.units, self.setup.hidden);
        let Some(column) = columns.iter().find(|column| at(column)).and_then(|column| column.spec.sort)
        else {
            return;
        };
        let sort = self.table.sort();
        let reversed = sort.column == column && !sort.reversed;
        self.sort(Sort { column, reversed });
    }
}
