//! The details and the help.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use super::theme::Theme;
use crate::app::{layout, lines::FactLine};

/// Draws columns of lines beside each other, from the line `scroll` on.
pub(super) fn draw(frame: &mut Frame, columns: &[Vec<FactLine>], scroll: usize, theme: Theme, area: Rect) {
    let areas = Layout::horizontal(columns.iter().map(|_| Constraint::Fill(1))).split(area);
    for (lines, area) in columns.iter().zip(areas.iter()) {
        let left = lines.len().saturating_sub(scroll);
        let more = left > usize::from(area.height);
        let rows = area.rows().map(|row| Rect { x: row.x + layout::MARGIN, ..row }.intersection(row));
        let last = usize::from(area.height).saturating_sub(1);
        for (index, (row, line)) in rows.zip(lines.iter().skip(scroll)).enumerate() {
            let line = if more && index == last {
                Line::styled("… more: Down, PgDn", theme.faint)
            } else {
                Line::from_iter([
                    Span::styled(line.strong.clone(), theme.strong),
                    Span::raw(line.text.clone()),
                ])
            };
            frame.render_widget(line, row);
        }
    }
}
