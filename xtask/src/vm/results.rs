//! What a machine's console says of the test programs, and a table of it.

use std::{collections::BTreeSet, fmt::Write as _};

/// How the machine says that a test program has ended: name, exit status, seconds.
pub(super) const PROGRAM_ENDED: &str = "xtask-vm-ended:";
/// How tests say that they leave something out (`testbed::skip_unless`).
const SKIPPED: &str = "SKIPPED: no ";
/// What every harness prints at its end.
const TEST_RESULT: &str = "test result: ";

/// Statuses of what `timeout` ended: its own, and those of SIGTERM and SIGKILL, which busybox's passes on.
const OUT_OF_TIME: [i32; 3] = [124, 128 + 15, 128 + 9];

/// One test program in one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramResult {
    pub(super) name: String,
    /// As the shell has it.
    pub(super) status: i32,
    pub(super) seconds: u64,
    /// Tests, where it came so far as to say so.
    pub(super) counts: Option<(u32, u32)>,
    /// What the kernel lacks, so that something was left out.
    pub(super) lacks: BTreeSet<String>,
}

/// Collects them from lines.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) ended: Vec<ProgramResult>,
    running: ProgramResult,
}

impl Results {
    pub(super) fn take_line(&mut self, line: &str) {
        // A harness may be in the middle of its own line.
        if let Some((_, lacks)) = line.split_once(SKIPPED) {
            let feature = lacks.rsplit_once(" in Linux ").map_or(lacks, |(feature, _)| feature);
            self.running.lacks.insert(feature.to_owned());
        } else if let Some(counts) = line.strip_prefix(TEST_RESULT) {
            self.running.counts = counted(counts, "passed").zip(counted(counts, "failed"));
        } else if let Some(ended) = line.strip_prefix(PROGRAM_ENDED) {
            let words: Vec<_> = ended.split_ascii_whitespace().collect();
            let mut result = std::mem::take(&mut self.running);
            if let [name, status, seconds] = words[..] {
                // Cargo has put a hash after it.
                name.rsplit_once('-').map_or(name, |(name, _)| name).clone_into(&mut result.name);
                result.status = status.parse().unwrap_or(-1);
                result.seconds = seconds.parse().unwrap_or(0);
                self.ended.push(result);
            }
        }
    }
}

/// The number before a word.
fn counted(text: &str, word: &str) -> Option<u32> {
    let mut before = "";
    text.split_ascii_whitespace().find_map(|next| {
        let number = std::mem::replace(&mut before, next);
        (next.trim_end_matches([';', '.']) == word).then(|| number.parse().ok())?
    })
}

/// A row for each test program asked for, also those to which the machine did not come.
pub(super) fn rows(machine: &str, asked: &[String], results: &Results) -> String {
    let mut rows = String::new();
    for name in asked {
        let Some(result) = results.ended.iter().find(|result| result.name == *name) else {
            let _ = writeln!(rows, "| {machine} | {name} | NOT RUN | – | – |");
            continue;
        };
        let verdict = match result.status {
            0 => "passed",
            status if OUT_OF_TIME.contains(&status) => "OUT OF TIME",
            _ => "FAILED",
        };
        let counts = result
            .counts
            .map_or_else(|| "–".to_owned(), |(passed, failed)| format!("{passed} passed, {failed} failed"));
        let mut lacks: Vec<_> = result.lacks.iter().map(String::as_str).collect();
        if lacks.is_empty() {
            lacks.push("–");
        }
        let seconds = result.seconds;
        let _ = writeln!(
            rows,
            "| {machine} | {name} | {verdict} in {seconds} s | {counts} | {} |",
            lacks.join("; ")
        );
    }
    rows
}

/// What is above them.
pub(super) const TABLE_HEAD: &str = "| kernel, control groups | tests | result | tests | left out, since the kernel lacks it |\n\
     | --- | --- | --- | --- | --- |";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_becomes_rows() {
        let mut results = Results::default();
        for line in [
            "==> contract-0123 on Linux 6.1.0-56-cloud-amd64",
            "SKIPPED: no redirect from BPF to an IFB (bpf_redirect, Linux 6.4) in Linux 6.1.0-56-cloud-amd64",
            "test ebpf_cgroup::upload::a_limit_is_changed ... ok (9.1 s)",
            "test result: ok. 41 passed; 0 failed",
            "xtask-vm-ended: contract-0123 0 812",
            "test one ... SKIPPED: no tcx (Linux 6.6) in Linux 6.1.0-56-cloud-amd64",
            "ok",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s",
            "xtask-vm-ended: accounting-4567 101 20",
            "xtask-vm-ended: crash-89ab 143 900",
        ] {
            results.take_line(line);
        }
        let asked = ["contract", "accounting", "crash", "screen"].map(str::to_owned);
        assert_eq!(
            rows("6.1 unified", &asked, &results),
            "| 6.1 unified | contract | passed in 812 s | 41 passed, 0 failed | redirect from BPF to an IFB (bpf_redirect, Linux 6.4) |\n\
             | 6.1 unified | accounting | FAILED in 20 s | 3 passed, 2 failed | tcx (Linux 6.6) |\n\
             | 6.1 unified | crash | OUT OF TIME in 900 s | – | – |\n\
             | 6.1 unified | screen | NOT RUN | – | – |\n"
        );
    }
}
