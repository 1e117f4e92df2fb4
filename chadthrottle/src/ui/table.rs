//! The list of processes and groups.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::theme::Theme;
use crate::app::{
    App,
    columns::{Column, MARK, Placed, columns},
    group::Group,
    layout,
    row::Row,
    sort::{Sort, SortColumn},
    sparkline,
    table::Entry,
    text::{end, left, right, width, wrap},
    unit::unit,
    units::Units,
};
use crate::backends::throttle::manager::Limits;

/// Columns that a group within a group is moved to the right, as far as there is room for names.
const INDENT: usize = 2;
const DEEPEST: usize = 4;

/// Draws headings and rows.
pub(super) fn draw(frame: &mut Frame, app: &App, area: Rect) {
    let theme = Theme::of(app.looks());
    let columns = columns(usize::from(area.width), app.units(), app.hidden());
    let mut lines = area.rows();
    for line in headings(app, &columns) {
        if let Some(row) = lines.next() {
            frame.render_widget(Line::styled(app.looks().plain(&line), theme.strong), row);
        }
    }
    if app.table().is_empty() {
        for (line, row) in wrap(&absence(app), usize::from(area.width).saturating_sub(MARK)).iter().zip(lines)
        {
            frame.render_widget(Line::raw(format!("{}{}", " ".repeat(MARK), app.looks().plain(line))), row);
        }
        return;
    }
    let room = usize::from(area.height.saturating_sub(layout::HEADINGS));
    for ((depth, entry), line) in app.table().lines().skip(app.table().top(room)).zip(lines) {
        let selected = app.table().selected().is_some_and(|key| entry.is(key));
        let cells = Cells { app, entry, depth, theme };
        let mark = if selected { "> " } else { "  " };
        let mut style = cells.style();
        if selected {
            style = style.patch(theme.selected);
        }
        let spans = columns.iter().map(|placed| cells.span(placed));
        frame.render_widget(
            std::iter::once(Span::raw(mark)).chain(spans).collect::<Line>().style(style),
            line,
        );
    }
}

/// Why there are no rows.
fn absence(app: &App) -> String {
    if !app.table().rows().is_empty() {
        return format!("No process matches \"{}\". Esc drops the filter.", app.table().filter().in_force());
    }
    if app.snapshot().is_none() {
        return "Waiting for the first figures…".into();
    }
    "No process has used the network yet.".into()
}

/// Words above the headings of several columns.
fn groups(units: Units) -> [(&'static str, Column, Column); 5] {
    [
        (units.rate_heading(), Column::UploadRate, Column::DownloadRate),
        ("TOTAL", Column::UploadTotal, Column::DownloadTotal),
        ("LIMIT", Column::UploadLimit, Column::DownloadLimit),
        ("DROPPED", Column::Dropped, Column::Dropped),
        ("HELD", Column::HeldBack, Column::HeldBack),
    ]
}

fn headings(app: &App, columns: &[Placed]) -> [String; 2] {
    let sort: Sort = app.table().sort();
    let arrow = if sort.ascends() { '▲' } else { '▼' };
    let mark = |text: &str, marked: bool| if marked { format!("{text}{arrow}") } else { text.to_owned() };
    let mut above = String::new();
    let mut below = String::new();
    for placed in columns {
        let spec = &placed.spec;
        let text = mark(spec.heading, spec.sort == Some(sort.column));
        below.push_str(&" ".repeat(placed.x.saturating_sub(width(&below))));
        // The mark of a full heading stands in the gap before the column.
        if width(&text) > placed.width {
            below.pop();
        }
        let columns = placed.width.max(width(&text));
        below.push_str(&if spec.is_flush_right() { right(&text, columns) } else { left(&text, columns) });
    }
    for (name, first, last) in groups(app.units()) {
        let at = |column| columns.iter().find(|placed| placed.spec.column == column);
        let (Some(first), Some(last)) = (at(first), at(last)) else { continue };
        let name = mark(name, sort.column == SortColumn::Busiest && first.spec.column == Column::UploadRate);
        let end = last.x + last.width;
        // In the middle of its columns.
        let spare = if first.x == last.x { 0 } else { (end - first.x).saturating_sub(width(&name)) / 2 };
        above.push_str(&right(&name, end.saturating_sub(width(&above) + spare)));
    }
    [above, below]
}

/// What stands on one line.
struct Cells<'a> {
    app: &'a App,
    entry: Entry<'a>,
    depth: usize,
    theme: Theme,
}

impl Cells<'_> {
    fn style(&self) -> Style {
        match self.entry {
            Entry::Process(row) if row.alive => Style::new(),
            Entry::Group(group, _) if group.alive => self.theme.strong,
            _ => self.theme.faint,
        }
    }

    fn span(&self, placed: &Placed) -> Span<'static> {
        let (text, style) = match self.entry {
            Entry::Process(row) => self.of_process(row, placed),
            Entry::Group(group, is_folded) => self.of_group(group, is_folded, placed),
        };
        let spec = &placed.spec;
        // A mark before a limit stands in the gap.
        let is_limit = matches!(spec.column, Column::UploadLimit | Column::DownloadLimit);
        let is_marked = is_limit && text.starts_with('*');
        let (gap, columns) =
            if is_marked { (spec.gap - 1, placed.width + 1) } else { (spec.gap, placed.width) };
        let text = if spec.is_flush_right() { right(&text, columns) } else { left(&text, columns) };
        Span::styled(self.app.looks().plain(&format!("{}{text}", " ".repeat(gap))), style)
    }

    fn of_process(&self, row: &Row, placed: &Placed) -> (String, Style) {
        let (app, units, info) = (self.app, self.app.units(), &row.info);
        let plain = Style::new();
        let text = match placed.spec.column {
            Column::Name => format!("{}{}", self.indent(), info.name),
            Column::Pid => info.id.pid.to_string(),
            Column::User => info.user.clone().unwrap_or_else(|| "?".into()),
            Column::UploadRate if !row.alive => String::new(),
            Column::DownloadRate if !row.alive => "ended".into(),
            Column::UploadRate => app.rate(row.rate.upload),
            Column::DownloadRate => app.rate(row.rate.download),
            Column::Total => units.amount(row.total.sum()),
            Column::UploadTotal => units.amount(row.total.upload),
            Column::DownloadTotal => units.amount(row.total.download),
            Column::UploadLimit => {
                return self.limit(row.limits.upload, |refused| refused.upload, row.is_shared);
            }
            Column::DownloadLimit => {
                return self.limit(row.limits.download, |refused| refused.download, row.is_shared);
            }
            Column::Dropped if row.limits.is_empty() || row.is_shared => String::new(),
            Column::Dropped => units.amount(row.dropped()),
            Column::HeldBack => row.held_back.map(|bytes| units.amount(bytes)).unwrap_or_default(),
            Column::Backend => return (self.backend(row.limits.upload, row.limits.download), plain),
            Column::Unit => unit(info).unwrap_or_default(),
            // Of a path, the end tells the most.
            Column::Exe => {
                end(&info.exe.as_ref().map(|exe| exe.to_string_lossy()).unwrap_or_default(), placed.width)
            }
            Column::Lately => return (self.lately(placed.width), self.theme.curve),
        };
        (text, plain)
    }

    fn of_group(&self, group: &Group, is_folded: bool, placed: &Placed) -> (String, Style) {
        let (app, units) = (self.app, self.app.units());
        let limits = group.limits();
        let text = match placed.spec.column {
            Column::Name => format!("{}{} {}", self.indent(), if is_folded { '▸' } else { '▾' }, group.label),
            Column::Pid => format!("x{}", group.members.len()),
            Column::User => group.user.clone().unwrap_or_default(),
            Column::UploadRate => app.rate(group.rate.upload),
            Column::DownloadRate => app.rate(group.rate.download),
            Column::Total => units.amount(group.total.sum()),
            Column::UploadTotal => units.amount(group.total.upload),
            Column::DownloadTotal => units.amount(group.total.download),
            Column::UploadLimit => return self.limit(limits.upload, |refused| refused.upload, false),
            Column::DownloadLimit => return self.limit(limits.download, |refused| refused.download, false),
            Column::Dropped if limits.is_empty() && group.limited == 0 => String::new(),
            Column::Dropped => units.amount(group.dropped),
            Column::HeldBack => group.held_back.map(|bytes| units.amount(bytes)).unwrap_or_default(),
            Column::Backend => self.backend(limits.upload, limits.download),
            Column::Unit | Column::Exe => String::new(),
            Column::Lately => return (self.lately(placed.width), self.theme.curve),
        };
        (text, Style::new())
    }

    fn indent(&self) -> String {
        " ".repeat(self.depth.min(DEEPEST) * INDENT)
    }

    fn lately(&self, width: usize) -> String {
        sparkline(&self.app.lately(&self.entry, width), width, self.app.looks().ascii)
    }

    /// A limit, or that the one that was asked for was refused.
    fn limit(
        &self,
        limit: Option<u64>,
        asked: fn(Limits) -> Option<u64>,
        is_shared: bool,
    ) -> (String, Style) {
        let refused = || self.app.refusal(&self.entry).and_then(|refused| asked(refused.limits));
        let text = limit.map(|limit| self.app.units().limit(limit));
        match (text, is_shared) {
            (Some(text), true) => (format!("*{text}"), self.theme.limit),
            (Some(text), false) => (text, self.theme.limit),
            (None, _) if refused().is_some() => ("fail".into(), self.theme.error),
            (None, _) => (String::new(), Style::new()),
        }
    }

    /// Who holds its limits.
    fn backend(&self, upload: Option<u64>, download: Option<u64>) -> String {
        let names = self.app.backends();
        let upload = upload.map(|_| names.upload);
        let download = download.and(names.download);
        match (upload, download) {
            (Some(upload), Some(download)) if upload != download => format!("{upload} {download}"),
            (Some(name), _) | (None, Some(name)) => name.to_owned(),
            (None, None) if self.app.refusal(&self.entry).is_some() => "refused".into(),
            (None, None) => String::new(),
        }
    }
}
