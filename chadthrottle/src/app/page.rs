//! Whatever fills the space between header and footer with lines of text: details, interfaces, the system, backends,
//! the history, messages, the help.

use ratatui::layout::Size;

use super::{
    App, Overlay, View, facts,
    graph::Graph,
    layout,
    lines::{FactLine, Tone, lines},
    look::{Details, Part},
    text::start,
};
use crate::{backends::registry::Kind, process::ProcessId};

/// Lines to be drawn, as far as they are needed.
#[derive(Clone, Debug)]
pub struct Page {
    /// Columns beside each other, from the first line on the screen on.
    pub columns: Vec<Vec<FactLine>>,
    /// Lines that are above the screen.
    pub scroll: usize,
    /// How many there are in all.
    pub length: usize,
}

impl Page {
    fn of(columns: Vec<Vec<FactLine>>, scroll: usize) -> Self {
        let length = columns.iter().map(Vec::len).max().unwrap_or_default();
        let below = |lines: Vec<FactLine>| lines.into_iter().skip(scroll).collect();
        Self { columns: columns.into_iter().map(below).collect(), scroll, length }
    }
}

impl App {
    /// What fills a window of that size instead of the table, where anything does.
    #[must_use]
    pub fn page(&self, size: Size) -> Option<Page> {
        let room = layout::details(size.width);
        if let Some(Overlay::Help { scroll }) = self.overlay {
            return Some(Self::help(size.width, scroll));
        }
        match &self.view {
            View::Table => None,
            View::Details(details) => Some(self.details(details, size)),
            View::Interfaces { scroll } => Some(Page::of(vec![self.interface_lines(room)], *scroll)),
            View::System { scroll } => Some(Page::of(vec![self.system_lines(room)], *scroll)),
            View::History => Some(Page::of(vec![self.past_lines(size)], 0)),
            View::Columns { place } => Some(Page::of(vec![self.column_lines(*place, room)], 0)),
            View::Log { scroll } => Some(Page::of(vec![self.log.lines(room)], *scroll)),
            View::Backends(list) => {
                let names = self.setup.backends;
                let used = |kind| match kind {
                    Kind::Monitor => Some(names.monitor),
                    Kind::Upload => Some(names.upload),
                    Kind::Download => names.download,
                };
                Some(Page::of(vec![list.lines(used, room)], list.scroll))
            }
        }
    }

    fn help(width: u16, scroll: usize) -> Page {
        let (columns, room) = layout::help(width);
        let parts = facts::of_help();
        let columns = if columns == 1 {
            vec![parts.map(|part| lines(&part, room)).join(&FactLine::default())]
        } else {
            parts.iter().map(|part| lines(part, room)).collect()
        };
        Page::of(columns, scroll)
    }

    fn details(&self, details: &Details, size: Size) -> Page {
        let room = layout::details(size.width);
        let process = details.process();
        let Some(row) = self.table.find(process) else {
            let words = format!("Process {process} is not in the list any more.");
            return Page::of(vec![vec![FactLine::text(words)]], 0);
        };
        let mut head = vec![
            FactLine::title(start(&format!("{} ({})", row.info.name, row.id()), room)),
            self.tabs(details, room),
        ];
        let body = usize::from(layout::body(size)).saturating_sub(head.len());
        let (lines, length) = match details.part {
            Part::Overview => all(lines(&facts::of_process(self, row), room), details.scroll),
            Part::Traffic => all(lines(&facts::of_traffic(self, row), room), details.scroll),
            Part::History => all(self.graphs(details, room, body), details.scroll),
            Part::Connections => {
                let part = (details.scroll, usize::from(size.height));
                self.looked.lines(process, self.setup.units, room, part, &self.hosts)
            }
        };
        let length = length + head.len();
        head.extend(lines);
        Page { columns: vec![head], scroll: details.scroll, length }
    }

    fn tabs(&self, details: &Details, room: usize) -> FactLine {
        let name = |part: &Part| {
            let count = if *part == Part::Connections { self.looked.count(details.process()) } else { None };
            let count = count.map(|count| format!(" {count}")).unwrap_or_default();
            let name = format!("{}{count}", part.name());
            if *part == details.part { format!("[{name}]") } else { format!(" {name} ") }
        };
        let tabs = Part::ALL.iter().map(name).collect::<Vec<_>>().join(" ");
        FactLine::text(start(&tabs, room))
    }

    fn graphs(&self, details: &Details, width: usize, height: usize) -> Vec<FactLine> {
        let process = details.process();
        let limits = self.table.find(process).map(|row| row.limits).unwrap_or_default();
        let span = details.span;
        let rates = self.recent_rates(std::iter::once(process), span, span.points());
        let (up, down): (Vec<f32>, Vec<f32>) = rates.into_iter().unzip();
        // Each has a line of words.
        let each = (height.saturating_sub(3) / 2).max(2);
        let mut lines = Vec::new();
        for (name, values, limit) in [("upload", up, limits.upload), ("download", down, limits.download)] {
            lines.extend(self.graph(name, &values, limit, details, width, each));
        }
        let words = format!(
            "{} back from now, a point each {} s. Left and right: shorter, longer.",
            span.name(),
            span.step().as_secs()
        );
        lines.push(FactLine::text(start(&words, width)).toned(Tone::Faint));
        lines
    }

    fn graph(
        &self,
        name: &str,
        values: &[f32],
        limit: Option<u64>,
        details: &Details,
        width: usize,
        height: usize,
    ) -> Vec<FactLine> {
        let units = self.setup.units;
        let peak = values.iter().copied().fold(0.0, f32::max);
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let (mean, level) =
            (values.iter().sum::<f32>() / values.len().max(1) as f32, limit.map(|limit| limit as f32));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rates are small and positive"
        )]
        let rate = |rate: f32| units.rate(rate as u64);
        let limit = limit.map(|limit| format!("  limit {} (─)", units.limit(limit))).unwrap_or_default();
        let words = format!("  peak {} (┈)  mean {} (╌){limit}", rate(peak), rate(mean));
        let top = peak.max(level.unwrap_or_default());
        let graph = Graph {
            values,
            points: details.span.points(),
            top,
            limit: level.filter(|level| *level > 0.0),
            mean: Some(mean).filter(|mean| *mean > 0.0),
            peak: Some(peak).filter(|peak| *peak > 0.0),
            ascii: self.setup.looks.ascii,
        };
        let head = FactLine { strong: name.to_owned(), text: start(&words, width), ..FactLine::default() };
        std::iter::once(head).chain(graph.lines(width, height).into_iter().map(FactLine::text)).collect()
    }

    /// Rates of some processes together, as far as they are shown, the oldest first.
    pub(crate) fn recent_rates(
        &self,
        processes: impl Iterator<Item = ProcessId>,
        span: super::history::Span,
        count: usize,
    ) -> Vec<(f32, f32)> {
        let histories = self.frozen.as_ref().unwrap_or(&self.histories);
        histories.latest(processes, self.traffic, span, count)
    }
}

fn all(lines: Vec<FactLine>, scroll: usize) -> (Vec<FactLine>, usize) {
    let length = lines.len();
    (lines.into_iter().skip(scroll).collect(), length)
}
