//! The dialog that asks for limits.

use ratatui::{
    Frame,
    layout::{Position, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Block, Clear},
};

use super::{input, theme::Theme};
use crate::app::{
    dialog::{Field, LimitDialog},
    facts::limit_text,
    text::{clip, left, start, wrap},
};

/// As wide as sentences are pleasant to read.
const WIDEST: u16 = 64;
/// `download`, and the spaces around it.
const NAME: usize = 11;
/// Room to type in.
const INPUT: usize = 20;

/// Draws it in the middle of `area`, and puts the cursor in it.
pub(super) fn draw(frame: &mut Frame, dialog: &LimitDialog, theme: Theme, area: Rect) {
    let width = area.width.min(WIDEST);
    let inside = usize::from(width.saturating_sub(4));
    let (sentence, style) = match dialog.error() {
        Some(error) => (error.to_owned(), theme.error),
        None => (dialog.meaning(), Style::new()),
    };
    let sentence = wrap(&sentence, inside);
    let fields = u16::try_from(dialog.fields().len()).unwrap_or(u16::MAX);
    let borders = 2;
    let lines = u16::try_from(sentence.len()).unwrap_or(u16::MAX);
    // An empty line before the sentence, where there is room for it.
    let wanted = fields.saturating_add(lines).saturating_add(borders + 1);
    let gap = u16::from(wanted <= area.height);
    let height = wanted.min(area.height);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let target = dialog.target();
    let title = format!(" Limit {} ({}) ", start(&target.name, inside.saturating_sub(18)), target.subject);
    let block = Block::bordered().title(Span::styled(title, theme.strong));
    let inner = block.inner(place);
    frame.render_widget(Clear, place);
    frame.render_widget(block, place);
    let inner = Rect { x: inner.x.saturating_add(1), width: inner.width.saturating_sub(2), ..inner };
    let mut rows = inner.rows();
    for (index, field) in dialog.fields().iter().enumerate() {
        if let Some(row) = rows.next() {
            draw_field(frame, field, index == dialog.focus(), theme, row);
        }
    }
    if gap == 1 {
        rows.next();
    }
    let room = usize::from(inner.height.saturating_sub(fields + gap));
    for (line, row) in clip(sentence, room, inside).into_iter().zip(rows) {
        frame.render_widget(Line::styled(line, style), row);
    }
}

fn draw_field(frame: &mut Frame, field: &Field, focused: bool, theme: Theme, row: Rect) {
    let room = usize::from(row.width);
    let mark = if focused { "> " } else { "  " };
    let name = left(&format!("{mark}{}", field.direction.name()), NAME.min(room));
    let typed = input::visible(&field.input, INPUT.min(room.saturating_sub(NAME)));
    if focused {
        let column = u16::try_from(NAME + typed.cursor).unwrap_or(u16::MAX);
        let x = row.x.saturating_add(column).min(row.right().saturating_sub(1));
        frame.set_cursor_position(Position::new(x, row.y));
    }
    let now = match field.now {
        Some(limit) => format!("  now {}", limit_text(limit)),
        None => "  no limit now".into(),
    };
    // "no limit now" is worth less than room to type.
    let now = if NAME + INPUT + now.len() <= room { now } else { String::new() };
    frame.render_widget(
        Line::from_iter([Span::raw(name), Span::styled(typed.text, theme.input), Span::raw(now)]),
        row,
    );
}
