//! What a monitor has counted, as it goes through the socket.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    process::{ProcessId, ProcessInfo},
    stats::{Buckets, InterfaceTraffic, ProcessTraffic, Residual, Sample, Traffic},
};

/// A [`Sample`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireSample {
    processes: Vec<WireProcess>,
    buckets: WireBuckets,
    interfaces: Vec<WireInterface>,
    lost_events: u64,
}

/// Bytes sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Both(u64, u64);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireProcess {
    pid: i32,
    start_time: u64,
    name: String,
    /// What is not UTF-8 is replaced.
    exe: Option<String>,
    user: Option<String>,
    cgroup: Option<String>,
    /// Daemons of before say nothing of it.
    #[serde(default)]
    container: Option<String>,
    total: Both,
    local: Option<Both>,
    interfaces: Vec<(String, Both)>,
    alive: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WireBuckets {
    kernel: Both,
    replies: Both,
    unknown: Both,
    ended: Both,
    forwarded: Both,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireInterface {
    name: String,
    counted: Both,
    processes: Both,
    buckets: WireBuckets,
    residual: Option<(i64, i64)>,
}

impl From<Traffic> for Both {
    fn from(Traffic { upload, download }: Traffic) -> Self {
        Self(upload, download)
    }
}

impl From<Both> for Traffic {
    fn from(Both(upload, download): Both) -> Self {
        Self { upload, download }
    }
}

impl From<Buckets> for WireBuckets {
    fn from(Buckets { kernel, replies, unknown, ended, forwarded }: Buckets) -> Self {
        Self {
            kernel: kernel.into(),
            replies: replies.into(),
            unknown: unknown.into(),
            ended: ended.into(),
            forwarded: forwarded.into(),
        }
    }
}

impl From<WireBuckets> for Buckets {
    fn from(WireBuckets { kernel, replies, unknown, ended, forwarded }: WireBuckets) -> Self {
        Self {
            kernel: kernel.into(),
            replies: replies.into(),
            unknown: unknown.into(),
            ended: ended.into(),
            forwarded: forwarded.into(),
        }
    }
}

impl From<&Sample> for WireSample {
    fn from(sample: &Sample) -> Self {
        let process = |traffic: &ProcessTraffic| {
            let ProcessInfo { id, name, exe, user, cgroup, container } = traffic.info.as_ref();
            WireProcess {
                pid: id.pid,
                start_time: id.start_time,
                name: name.clone(),
                exe: exe.as_ref().map(|exe| exe.to_string_lossy().into_owned()),
                user: user.clone(),
                cgroup: cgroup.clone(),
                container: container.clone(),
                total: traffic.total.into(),
                local: traffic.local.map(Both::from),
                interfaces: traffic
                    .interfaces
                    .iter()
                    .map(|(name, bytes)| (name.as_ref().to_owned(), (*bytes).into()))
                    .collect(),
                alive: traffic.alive,
            }
        };
        let interface = |interface: &InterfaceTraffic| WireInterface {
            name: interface.name.as_ref().to_owned(),
            counted: interface.counted.into(),
            processes: interface.processes.into(),
            buckets: interface.buckets.into(),
            residual: interface.residual.map(|residual| (residual.upload, residual.download)),
        };
        Self {
            processes: sample.processes.values().map(process).collect(),
            buckets: sample.buckets.into(),
            interfaces: sample.interfaces.iter().map(interface).collect(),
            lost_events: sample.lost_events,
        }
    }
}

impl From<WireSample> for Sample {
    fn from(wire: WireSample) -> Self {
        let process = |process: WireProcess| {
            let id = ProcessId { pid: process.pid, start_time: process.start_time };
            let info = ProcessInfo {
                id,
                name: process.name,
                exe: process.exe.map(Into::into),
                user: process.user,
                cgroup: process.cgroup,
                container: process.container,
            };
            let interfaces = process.interfaces.into_iter();
            let traffic = ProcessTraffic {
                info: Arc::new(info),
                total: process.total.into(),
                local: process.local.map(Traffic::from),
                interfaces: interfaces.map(|(name, bytes)| (name.into(), bytes.into())).collect(),
                alive: process.alive,
            };
            (id, traffic)
        };
        let interface = |interface: WireInterface| InterfaceTraffic {
            name: interface.name.into(),
            counted: interface.counted.into(),
            processes: interface.processes.into(),
            buckets: interface.buckets.into(),
            residual: interface.residual.map(|(upload, download)| Residual { upload, download }),
        };
        Self {
            processes: wire.processes.into_iter().map(process).collect(),
            buckets: wire.buckets.into(),
            interfaces: wire.interfaces.into_iter().map(interface).collect(),
            lost_events: wire.lost_events,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::daemon) fn sample() -> Sample {
        let id = ProcessId { pid: 7, start_time: 9 };
        let info = ProcessInfo {
            id,
            name: "curl".into(),
            exe: Some("/usr/bin/curl".into()),
            user: Some("ada".into()),
            cgroup: None,
            container: Some("web".into()),
        };
        let traffic = Traffic { upload: 500, download: 70 };
        let process = ProcessTraffic {
            local: Some(Traffic { upload: 1, download: 2 }),
            interfaces: vec![("eth0".into(), traffic)],
            ..ProcessTraffic::new(Arc::new(info), traffic, true)
        };
        let interface = InterfaceTraffic {
            name: "eth0".into(),
            counted: Traffic { upload: 600, download: 90 },
            processes: traffic,
            residual: Some(Residual { upload: -3, download: 4 }),
            ..InterfaceTraffic::default()
        };
        Sample {
            processes: [(id, process)].into(),
            buckets: Buckets { kernel: Traffic { upload: 11, download: 0 }, ..Buckets::default() },
            interfaces: vec![interface],
            lost_events: 5,
        }
    }

    #[test]
    fn a_sample_comes_through_as_it_was() -> anyhow::Result<()> {
        let text = serde_json::to_string(&WireSample::from(&sample()))?;
        assert_eq!(Sample::from(serde_json::from_str::<WireSample>(&text)?), sample());
        Ok(())
    }
}
