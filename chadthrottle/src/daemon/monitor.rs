//! The daemon's figures as those of a monitor of our own.

use super::client::{Client, DaemonError};
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, Obstacle,
        monitor::MonitorBackend,
    },
    process::ProcessId,
    stats::{Buckets, Sample, Traffic},
};

/// What it is called where nobody says who counts.
const NAME: &str = "daemon";

/// Asks a daemon for what it has counted. Totals are since the first time that it was asked.
pub struct RemoteMonitor {
    client: Client,
    name: &'static str,
    first: Option<Sample>,
}

impl RemoteMonitor {
    /// Asks this one.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let name = client.daemon.monitor.as_deref().map_or(NAME, crate::backends::registry::known_name);
        Self { client, name, first: None }
    }
}

impl MonitorBackend for RemoteMonitor {
    fn name(&self) -> &'static str {
        self.name
    }

    fn priority(&self) -> BackendPriority {
        BackendPriority::Best
    }

    fn probe(_: &BackendOptions) -> Availability {
        Availability::Unavailable(Obstacle::Host {
            cause: "it is a daemon's".into(),
            remedy: "it is used by itself where a daemon runs".into(),
        })
    }

    fn capabilities(&self) -> BackendCapabilities {
        crate::backends::registry::capabilities_of(self.name)
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn update(&mut self) -> Result<Sample, BackendError> {
        let sample = self.client.sample().map_err(|error| failed("read the daemon's figures", error))?;
        let first = self.first.get_or_insert_with(|| sample.clone());
        Ok(since(sample, first))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

/// What a daemon did not do, as a backend says it.
pub(super) fn failed(step: &str, error: DaemonError) -> BackendError {
    BackendError::Kernel { backend: NAME, step: step.to_owned(), cause: error.into() }
}

/// What has come since the first sample. Who is in it with nothing since stays: it is somebody who uses the network.
fn since(mut sample: Sample, first: &Sample) -> Sample {
    for (id, process) in &mut sample.processes {
        let Some(before) = first.processes.get(id) else { continue };
        process.total = process.total.since(before.total);
        process.local = process.local.zip(before.local).map(|(now, before)| now.since(before));
        for (name, traffic) in &mut process.interfaces {
            let before = before.interfaces.iter().find(|(known, _)| known == name);
            *traffic = before.map_or(*traffic, |(_, before)| traffic.since(*before));
        }
    }
    sample.buckets = buckets_since(sample.buckets, first.buckets);
    // Who is listed no more has gone into that sum with all that it had, what came before the first sample included.
    let unlisted = first.processes.iter().filter(|(id, _)| !sample.processes.contains_key(id));
    let before = unlisted.fold(Traffic::default(), |sum, (_, process)| sum.plus(process.total));
    sample.buckets.ended = sample.buckets.ended.since(before);
    // Who had ended by then has nothing to do with what came since.
    let had_ended = |id: &ProcessId| first.processes.get(id).is_some_and(|before| !before.alive);
    sample.processes.retain(|id, process| process.total.sum() > 0 || !had_ended(id));
    for interface in &mut sample.interfaces {
        let Some(before) = first.interfaces.iter().find(|before| before.name == interface.name) else {
            continue;
        };
        interface.counted = interface.counted.since(before.counted);
        interface.processes = interface.processes.since(before.processes);
        interface.buckets = buckets_since(interface.buckets, before.buckets);
        if let (Some(now), Some(before)) = (&mut interface.residual, before.residual) {
            now.upload -= before.upload;
            now.download -= before.download;
        }
    }
    sample.lost_events = sample.lost_events.saturating_sub(first.lost_events);
    sample
}

fn buckets_since(now: Buckets, before: Buckets) -> Buckets {
    let since = |now: Traffic, before: Traffic| now.since(before);
    Buckets {
        kernel: since(now.kernel, before.kernel),
        replies: since(now.replies, before.replies),
        unknown: since(now.unknown, before.unknown),
        ended: since(now.ended, before.ended),
        forwarded: since(now.forwarded, before.forwarded),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{daemon::sample::tests::sample, process::ProcessInfo, stats::ProcessTraffic};

    #[test]
    fn what_came_before_the_first_sample_is_in_no_total() {
        let mut first = sample();
        let gone = ProcessId { pid: 8, start_time: 1 };
        let info = ProcessInfo {
            id: gone,
            name: "gone".into(),
            exe: None,
            user: None,
            cgroup: None,
            container: None,
        };
        let had = Traffic { upload: 1000, download: 1 };
        first.processes.insert(gone, ProcessTraffic::new(Arc::new(info), had, false));
        let mut now = sample();
        for process in now.processes.values_mut() {
            process.total.upload += 30;
            process.interfaces[0].1.upload += 30;
        }
        now.interfaces[0].counted.upload += 40;
        // It is listed no more, and had 5 bytes more by then.
        now.buckets.ended = Traffic { upload: 1005, download: 1 };
        let since = since(now, &first);
        let process = since.processes.values().next().expect("it is listed");
        assert_eq!(process.total, Traffic { upload: 30, download: 0 });
        assert_eq!(process.interfaces[0].1, Traffic { upload: 30, download: 0 });
        assert_eq!(since.interfaces[0].counted, Traffic { upload: 40, download: 0 });
        assert_eq!(since.buckets.ended, Traffic { upload: 5, download: 0 });
        assert_eq!((since.buckets.kernel, since.lost_events), (Traffic::default(), 0));
    }
}
