//! The figures, by measurement and monitor.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Options;
use crate::bench::median;

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measure {
    /// What, with its unit.
    pub(crate) what: &'static str,
    /// Digits after the point.
    pub(crate) digits: usize,
    /// What is accepted of us.
    pub(crate) bound: Option<Bound>,
}

/// What is accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// This much and less.
    AtMost(f64),
    /// This much and more.
    AtLeast(f64),
}

impl Bound {
    fn holds_for(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most}"),
            Self::AtLeast(least) => format!("≥ {least}"),
        }
    }
}

/// What was measured so far.
pub(crate) struct Table {
    measures: &'static [Measure],
    columns: Vec<Column>,
    /// Bytes a second of iperf3 without any monitor.
    line_rates: Vec<f64>,
}

struct Column {
    name: String,
    /// By measure: a value a round.
    values: Vec<Vec<f64>>,
}

impl Table {
    pub(crate) fn new(measures: &'static [Measure]) -> Self {
        Self { measures, columns: Vec::new(), line_rates: Vec::new() }
    }

    /// Begins the column of a monitor. The first one's is ours.
    pub(crate) fn begin(&mut self, name: &str) {
        self.columns.push(Column { name: name.to_owned(), values: vec![Vec::new(); self.measures.len()] });
    }

    /// Adds a figure to the last column.
    pub(crate) fn add(&mut self, measure: &Measure, value: f64) {
        let row = self.measures.iter().position(|other| other == measure);
        if let (Some(row), Some(column)) = (row, self.columns.last_mut()) {
            column.values[row].push(value);
        }
    }

    /// What "line rate" was, in bytes a second.
    pub(crate) fn note_line_rate(&mut self, rate: f64) {
        self.line_rates.push(rate);
    }

    /// What was measured at all, with its row.
    fn measured(&self) -> impl Iterator<Item = (usize, &Measure)> {
        let is_there = |row: usize| self.columns.iter().any(|column| !column.values[row].is_empty());
        self.measures.iter().enumerate().filter(move |(row, _)| is_there(*row))
    }

    pub(crate) fn markdown(&self, options: &Options) -> String {
        let line_rate = median(self.line_rates.clone()) * 8.0 / 1e9;
        let mut text = format!(
            "Medians of {} rounds (least–most), {} s each; {} processes hold the idle connections; line rate is {}.\n\n\
             | | accepted |",
            options.rounds,
            options.seconds,
            options.processes,
            if line_rate.is_nan() { "not measured".to_owned() } else { format!("{line_rate:.1} Gbit/s") },
        );
        for column in &self.columns {
            let _ = write!(text, " {} |", column.name);
        }
        let _ = write!(text, "\n| --- | --- |{}\n", " --- |".repeat(self.columns.len()));
        for (row, measure) in self.measured() {
            let bound = measure.bound.map_or_else(String::new, Bound::in_words);
            let _ = write!(text, "| {} | {bound} |", measure.what);
            for (index, column) in self.columns.iter().enumerate() {
                let bound = measure.bound.filter(|_| index == 0);
                let _ = write!(text, " {} |", cell(&column.values[row], measure.digits, bound));
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn json(&self, options: &Options) -> Value {
        let figures = |column: &Column, row: usize| {
            let values = &column.values[row];
            if values.is_empty() {
                Value::Null
            } else {
                json!({"median": median(values.clone()), "values": values})
            }
        };
        let rows: Vec<_> = self
            .measured()
            .map(|(row, measure)| {
                let by_monitor: serde_json::Map<_, _> =
                    self.columns.iter().map(|column| (column.name.clone(), figures(column, row))).collect();
                let holds = self.columns.first().and_then(|ours| holds(&ours.values[row], measure.bound?));
                let accepted = measure.bound.map(Bound::in_words);
                json!({"what": measure.what, "accepted": accepted, "holds": holds, "monitors": by_monitor})
            })
            .collect();
        json!({
            "rounds": options.rounds,
            "seconds": options.seconds,
            "processes": options.processes,
            "line_rate_bytes_per_s": median(self.line_rates.clone()),
            "measures": rows,
        })
    }
}

/// Whether what was measured is accepted; none where nothing was.
fn holds(values: &[f64], bound: Bound) -> Option<bool> {
    (!values.is_empty()).then(|| bound.holds_for(median(values.to_vec())))
}

fn cell(values: &[f64], digits: usize, bound: Option<Bound>) -> String {
    if values.is_empty() {
        return "–".to_owned();
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let verdict = match bound.and_then(|bound| holds(values, bound)) {
        Some(false) => " **misses**",
        Some(true) | None => "",
    };
    format!("{:.digits$} ({least:.digits$}–{most:.digits$}){verdict}", median(values.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Measure = Measure { what: "first", digits: 1, bound: Some(Bound::AtMost(2.0)) };
    const SECOND: Measure = Measure { what: "second", digits: 2, bound: Some(Bound::AtLeast(0.97)) };
    static BOTH: [Measure; 2] = [FIRST, SECOND];

    fn options() -> Options {
        Options {
            monitor_backend: "ebpf".into(),
            rounds: 3,
            seconds: 5,
            processes: 7,
            only: Vec::new(),
            alone: false,
            json: false,
        }
    }

    #[test]
    fn a_bound_is_ours_to_hold_and_a_gap_is_shown() {
        let mut table = Table::new(&BOTH);
        table.begin("ours");
        for value in [1.0, 3.0, 2.5] {
            table.add(&FIRST, value);
        }
        table.add(&SECOND, 0.97);
        table.begin("theirs");
        table.add(&FIRST, 9.0);
        table.note_line_rate(1.25e9);
        let text = table.markdown(&options());
        assert!(text.contains("7 processes") && text.contains("10.0 Gbit/s"), "{text}");
        assert!(text.contains("| | accepted | ours | theirs |\n| --- | --- | --- | --- |\n"), "{text}");
        assert!(text.contains("| first | ≤ 2 | 2.5 (1.0–3.0) **misses** | 9.0 (9.0–9.0) |\n"), "{text}");
        assert!(text.ends_with("| second | ≥ 0.97 | 0.97 (0.97–0.97) | – |\n"), "{text}");

        let json = table.json(&options());
        assert_eq!(json["measures"][0]["holds"], false);
        assert_eq!(json["measures"][1]["holds"], true);
        assert_eq!(json["measures"][0]["monitors"]["ours"]["median"], 2.5);
        assert_eq!(json["measures"][1]["monitors"]["theirs"], Value::Null);
    }
}
