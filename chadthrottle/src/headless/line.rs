//! A line of `monitor --json`. Rates are bytes a second over the interval, totals bytes since the start.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::connections::{Connected, JsonConnections};
use crate::stats::{Buckets, InterfaceTraffic, ProcessRow, Residual, Snapshot, Traffic};

/// One line.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    time: String,
    interval_s: f64,
    monitor: &'a str,
    processes: Vec<JsonProcess<'a>>,
    unattributed: JsonTotals,
    buckets: JsonBuckets,
    interfaces: Vec<JsonInterface<'a>>,
    lost_events: u64,
}

#[derive(Serialize)]
struct JsonProcess<'a> {
    pid: i32,
    start_time: u64,
    name: &'a str,
    exe: Option<String>,
    user: Option<&'a str>,
    cgroup: Option<&'a str>,
    container: Option<&'a str>,
    upload_bytes_per_s: u64,
    download_bytes_per_s: u64,
    upload_bytes_total: u64,
    download_bytes_total: u64,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
    upload_dropped_bytes_total: u64,
    download_dropped_bytes_total: u64,
    local: Option<JsonTotals>,
    interfaces: Vec<JsonPlace<'a>>,
    alive: bool,
    /// Left out where they were not asked for; null where they cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<JsonConnections>,
}

#[derive(Serialize)]
struct JsonTotals {
    upload_bytes_total: u64,
    download_bytes_total: u64,
}

/// What belongs to no process, by why it does not.
#[derive(Serialize)]
struct JsonBuckets {
    kernel: JsonTotals,
    replies: JsonTotals,
    unknown: JsonTotals,
    ended: JsonTotals,
    forwarded: JsonTotals,
}

/// A process's traffic on one interface.
#[derive(Serialize)]
struct JsonPlace<'a> {
    name: &'a str,
    #[serde(flatten)]
    totals: JsonTotals,
}

/// What an interface counted by itself, with link-layer headers, and what of it nobody is known for.
#[derive(Serialize)]
struct JsonInterface<'a> {
    name: &'a str,
    upload_bytes_total: u64,
    download_bytes_total: u64,
    residual_bytes: Option<i64>,
    upload_residual_bytes: Option<i64>,
    download_residual_bytes: Option<i64>,
    /// IP bytes as they travel.
    processes: JsonTotals,
    buckets: JsonBuckets,
}

impl<'a> Line<'a> {
    pub(super) fn new(
        monitor: &'a str,
        snapshot: &'a Snapshot,
        rows: impl Iterator<Item = &'a ProcessRow>,
        connected: Option<&Connected>,
    ) -> Self {
        Self {
            time: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            interval_s: snapshot.interval.as_secs_f64(),
            monitor,
            processes: rows.map(|row| JsonProcess::new(row, connected)).collect(),
            unattributed: snapshot.buckets.unattributed().into(),
            buckets: (&snapshot.buckets).into(),
            interfaces: snapshot.interfaces.iter().map(JsonInterface::new).collect(),
            lost_events: snapshot.lost_events,
        }
    }
}

impl<'a> JsonProcess<'a> {
    fn new(row: &'a ProcessRow, connected: Option<&Connected>) -> Self {
        let info = &row.info;
        Self {
            pid: info.id.pid,
            start_time: info.id.start_time,
            name: &info.name,
            exe: info.exe.as_ref().map(|exe| exe.to_string_lossy().into_owned()),
            user: info.user.as_deref(),
            cgroup: info.cgroup.as_deref(),
            container: info.container.as_deref(),
            upload_bytes_per_s: row.rate.upload,
            download_bytes_per_s: row.rate.download,
            upload_bytes_total: row.total.upload,
            download_bytes_total: row.total.download,
            // This form sets no limits, and those of other instances are theirs to tell.
            upload_limit: None,
            download_limit: None,
            upload_dropped_bytes_total: 0,
            download_dropped_bytes_total: 0,
            local: row.local.map(JsonTotals::from),
            interfaces: row.interfaces.iter().map(JsonPlace::new).collect(),
            alive: row.alive,
            connections: connected.map(|connected| connected.json(info.id)),
        }
    }
}

impl From<Traffic> for JsonTotals {
    fn from(traffic: Traffic) -> Self {
        Self { upload_bytes_total: traffic.upload, download_bytes_total: traffic.download }
    }
}

impl From<&Buckets> for JsonBuckets {
    fn from(buckets: &Buckets) -> Self {
        Self {
            kernel: buckets.kernel.into(),
            replies: buckets.replies.into(),
            unknown: buckets.unknown.into(),
            ended: buckets.ended.into(),
            forwarded: buckets.forwarded.into(),
        }
    }
}

impl<'a> JsonPlace<'a> {
    fn new((name, traffic): &'a (Arc<str>, Traffic)) -> Self {
        Self { name, totals: (*traffic).into() }
    }
}

impl<'a> JsonInterface<'a> {
    fn new(interface: &'a InterfaceTraffic) -> Self {
        let residual = interface.residual;
        Self {
            name: &interface.name,
            upload_bytes_total: interface.counted.upload,
            download_bytes_total: interface.counted.download,
            residual_bytes: residual.map(Residual::sum),
            upload_residual_bytes: residual.map(|residual| residual.upload),
            download_residual_bytes: residual.map(|residual| residual.download),
            processes: interface.processes.into(),
            buckets: (&interface.buckets).into(),
        }
    }
}
