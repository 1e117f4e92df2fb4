//! The list of backends: which there are, why one cannot work, and which is used from now on.

use super::{
    Effect,
    keys::Motion,
    lines::{FactLine, Tone},
    table::stepped,
    text::{left, start, wrap},
};
use crate::backends::registry::{Kind, Listed, Listing};

/// What is shown of the backends.
#[derive(Clone, Debug, Default)]
pub(super) struct BackendList {
    listing: Option<Result<Listing, String>>,
    place: usize,
    pub(super) scroll: usize,
}

/// `ebpf_cgroup` and a space.
const NAME: usize = 14;

impl BackendList {
    pub(super) fn take_in(&mut self, listing: Result<Listing, String>) {
        self.listing = Some(listing);
    }

    pub(super) fn step(&mut self, motion: Motion, body: usize) {
        self.place = stepped(self.place, motion, body, self.rows().len());
        // Three lines a backend at most, and the headings: the chosen one stays on the screen.
        let line = self.place * 3;
        self.scroll = self.scroll.clamp((line + 6).saturating_sub(body).min(line), line);
    }

    fn rows(&self) -> Vec<(Kind, &Listed)> {
        let Some(Ok(listing)) = &self.listing else { return Vec::new() };
        let kinds = [
            (Kind::Monitor, &listing.monitor),
            (Kind::Upload, &listing.upload),
            (Kind::Download, &listing.download),
        ];
        kinds.into_iter().flat_map(|(kind, rows)| rows.iter().map(move |row| (kind, row))).collect()
    }

    /// What makes the chosen one the one that is used.
    ///
    /// # Errors
    /// When that cannot be, in words.
    pub(super) fn switch(&self) -> Result<Effect, String> {
        match self.rows().get(self.place) {
            None => Err("No backend is chosen.".into()),
            Some((kind, row)) => match &row.reason {
                Some(reason) => Err(format!("The {kind} backend {} cannot work here: {reason}.", row.name)),
                None => Ok(Effect::UseBackend { kind: *kind, name: row.name }),
            },
        }
    }

    /// All of them, with those that are in use marked.
    pub(super) fn lines(&self, used: impl Fn(Kind) -> Option<&'static str>, room: usize) -> Vec<FactLine> {
        match &self.listing {
            None => return vec![FactLine::text("Asking the backends…")],
            Some(Err(words)) => {
                return wrap(words, room)
                    .into_iter()
                    .map(|line| FactLine::text(line).toned(Tone::Error))
                    .collect();
            }
            Some(Ok(_)) => {}
        }
        let mut lines = Vec::new();
        let mut last = None;
        for (place, (kind, row)) in self.rows().into_iter().enumerate() {
            if last != Some(kind) {
                lines.push(FactLine::title(heading(kind)));
                last = Some(kind);
            }
            lines.extend(described(row, place == self.place, used(kind) == Some(row.name), room));
        }
        lines
    }
}

const fn heading(kind: Kind) -> &'static str {
    match kind {
        Kind::Monitor => "Who counts",
        Kind::Upload => "Who holds uploads",
        Kind::Download => "Who holds downloads",
    }
}

fn described(row: &Listed, is_chosen: bool, is_used: bool, room: usize) -> Vec<FactLine> {
    let mark = if is_chosen { "> " } else { "  " };
    let state = match (is_used, row.available) {
        (true, _) => "in use",
        (false, true) => "works",
        (false, false) => "cannot",
    };
    let covers = [
        ("IPv4", row.capabilities.ipv4),
        ("IPv6", row.capabilities.ipv6),
        ("TCP", row.capabilities.tcp),
        ("UDP", row.capabilities.udp),
        ("open sockets", row.capabilities.open_connections),
        ("delays", row.capabilities.shapes),
        ("moves processes", row.capabilities.moves_process),
    ];
    let covers: Vec<&str> = covers.iter().filter(|(_, does)| *does).map(|(name, _)| *name).collect();
    let head =
        format!("{mark}{}{}{}", left(row.name, NAME), left(state, 8), left(&row.priority.to_string(), 10));
    let tone = match (is_chosen, row.available) {
        (true, _) => Tone::Selected,
        (false, true) => Tone::Plain,
        (false, false) => Tone::Faint,
    };
    let text = start(&format!("{head}{}", covers.join(" ")), room);
    let mut lines = vec![FactLine::text(text).toned(tone)];
    if let Some(reason) = &row.reason {
        let reason = wrap(reason, room.saturating_sub(4).max(10));
        lines.extend(reason.into_iter().map(|line| FactLine::text(format!("    {line}")).toned(Tone::Faint)));
    }
    lines
}
