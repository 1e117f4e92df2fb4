//! The lines at the top: totals, what is out of the ordinary, and which backends are at work.

use ratatui::{Frame, layout::Rect, style::Style, text::Span};

use super::{flow::Flow, theme::Theme};
use crate::{
    app::{App, group::Grouping, text::start},
    backends::throttle::TrafficType,
    rate::scaled,
};

/// Draws as many pieces as have room, the most important first.
pub(super) fn draw(frame: &mut Frame, app: &App, area: Rect) {
    let mut flow = Flow::new(area);
    for (line, style, text) in pieces(app) {
        flow.add(line, [Span::styled(text, style)]);
    }
    flow.draw(frame);
}

/// In the order of their importance, and on which line each belongs when both have room.
fn pieces(app: &App) -> Vec<(usize, Style, String)> {
    let theme = Theme::of(app.looks());
    let mut pieces = Vec::new();
    let mut add = |line: usize, style: Style, text: String| pieces.push((line, style, text));
    if app.is_demo() {
        add(0, theme.selected, " DEMO ".into());
    }
    let per = app.units().per_second();
    let rate = app.rate_of_all();
    add(0, theme.strong, format!("up {}{per}", app.rate(rate.upload)));
    add(0, theme.strong, format!("down {}{per}", app.rate(rate.download)));
    if app.paused() {
        add(0, theme.selected, "PAUSED".into());
    }
    let lost = app.snapshot().map_or(0, |snapshot| snapshot.lost_events);
    if lost > 0 {
        add(0, theme.error, format!("lost {} events", scaled(lost)));
    }
    if app.filter_input().is_none() && !app.table().filter().text().is_empty() {
        let filter = start(app.table().filter().text(), 16);
        add(
            0,
            theme.strong,
            format!("filter {filter}: {} of {}", app.table().matching(), app.table().rows().len()),
        );
    }
    if app.traffic() != TrafficType::All {
        add(0, theme.strong, format!("{} traffic alone", app.traffic().name()));
    }
    if app.table().grouping() != Grouping::None {
        add(1, theme.strong, app.table().grouping().name().into());
    }
    if app.limited() > 0 {
        add(0, theme.limit, format!("{} limited", app.limited()));
    }
    let units = app.units();
    let unattributed = app.snapshot().map(|snapshot| snapshot.buckets.unattributed()).unwrap_or_default();
    let (up, down) = (units.amount(unattributed.upload), units.amount(unattributed.download));
    add(1, Style::new(), format!("unattributed up {up} down {down}"));
    let backends = app.backends();
    add(1, Style::new(), format!("monitor {}", backends.monitor));
    match backends.download {
        Some(download) if download == backends.upload => add(1, Style::new(), format!("limits {download}")),
        download => {
            add(1, Style::new(), format!("upload limits {}", backends.upload));
            add(1, Style::new(), format!("download limits {}", download.unwrap_or("none")));
        }
    }
    let processes = match app.table().rows().len() {
        1 => "1 process".to_owned(),
        count => format!("{count} processes"),
    };
    add(0, Style::new(), processes);
    pieces
}
