//! Draws the application. Only reads it.

mod dialog;
mod facts;
mod flow;
mod footer;
mod header;
mod input;
mod table;
mod theme;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
};

use self::theme::Theme;
use crate::app::{
    App,
    keys::{Action, Place},
    layout,
    text::{width, wrap},
};

/// Draws everything, whatever the size of the window.
pub fn draw(frame: &mut Frame, app: &App) {
    let area = frame.area();
    if layout::too_small(area.as_size()) {
        return draw_too_small(frame, app.place(), area);
    }
    let theme = Theme::of(app.looks());
    let size = area.as_size();
    let filter = u16::from(app.filter_input().is_some());
    let said = u16::try_from(app.said(size).len()).unwrap_or(u16::MAX);
    let [header, body, said, filter, keys] = Layout::vertical([
        Constraint::Length(layout::header(size)),
        Constraint::Fill(1),
        Constraint::Length(said),
        Constraint::Length(filter),
        Constraint::Length(layout::footer(size)),
    ])
    .areas(area);
    header::draw(frame, app, header);
    match app.page(size) {
        Some(page) => facts::draw(frame, &page, app.looks(), body),
        None => table::draw(frame, app, body),
    }
    footer::draw_messages(frame, app, said);
    footer::draw_filter(frame, app, filter);
    footer::draw_keys(frame, app, keys);
    // Over everything but the keys.
    let room = Rect { height: area.height.saturating_sub(keys.height), ..area };
    if let Some(dialog) = app.dialog() {
        dialog::draw(frame, app, dialog, theme, room);
    }
    if let Some(confirm) = app.confirm() {
        dialog::draw_question(frame, app, confirm, theme, room);
    }
}

/// Says so in the longest form that fits whole, and with it which key ends the program from here.
fn draw_too_small(frame: &mut Frame, place: Place, area: Rect) {
    let smallest = layout::SMALLEST;
    let way_out = place.key_of(Action::Quit).map(|key| format!(" {} quits.", key.name())).unwrap_or_default();
    let full = format!("The window is too small: {}x{} is needed.{way_out}", smallest.width, smallest.height);
    let short = format!("Window too small.{way_out}");
    let (columns, rows) = (usize::from(area.width), usize::from(area.height));
    let fits = |words: &&str| {
        let lines = wrap(words, columns);
        lines.len() <= rows && words.split(' ').all(|word| width(word) <= columns)
    };
    let forms = [full.as_str(), short.as_str(), "window too small", "too small", "small", "!"];
    let words = forms.iter().find(|words| fits(words)).copied().unwrap_or_default();
    for (line, row) in wrap(words, columns).into_iter().zip(area.rows()) {
        frame.render_widget(Line::raw(line), row);
    }
}
