//! The list of processes.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::theme::Theme;
use crate::{
    app::{
        App,
        facts::limit_text,
        layout,
        row::{Row, Sort, SortColumn},
        text::{end, left, right, start, width, wrap},
    },
    rate::scaled,
};

/// Before the first column: the mark of the selected row.
const MARK: usize = 2;
/// What follows the name of a process that has ended.
const ENDED: &str = " ended";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Name,
    Pid,
    User,
    UploadRate,
    DownloadRate,
    UploadTotal,
    DownloadTotal,
    UploadLimit,
    DownloadLimit,
    Dropped,
    Cgroup,
    Exe,
}

/// How a column is laid out.
struct Spec {
    column: Column,
    /// Columns with the same rank come and go together; the lowest rank stays longest.
    rank: u8,
    /// Spaces before it.
    gap: usize,
    smallest: usize,
    largest: usize,
    heading: &'static str,
    sort: Option<SortColumn>,
}

const fn number(column: Column, rank: u8, gap: usize, heading: &'static str, sort: SortColumn) -> Spec {
    Spec { column, rank, gap, smallest: 5, largest: 5, heading, sort: Some(sort) }
}

/// From left to right.
const COLUMNS: [Spec; 12] = [
    Spec {
        column: Column::Name,
        rank: 0,
        gap: 0,
        smallest: 12,
        largest: 15 + ENDED.len(),
        heading: "PROCESS",
        sort: Some(SortColumn::Name),
    },
    // 4194304, the largest that the kernel gives out, has 7 digits.
    Spec {
        column: Column::Pid,
        rank: 3,
        gap: 1,
        smallest: 7,
        largest: 7,
        heading: "PID",
        sort: Some(SortColumn::Pid),
    },
    Spec {
        column: Column::User,
        rank: 5,
        gap: 1,
        smallest: 8,
        largest: 16,
        heading: "USER",
        sort: Some(SortColumn::User),
    },
    number(Column::UploadRate, 1, 2, "UP", SortColumn::UploadRate),
    number(Column::DownloadRate, 1, 1, "DOWN", SortColumn::DownloadRate),
    number(Column::UploadTotal, 4, 2, "UP", SortColumn::UploadTotal),
    number(Column::DownloadTotal, 4, 1, "DOWN", SortColumn::DownloadTotal),
    number(Column::UploadLimit, 2, 2, "UP", SortColumn::UploadLimit),
    number(Column::DownloadLimit, 2, 1, "DOWN", SortColumn::DownloadLimit),
    number(Column::Dropped, 6, 2, "BYTES", SortColumn::Dropped),
    Spec {
        column: Column::Cgroup,
        rank: 7,
        gap: 2,
        smallest: 18,
        largest: 48,
        heading: "CGROUP",
        sort: None,
    },
    Spec {
        column: Column::Exe,
        rank: 8,
        gap: 2,
        smallest: 18,
        largest: 64,
        heading: "EXECUTABLE",
        sort: None,
    },
];

/// How wide two columns of numbers are with the space between them.
const PAIR: usize = 11;

/// Words above the headings of several columns.
const GROUPS: [(&str, Column, Column); 4] = [
    ("RATE/s", Column::UploadRate, Column::DownloadRate),
    ("TOTAL", Column::UploadTotal, Column::DownloadTotal),
    ("LIMIT", Column::UploadLimit, Column::DownloadLimit),
    ("DROPPED", Column::Dropped, Column::Dropped),
];

/// The columns that a window has room for, and how wide they are.
fn columns(room: usize) -> Vec<(&'static Spec, usize)> {
    let mut left = room.saturating_sub(MARK);
    let mut chosen = [false; COLUMNS.len()];
    let ranks = COLUMNS.iter().map(|spec| spec.rank).max().unwrap_or_default();
    for rank in 0..=ranks {
        let of_rank = || COLUMNS.iter().enumerate().filter(|(_, spec)| spec.rank == rank);
        let wanted: usize = of_rank().map(|(_, spec)| spec.gap + spec.smallest).sum();
        if let Some(rest) = left.checked_sub(wanted) {
            left = rest;
            of_rank().for_each(|(index, _)| chosen[index] = true);
        }
    }
    COLUMNS
        .iter()
        .zip(chosen)
        .filter(|(_, chosen)| *chosen)
        .map(|(spec, _)| {
            let more = left.min(spec.largest - spec.smallest);
            left -= more;
            (spec, spec.smallest + more)
        })
        .collect()
}

/// Draws headings and rows.
pub(super) fn draw(frame: &mut Frame, app: &App, area: Rect) {
    let theme = Theme::of(app.looks());
    let columns = columns(usize::from(area.width));
    let mut lines = area.rows();
    for line in headings(&columns, app.table().sort()) {
        if let Some(row) = lines.next() {
            frame.render_widget(Line::styled(line, theme.strong), row);
        }
    }
    if app.table().is_empty() {
        for (line, row) in wrap(&absence(app), usize::from(area.width).saturating_sub(MARK)).iter().zip(lines)
        {
            frame.render_widget(Line::raw(format!("{}{line}", " ".repeat(MARK))), row);
        }
        return;
    }
    let room = usize::from(area.height.saturating_sub(layout::HEADINGS));
    for (row, line) in app.table().shown().skip(app.table().top(room)).zip(lines) {
        let selected = app.table().selected() == Some(row.id());
        let mark = if selected { "> " } else { "  " };
        let spans = columns.iter().map(|&(spec, width)| cell(app, row, spec, width, theme));
        let mut style = Style::new();
        if !row.alive {
            style = style.patch(theme.faint);
        }
        if selected {
            style = style.patch(theme.selected);
        }
        frame.render_widget(
            std::iter::once(Span::raw(mark)).chain(spans).collect::<Line>().style(style),
            line,
        );
    }
}

/// Why there are no rows.
fn absence(app: &App) -> String {
    if !app.table().rows().is_empty() {
        return format!("No process matches \"{}\". Esc drops the filter.", app.table().filter());
    }
    if app.snapshot().is_none() {
        return "Waiting for the first figures…".into();
    }
    "No process has used the network yet.".into()
}

fn headings(columns: &[(&Spec, usize)], sort: Sort) -> [String; 2] {
    let arrow = if sort.ascends() { '▲' } else { '▼' };
    let mark = |text: &str, marked: bool| if marked { format!("{text}{arrow}") } else { text.to_owned() };
    let mut above = String::new();
    let mut below = " ".repeat(MARK);
    for &(spec, columns) in columns {
        below.push_str(&" ".repeat(spec.gap));
        let text = mark(spec.heading, spec.sort == Some(sort.column));
        // The mark of a full heading stands in the gap before the column.
        if width(&text) > columns {
            below.pop();
        }
        let columns = columns.max(width(&text));
        below.push_str(&if flush_right(spec.column) { right(&text, columns) } else { left(&text, columns) });
        let group = GROUPS.iter().find(|(_, _, last)| *last == spec.column);
        if let Some((name, first, last)) = group {
            let name = mark(name, sort.column == SortColumn::Busiest && *first == Column::UploadRate);
            // In the middle of its columns.
            let spare = if first == last { 0 } else { (PAIR - width(&name)) / 2 };
            above.push_str(&right(&name, width(&below).saturating_sub(width(&above) + spare)));
        }
    }
    [above, below]
}

const fn flush_right(column: Column) -> bool {
    !matches!(column, Column::Name | Column::User | Column::Cgroup | Column::Exe)
}

fn cell(app: &App, row: &Row, spec: &Spec, columns: usize, theme: Theme) -> Span<'static> {
    let limit = |limit: Option<u64>| limit.map(limit_text).unwrap_or_default();
    let mut style = Style::new();
    let info = &row.info;
    let text = match spec.column {
        Column::Name if row.alive => info.name.clone(),
        Column::Name => {
            let room = columns.saturating_sub(ENDED.len());
            format!("{}{ENDED}", start(&info.name, room))
        }
        Column::Pid => info.id.pid.to_string(),
        Column::User => info.user.clone().unwrap_or_else(|| "?".into()),
        Column::UploadRate => app.rate(row.rate.upload),
        Column::DownloadRate => app.rate(row.rate.download),
        Column::UploadTotal => scaled(row.total.upload),
        Column::DownloadTotal => scaled(row.total.download),
        Column::UploadLimit | Column::DownloadLimit => {
            style = theme.limit;
            let upload = spec.column == Column::UploadLimit;
            limit(if upload { row.limits.upload } else { row.limits.download })
        }
        Column::Dropped if row.limits.is_empty() => String::new(),
        Column::Dropped => scaled(row.dropped()),
        // Of a path, the end tells the most.
        Column::Cgroup => end(info.cgroup.as_deref().unwrap_or_default(), columns),
        Column::Exe => end(&info.exe.as_ref().map(|exe| exe.to_string_lossy()).unwrap_or_default(), columns),
    };
    let text = if flush_right(spec.column) { right(&text, columns) } else { left(&text, columns) };
    Span::styled(format!("{}{text}", " ".repeat(spec.gap)), style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_never_take_more_than_there_is() {
        for room in 14..300 {
            let used: usize = columns(room).iter().map(|(spec, width)| spec.gap + width).sum();
            assert!(used + MARK <= room, "{used} of {room}");
        }
    }

    #[test]
    fn wider_windows_have_no_fewer_columns_of_the_first_ranks() {
        let has = |room, column| columns(room).iter().any(|(spec, _)| spec.column == column);
        for (column, from) in [
            (Column::UploadRate, 27),
            (Column::UploadLimit, 40),
            (Column::Pid, 48),
            (Column::UploadTotal, 61),
            (Column::User, 70),
            (Column::Dropped, 77),
            (Column::Cgroup, 97),
            (Column::Exe, 117),
        ] {
            for room in from..from + 100 {
                assert!(has(room, column), "{column:?} at {room}");
            }
        }
    }
}
