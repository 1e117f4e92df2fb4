//! The dialog that asks for limits.

use ratatui::{
    Frame,
    layout::{Position, Rect},
    style::Style,
    symbols::border,
    text::{Line, Span},
    widgets::{Block, Clear},
};

use super::{input, theme::Theme};
use crate::{
    app::{
        App, Confirm,
        dialog::{Field, LimitDialog},
        text::{clip, left, start, wrap},
    },
    rate::Rate,
};

/// Above and below.
const BORDERS: u16 = 2;

/// For fonts without lines.
const ASCII_BORDER: border::Set = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// As wide as sentences are pleasant to read.
const WIDEST: u16 = 64;
/// `download`, and the spaces around it.
const NAME: usize = 11;
/// Room to type in.
const INPUT: usize = 20;

/// Draws it in the middle of `area`, and puts the cursor in it.
pub(super) fn draw(frame: &mut Frame, app: &App, dialog: &LimitDialog, theme: Theme, area: Rect) {
    let width = area.width.min(WIDEST);
    let inside = usize::from(width.saturating_sub(4));
    let name = dialog.choice().map(|choice| choice.name.as_str()).unwrap_or_default();
    let process = dialog.choice().and_then(|choice| choice.subject.as_ref()?.process());
    let id = process.map(|id| format!(" ({id})")).unwrap_or_default();
    let title = format!("Limit {}{id}", start(name, inside.saturating_sub(18)));
    let (sentence, style) = match dialog.error() {
        Some(error) => (error.to_owned(), theme.error),
        None => (dialog.meaning(), Style::new()),
    };
    let warning = dialog.choice().and_then(|choice| choice.warning.clone());
    let mut below: Vec<(String, Style)> = Vec::new();
    let mut add = |text: &str, style| below.extend(wrap(text, inside).into_iter().map(|line| (line, style)));
    add(&sentence, style);
    add(&format!("Touches {}.", dialog.preview()), Style::new());
    if let Some(warning) = warning {
        add(&warning, theme.error);
    }
    let lines = u16::try_from(below.len()).unwrap_or(u16::MAX);
    let fixed = u16::try_from(dialog.fields().len() + 3).unwrap_or(u16::MAX);
    // An empty line before the sentence, where there is room for it.
    let wanted = fixed.saturating_add(lines).saturating_add(BORDERS);
    let gap = u16::from(wanted < area.height);
    let height = (wanted + gap).min(area.height);
    let inner = open(frame, app, &title, theme, middle(area, width, height));
    let mut rows = inner.rows();
    for (index, field) in dialog.fields().iter().enumerate() {
        if let Some(row) = rows.next() {
            draw_field(frame, app, field, index == dialog.focus(), theme, row);
        }
    }
    let room = usize::from(inner.height.saturating_sub(fixed + gap));
    let gap = (gap == 1).then(Line::default);
    let lines = fixed_lines(app, dialog, theme, inside).into_iter().chain(gap);
    let (texts, styles): (Vec<String>, Vec<Style>) = below.into_iter().unzip();
    let below = clip(texts, room, inside).into_iter().zip(styles);
    let below = below.map(|(line, style)| Line::styled(app.looks().plain(&line), style));
    for (line, row) in lines.chain(below).zip(rows) {
        frame.render_widget(line, row);
    }
}

/// Whom, which traffic, and rates that one key fills in.
fn fixed_lines(app: &App, dialog: &LimitDialog, theme: Theme, inside: usize) -> Vec<Line<'static>> {
    let choosing = |place: usize, name: &str, words: &str, many: bool| {
        let is_focused = dialog.focus() == dialog.fields().len() + place;
        let mark = if is_focused { "> " } else { "  " };
        let words = if many { format!("< {words} >") } else { words.to_owned() };
        let words = start(&words, inside.saturating_sub(NAME));
        let style = if is_focused { theme.input } else { Style::new() };
        let name = left(&format!("{mark}{name}"), NAME.min(inside));
        Line::from_iter([Span::raw(name), Span::styled(app.looks().plain(&words), style)])
    };
    let words = dialog.choice().map(|choice| choice.words.clone()).unwrap_or_default();
    let offered: Vec<String> = dialog.offered().iter().map(|rate| Rate(*rate).to_string()).collect();
    let offered = format!("{}{}", left("  Ctrl-N", NAME.min(inside)), offered.join(" "));
    vec![
        choosing(0, "whom", &words, dialog.choices().len() > 1),
        choosing(1, "traffic", dialog.traffic().name(), true),
        Line::styled(app.looks().plain(&start(&offered, inside)), theme.faint),
    ]
}

/// Draws a question in the middle of `area`.
pub(super) fn draw_question(frame: &mut Frame, app: &App, confirm: &Confirm, theme: Theme, area: Rect) {
    let width = area.width.min(WIDEST);
    let inside = usize::from(width.saturating_sub(4));
    let lines = wrap(&confirm.question, inside);
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(BORDERS).min(area.height);
    let inner = open(frame, app, confirm.title, theme, middle(area, width, height));
    for (line, row) in clip(lines, usize::from(inner.height), inside).into_iter().zip(inner.rows()) {
        frame.render_widget(Line::raw(app.looks().plain(&line)), row);
    }
}

fn middle(area: Rect, width: u16, height: u16) -> Rect {
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}

/// Draws an empty box, and returns what is inside.
fn open(frame: &mut Frame, app: &App, title: &str, theme: Theme, place: Rect) -> Rect {
    let title = app.looks().plain(&format!(" {title} "));
    let mut block = Block::bordered().title(Span::styled(title, theme.strong));
    if app.looks().ascii {
        block = block.border_set(ASCII_BORDER);
    }
    let inner = block.inner(place);
    frame.render_widget(Clear, place);
    frame.render_widget(block, place);
    Rect { x: inner.x.saturating_add(1), width: inner.width.saturating_sub(2), ..inner }
}

fn draw_field(frame: &mut Frame, app: &App, field: &Field, focused: bool, theme: Theme, row: Rect) {
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
        Some(limit) => format!("  now {}", app.units().limit(limit)),
        None => "  no limit now".into(),
    };
    // "no limit now" is worth less than room to type.
    let now = if NAME + INPUT + now.len() <= room { now } else { String::new() };
    // What the first key replaces looks chosen.
    let style = if focused && field.input.is_filled_in() { theme.selected } else { theme.input };
    let text = typed.text.trim_end().to_owned();
    let rest = typed.text[text.len()..].to_owned();
    let spans = [Span::raw(name), Span::styled(text, style), Span::styled(rest, theme.input), Span::raw(now)];
    frame.render_widget(Line::from_iter(spans), row);
}
