//! What this host offers, what is missing, who else is there, and what would work better. Nothing is changed: no module is
//! loaded, no device made; where only a trial tells, a program that does nothing is loaded and thrown away.

mod advice;
mod features;
pub(crate) mod host;
mod neighbours;

use serde::Serialize;

pub use self::{
    advice::Advice,
    features::Feature,
    host::{Cgroups, Kernel},
    neighbours::{Neighbours, Queue},
};
use crate::{
    backends::registry::{Backends, Listed, Listing, SelectError, Wanted},
    sys::capability::{self, Capability},
};

/// Whether this process has a capability.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Held {
    /// Its name, as in capabilities(7).
    pub name: &'static str,
    /// Whether it has.
    pub held: bool,
}

/// All that is found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// This program's.
    pub version: &'static str,
    /// The running kernel.
    pub kernel: Kernel,
    /// Trees of cgroups.
    pub cgroups: Cgroups,
    /// Those that some backend needs.
    pub capabilities: Vec<Held>,
    /// What of the kernel matters here.
    pub features: Vec<Feature>,
    /// Which backends work here, and why not.
    pub backends: Listing,
    /// Who else is there.
    pub neighbours: Neighbours,
    /// What would work better.
    pub advice: Vec<Advice>,
}

/// Looks at everything.
///
/// # Errors
/// When a backend was asked for by a name that does not exist.
pub fn examine(backends: &Backends, wanted: &Wanted) -> Result<Report, SelectError> {
    let capabilities = capability::KNOWN.map(|capability: Capability| Held {
        name: capability.name,
        held: capability::first_missing(&[capability]).is_none(),
    });
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: Kernel::read(),
        cgroups: Cgroups::read(),
        capabilities: capabilities.to_vec(),
        features: Vec::new(),
        backends: backends.list(wanted)?,
        neighbours: Neighbours::read(),
        advice: Vec::new(),
    };
    (report.features, report.kernel.modules) = features::read();
    report.advice = advice::of(&report);
    Ok(report)
}

impl Report {
    /// The same without anything that tells whose host this is: interfaces go by number, tables and programs of others by
    /// their kind alone.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        let names: Vec<(String, String)> = (self.neighbours.queues.iter())
            .filter(|queue| queue.interface != "lo")
            .map(|queue| (queue.interface.clone(), format!("interface#{}", queue.index)))
            .collect();
        let hide = |text: &mut String| *text = without_names(text, &names);
        for queue in &mut self.neighbours.queues {
            hide(&mut queue.interface);
        }
        for programs in &mut self.neighbours.programs {
            programs.names.clear();
        }
        for tables in &mut self.neighbours.tables {
            tables.names.clear();
        }
        let listing = &mut self.backends;
        for row in [&mut listing.monitor, &mut listing.upload, &mut listing.download].into_iter().flatten() {
            let Listed { reason, .. } = row;
            reason.as_mut().map(hide);
        }
        for advice in &mut self.advice {
            hide(&mut advice.what);
            advice.command.as_mut().map(hide);
        }
        self
    }
}

/// A text with other words in the place of these.
fn without_names(text: &str, names: &[(String, String)]) -> String {
    let is_part = |c: char| c.is_alphanumeric() || "_-.@".contains(c);
    let mut rest = text;
    let mut out = String::new();
    while let Some(first) = rest.chars().next() {
        let end =
            if is_part(first) { rest.find(|c| !is_part(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, next) = rest.split_at(end);
        let known = names.iter().find(|(name, _)| name == word.trim_end_matches('.'));
        match known {
            Some((name, other)) => out += &word.replacen(name.as_str(), other, 1),
            None => out += word,
        }
        rest = next;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_do_not_leave_the_house() {
        let names =
            [("wg-acme".to_owned(), "interface#7".to_owned()), ("e".to_owned(), "interface#2".to_owned())];
        let said =
            "somebody gave wg-acme the queue pfifo 1:; `tc qdisc del dev wg-acme root`, or e. wg-acme0";
        let hidden = "somebody gave interface#7 the queue pfifo 1:; `tc qdisc del dev interface#7 root`, or interface#2. \
                      wg-acme0";
        assert_eq!(without_names(said, &names), hidden);
        assert_eq!(without_names("", &names), "");
    }

    #[test]
    fn a_report_for_others_has_no_names() {
        let report =
            examine(&Backends::default(), &Wanted::default()).expect("no name was given").anonymous();
        assert!(report.neighbours.programs.iter().all(|programs| programs.names.is_empty()));
        assert!(report.neighbours.tables.iter().all(|tables| tables.names.is_empty()));
        let is_hidden = |queue: &Queue| queue.interface == "lo" || queue.interface.starts_with("interface#");
        assert!(report.neighbours.queues.iter().all(is_hidden), "{:?}", report.neighbours.queues);
    }
}
