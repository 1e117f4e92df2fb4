//! Whatever fills the space between header and footer with lines: details, interfaces, the help.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
};

use super::theme::Theme;
use crate::app::{
    layout,
    lines::{FactLine, Tone},
    looks::Looks,
    page::Page,
};

/// Draws columns of lines beside each other.
pub(super) fn draw(frame: &mut Frame, page: &Page, looks: Looks, area: Rect) {
    let theme = Theme::of(looks);
    let areas = Layout::horizontal(page.columns.iter().map(|_| Constraint::Fill(1))).split(area);
    let more = page.length > page.scroll + usize::from(area.height);
    for (lines, area) in page.columns.iter().zip(areas.iter()) {
        let rows = area.rows().map(|row| Rect { x: row.x + layout::MARGIN, ..row }.intersection(row));
        let last = usize::from(area.height).saturating_sub(1);
        let is_cut = more && lines.len() > usize::from(area.height);
        for (index, (row, line)) in rows.zip(lines).enumerate() {
            let line = if is_cut && index == last {
                Line::styled(looks.plain("… more: Down, PgDn"), theme.faint)
            } else {
                styled(line, looks, theme)
            };
            frame.render_widget(line, row);
        }
    }
}

fn styled(line: &FactLine, looks: Looks, theme: Theme) -> Line<'static> {
    let style = match line.tone {
        Tone::Plain => Style::new(),
        Tone::Faint => theme.faint,
        Tone::Selected => theme.selected,
        Tone::Error => theme.error,
        Tone::Limit => theme.limit,
        Tone::Curve => theme.curve,
    };
    let strong = Span::styled(looks.plain(&line.strong), theme.strong);
    Line::from_iter([strong, Span::raw(looks.plain(&line.text))]).style(style)
}
