//! Several limits at once, of one program: the library's own, in the network of the bed's client.

use chadthrottle::backends::{
    BackendOptions,
    ebpf::SharedEngine,
    throttle::{
        Subject, Target, ThrottleManager, TrafficType,
        ebpf_cgroup::{EbpfCgroupDownload, EbpfCgroupUpload},
        flow::SharedFlow,
        manager::{LimitedTarget, Limits},
    },
};
use testbed::Testbed;

/// Limits on the bed's client.
pub(crate) struct Inside<'a> {
    bed: &'a Testbed,
    manager: ThrottleManager,
}

impl<'a> Inside<'a> {
    /// The programs alone, without flow control in front: it leaves limits of single interfaces to them.
    pub(crate) fn alone(bed: &'a Testbed) -> anyhow::Result<Self> {
        let interfaces = bed.client().interfaces().iter().map(|&name| name.to_owned()).collect();
        Self::new(bed, BackendOptions { interfaces, ..BackendOptions::default() })
    }

    /// With flow control.
    pub(crate) fn with_flow(bed: &'a Testbed) -> anyhow::Result<Self> {
        Self::new(bed, BackendOptions::default())
    }

    fn new(bed: &'a Testbed, options: BackendOptions) -> anyhow::Result<Self> {
        let options = BackendOptions { cgroup_root: Some(bed.cgroup_root().to_owned()), ..options };
        let manager = bed.client().run(|| {
            let (engine, flow) = (SharedEngine::default(), SharedFlow::default());
            let upload = EbpfCgroupUpload::new(&options, &engine, &flow);
            let download = EbpfCgroupDownload::new(&options, &engine, &flow);
            Ok(ThrottleManager::new(Box::new(upload), Some(Box::new(download)))?)
        })?;
        Ok(Self { bed, manager })
    }

    /// Sets the limits of a subject to these, or takes them away.
    pub(crate) fn set(
        &mut self,
        subject: &Subject,
        upload: Option<u64>,
        download: Option<u64>,
    ) -> anyhow::Result<()> {
        let target = Target { subject: subject.clone(), name: "it".into(), traffic: TrafficType::All };
        let manager = &mut self.manager;
        self.bed.client().run(|| Ok(manager.throttle_process(&target, Limits { upload, download })?))
    }

    /// What has become of the only limit.
    pub(crate) fn figures(&self) -> anyhow::Result<LimitedTarget> {
        let mut limited = self.manager.limited()?;
        anyhow::ensure!(limited.len() == 1, "{limited:?}");
        Ok(limited.remove(0))
    }
}
