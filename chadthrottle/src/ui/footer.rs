//! The lines at the bottom: what there is to say, what is typed as a filter, and the keys of the place.

use ratatui::{
    Frame,
    layout::{Position, Rect},
    style::Style,
    text::{Line, Span},
};

use super::{flow::Flow, input, theme::Theme};
use crate::app::{
    App,
    keys::{self, Action},
    layout,
    text::{clip, wrap},
};

/// Before the text.
const MARGIN: usize = layout::MARGIN as usize;
/// Before the filter.
const PROMPT: &str = " Filter: ";

/// The lines of what there is to say, at most `room` of them, `columns` wide.
pub(super) fn messages(app: &App, columns: u16, room: u16) -> Vec<Line<'static>> {
    let theme = Theme::of(app.looks());
    let inside = usize::from(columns).saturating_sub(2 * MARGIN);
    let mut lines = Vec::new();
    for message in app.messages() {
        let style = if message.error { theme.error } else { Style::new() };
        let room = usize::from(room).saturating_sub(lines.len());
        let wrapped = clip(wrap(&message.text, inside), room, inside);
        lines.extend(
            wrapped.into_iter().map(|line| Line::styled(format!("{}{line}", " ".repeat(MARGIN)), style)),
        );
    }
    lines
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
    let mut flow = Flow::new(area);
    let one_field = app.dialog().is_some_and(|dialog| dialog.fields().len() == 1);
    for binding in keys::footer(app.place()) {
        let (Some(key), Some(words)) = (binding.keys.first(), binding.footer) else { continue };
        if binding.action == Action::OtherField && one_field {
            continue;
        }
        // Not the next one that happens to be shorter: out of order, "both" means nothing.
        if !flow.add(0, [Span::styled(key.name(), theme.strong), Span::raw(format!(" {words}"))]) {
            break;
        }
    }
    flow.draw(frame);
}
