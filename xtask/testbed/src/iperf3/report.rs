//! What an iperf3 client prints with `--json --get-server-output`, reduced to what was received.

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

use crate::{Interval, Timeline};

/// The outcome of one iperf3 client, as the receiver saw it: where the client sends, what it counts is what it wrote
/// into its socket, which says nothing about a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Iperf3Report {
    /// Bytes of payload that the receiving side got.
    pub received_bytes: u64,
    /// Bytes of payload that the sending side wrote to its sockets; some may not have arrived when it stopped.
    pub sent_bytes: u64,
    /// How long the receiver counted.
    pub seconds: f64,
    /// The receiver's intervals, summed over all flows.
    pub intervals: Timeline,
    /// TCP segments that were sent more than once; none for UDP.
    pub retransmits: Option<u64>,
    /// Datagrams that did not arrive, of those that the sender counted; none for TCP.
    pub lost_datagrams: Option<u64>,
    /// Bytes that each flow's receiver got, to see whether a limit is shared evenly.
    pub flows: Vec<u64>,
}

impl Iperf3Report {
    /// Reads the client's standard output.
    ///
    /// # Errors
    ///
    /// That iperf3 failed, with what it gave as the reason; or that this is not such an output.
    pub fn parse(json: &str) -> anyhow::Result<Self> {
        let client: Value =
            serde_json::from_str(json).with_context(|| format!("not iperf3's JSON: {json:?}"))?;
        if let Some(error) = client.get("error") {
            bail!("iperf3 failed: {error}");
        }
        let server =
            client.get("server_output_json").context("no server_output_json: has the server no --json?")?;
        let reverse = number(&client, "/start/test_start/reverse")? != 0.0;
        // Each side has intervals of its own only. The sums at the end are exchanged.
        let receiver = if reverse { &client } else { server };
        let sums = client.get("end").context("no end")?;
        Ok(Self {
            received_bytes: integer(sums, "/sum_received/bytes")?,
            sent_bytes: integer(sums, "/sum_sent/bytes")?,
            seconds: number(sums, "/sum_received/end")?,
            intervals: Timeline(
                array(receiver, "/intervals")?.iter().map(interval).collect::<Result<_, _>>()?,
            ),
            retransmits: sums.pointer("/sum_sent/retransmits").and_then(Value::as_u64),
            lost_datagrams: sums.pointer("/sum/lost_packets").and_then(Value::as_u64),
            flows: flows(receiver)?,
        })
    }

    /// Bytes that arrived after the first second: how a transfer begins is another question than how it goes on.
    #[must_use]
    pub fn bytes_after_first_second(&self) -> f64 {
        self.intervals.bytes_between(1.0, self.intervals.end())
    }

    /// Bytes per second after the first second.
    #[must_use]
    pub fn rate_after_first_second(&self) -> f64 {
        self.intervals.rate_after(1.0)
    }

    /// The most bytes that arrived within any second.
    #[must_use]
    pub fn max_second(&self) -> f64 {
        self.intervals.max_window(1.0)
    }
}

fn interval(value: &Value) -> anyhow::Result<Interval> {
    Ok(Interval {
        start: number(value, "/sum/start")?,
        end: number(value, "/sum/end")?,
        bytes: integer(value, "/sum/bytes")?,
    })
}

/// The receiver's bytes by flow, which only its intervals have for TCP and UDP alike.
fn flows(receiver: &Value) -> anyhow::Result<Vec<u64>> {
    let mut flows = Vec::new();
    for interval in array(receiver, "/intervals")? {
        for (flow, stream) in array(interval, "/streams")?.iter().enumerate() {
            flows.resize(flows.len().max(flow + 1), 0);
            flows[flow] += integer(stream, "/bytes")?;
        }
    }
    Ok(flows)
}

fn at<'a>(value: &'a Value, path: &str) -> anyhow::Result<&'a Value> {
    value.pointer(path).ok_or_else(|| anyhow!("iperf3's report has no {path}"))
}

fn array<'a>(value: &'a Value, path: &str) -> anyhow::Result<&'a Vec<Value>> {
    at(value, path)?.as_array().with_context(|| format!("{path} is no list"))
}

fn integer(value: &Value, path: &str) -> anyhow::Result<u64> {
    at(value, path)?.as_u64().with_context(|| format!("{path} is no count"))
}

fn number(value: &Value, path: &str) -> anyhow::Result<f64> {
    at(value, path)?.as_f64().with_context(|| format!("{path} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As iperf 3.12 prints it, without what is not read.
    fn output(reverse: u8) -> String {
        let intervals = |bytes: [u64; 2]| {
            serde_json::json!([
                {"streams": [{"bytes": bytes[0] - 1}, {"bytes": 1}], "sum": {"start": 0, "end": 1.5, "bytes": bytes[0]}},
                {"streams": [{"bytes": bytes[1] - 2}, {"bytes": 2}], "sum": {"start": 1.5, "end": 2, "bytes": bytes[1]}},
            ])
        };
        serde_json::json!({
            "start": {"test_start": {"reverse": reverse}},
            "intervals": intervals([900, 100]),
            "end": {"sum_sent": {"bytes": 1000, "end": 2, "retransmits": 7}, "sum_received": {"bytes": 800, "end": 2.1}},
            "server_output_json": {"intervals": intervals([600, 200])},
        })
        .to_string()
    }

    #[test]
    fn an_upload_is_counted_by_the_server() {
        let report = Iperf3Report::parse(&output(0)).unwrap();
        assert_eq!((report.received_bytes, report.sent_bytes, report.retransmits), (800, 1000, Some(7)));
        assert_eq!(report.intervals.bytes(), 800);
        assert_eq!(report.flows, [797, 3]);
        assert!((report.bytes_after_first_second() - 400.0).abs() < 1e-6);
        assert!((report.rate_after_first_second() - 400.0).abs() < 1e-6);
    }

    #[test]
    fn a_download_is_counted_by_the_client() {
        assert_eq!(Iperf3Report::parse(&output(1)).unwrap().intervals.bytes(), 1000);
    }

    #[test]
    fn a_failure_gives_its_reason() {
        let error = Iperf3Report::parse(r#"{"start": {}, "error": "unable to connect"}"#).unwrap_err();
        assert!(error.to_string().contains("unable to connect"), "{error}");
    }
}
