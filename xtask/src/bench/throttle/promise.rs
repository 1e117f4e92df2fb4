//! What senders had been promised when a limit came. A receive window that was told to a sender is not taken back
//! (RFC 9293, 3.8.6.2.1), so until it is used up nobody without a say over packets could hold the limit.

use std::{collections::BTreeMap, thread, time::Duration};

use testbed::{Host, Process};

use crate::bench::recording::Recording;

/// From one look to the next, while it is not used up.
const STEP: Duration = Duration::from_millis(50);
/// A connection that has sent so many bytes is one that the limit is for.
const BUSY: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// What all connections of a run were promised together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// Payload that might still be sent when the limit was in force.
    pub(super) bytes: f64,
    /// When the last connection had used up its own, in seconds of the recording.
    pub(super) used_up: f64,
}

/// How far each connection's data is acknowledged, and how far it may go, by its other end.
type Edges = BTreeMap<String, (u64, u64)>;

impl Promise {
    /// Watches the host that sends, until all is used up, at the latest at a moment of the recording. The last that it
    /// was promised reaches it `late`. None where `ss` does not tell.
    pub(super) fn watch(sender: &Host, recording: &Recording, late: Duration, until: f64) -> Option<Self> {
        thread::sleep(late);
        // The control connection of iperf3 hardly ever uses its own.
        let is_busy = |(_, (acknowledged, _)): &(String, (u64, u64))| *acknowledged > BUSY;
        let promised: Edges = edges(sender)?.into_iter().filter(is_busy).collect();
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let bytes = promised.values().map(|(acknowledged, edge)| edge - acknowledged).sum::<u64>() as f64;
        loop {
            let now = edges(sender)?;
            let used_up = recording.now();
            let is_used_up = |(end, (_, edge)): (&String, &(u64, u64))| {
                // One that is closed uses nothing.
                now.get(end).is_none_or(|(acknowledged, _)| acknowledged >= edge)
            };
            if promised.iter().all(is_used_up) || used_up >= until {
                return Some(Self { bytes, used_up });
            }
            thread::sleep(STEP);
        }
    }
}

fn edges(sender: &Host) -> Option<Edges> {
    let mut ss = Process::spawn(sender.command("ss").args(["-tinHO"])).ok()?;
    ss.wait_timeout(PATIENCE).ok()?;
    Some(ss.stdout().lines().filter_map(edge).collect())
}

/// From a line of `ss -tinHO`.
fn edge(line: &str) -> Option<(String, (u64, u64))> {
    let mut words = line.split_ascii_whitespace();
    let end = words.nth(4)?.to_owned();
    let words: Vec<&str> = words.collect();
    let number = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
    let acknowledged = number("bytes_acked:").unwrap_or_default();
    Some((end, (acknowledged, acknowledged + number("snd_wnd:")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ss() {
        let line = "ESTAB 0 14480 10.0.2.2:5201 10.0.1.2:40912 cubic wscale:10,10 rto:224 bytes_sent:900 \
                    bytes_acked:700 segs_out:3 snd_wnd:65536";
        assert_eq!(edge(line), Some(("10.0.1.2:40912".to_owned(), (700, 66_236))));
        assert_eq!(edge("ESTAB 0 0 10.0.2.2:5201 10.0.1.2:40912 cubic"), None);
    }
}
