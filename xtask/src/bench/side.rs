//! What iperf3 says of its connections.

use anyhow::Context;
use serde_json::Value;

/// One end of them.
pub(super) struct Side<'a> {
    intervals: Vec<&'a Value>,
}

impl<'a> Side<'a> {
    pub(super) fn new(report: &'a Value, is_client: bool) -> Self {
        let side = if is_client { report } else { &report["server_output_json"] };
        Self { intervals: side["intervals"].as_array().map(|all| all.iter().collect()).unwrap_or_default() }
    }

    fn between(&self, from: f64, to: f64) -> impl Iterator<Item = &&'a Value> {
        self.intervals.iter().filter(move |interval| {
            let at = |what: &str| interval["sum"][what].as_f64().unwrap_or_default();
            at("start") >= from && at("end") <= to
        })
    }

    /// Segments that were sent again.
    pub(super) fn retransmits(&self, from: f64, to: f64) -> Option<f64> {
        let counts: Option<Vec<f64>> =
            self.between(from, to).map(|interval| interval["sum"]["retransmits"].as_f64()).collect();
        counts
            .filter(|counts| !counts.is_empty())
            .map(|counts| counts.iter().fold(0.0, |sum, count| sum + count))
    }

    /// Bytes of payload.
    pub(super) fn bytes(&self, from: f64, to: f64) -> f64 {
        self.between(from, to).filter_map(|interval| interval["sum"]["bytes"].as_f64()).sum()
    }

    /// The mean, in milliseconds.
    pub(super) fn round_trip(&self, from: f64, to: f64) -> Option<f64> {
        let streams = self.between(from, to).filter_map(|interval| interval["streams"].as_array()).flatten();
        let trips: Vec<f64> =
            streams.filter_map(|stream| stream["rtt"].as_f64()).map(|rtt| rtt / 1e3).collect();
        #[expect(clippy::cast_precision_loss, reason = "some thousand")]
        let mean = trips.iter().sum::<f64>() / trips.len() as f64;
        (!trips.is_empty()).then_some(mean)
    }

    /// Jain's index over the flows.
    pub(super) fn fairness(&self, from: f64, to: f64) -> Option<f64> {
        let mut flows: Vec<f64> = Vec::new();
        for interval in self.between(from, to) {
            for (number, stream) in interval["streams"].as_array()?.iter().enumerate() {
                flows.resize(flows.len().max(number + 1), 0.0);
                flows[number] += stream["bytes"].as_f64()?;
            }
        }
        jain(&flows)
    }
}

/// Jain's index: 1 where all get the same, 1/n where one gets everything.
pub(super) fn jain(shares: &[f64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "some dozen")]
    let count = shares.len() as f64;
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
    (squares > 0.0).then(|| sum * sum / (count * squares))
}

/// The report of a client.
pub(super) fn parse(stdout: &str) -> anyhow::Result<Value> {
    let report: Value = serde_json::from_str(stdout).context("iperf3 printed no report")?;
    anyhow::ensure!(report["error"].is_null(), "iperf3 failed: {}", report["error"]);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_is_one_where_all_get_the_same() {
        assert_eq!(jain(&[2.0, 2.0]), Some(1.0));
        assert_eq!(jain(&[2.0, 0.0]), Some(0.5));
        assert_eq!(jain(&[]), None);
    }
}
