//! The lines at the bottom: what there is to say, what is typed as a filter, and the keys of the place.

use ratatui::{
    Frame,
    layout::{Position, Rect},
    style::Style,
    text::{Line, Span},
};

use super::{input, theme::Theme};
use crate::app::{App, footer, layout};

/// Before the text.
const MARGIN: usize = layout::MARGIN as usize;
/// Before the filter.
const PROMPT: &str = " Filter: ";

/// Draws what there is to say.
pub(super) fn draw_messages(frame: &mut Frame, app: &App, area: Rect) {
    let theme = Theme::of(app.looks());
    for (message, row) in app.said(frame.area().as_size()).into_iter().zip(area.rows()) {
        let style = if message.error { theme.error } else { Style::new() };
        let line = app.looks().plain(&message.text);
        frame.render_widget(Line::styled(format!("{}{line}", " ".repeat(MARGIN)), style), row);
    }
}

/// Draws the filter's input and puts the cursor in it.
pub(super) fn draw_filter(frame: &mut Frame, app: &App, area: Rect) {
    let Some(input) = app.filter_input() else { return };
    let room = usize::from(area.width).saturating_sub(PROMPT.len() + MARGIN);
    let typed = input::visible(input, room);
    let column = u16::try_from(PROMPT.len() + typed.cursor).unwrap_or(u16::MAX);
    let x = area.x.saturating_add(column).min(area.right().saturating_sub(1));
    frame.set_cursor_position(Position::new(x, area.y));
    let theme = Theme::of(app.looks());
    frame.render_widget(
        Line::from_iter([Span::styled(PROMPT, theme.strong), Span::styled(typed.text, theme.input)]),
        area,
    );
}

/// Draws as many keys of the place as have room.
pub(super) fn draw_keys(frame: &mut Frame, app: &App, area: Rect) {
    let theme = Theme::of(app.looks());
    for piece in footer::pieces(app, area.width, area.height) {
        let place = Rect { x: area.x + piece.x, y: area.y + piece.line, height: 1, ..area };
        let line =
            Line::from_iter([Span::styled(piece.key, theme.strong), Span::raw(format!(" {}", piece.words))]);
        frame.render_widget(line, place.intersection(area));
    }
}
