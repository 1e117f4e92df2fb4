//! One row a backend.

use super::Backends;
use crate::backends::{
    Availability, BackendCapabilities, BackendOptions, BackendPriority,
    monitor::MonitorBackend,
    throttle::{DownloadThrottleBackend, UploadThrottleBackend},
};

/// A backend before it is made.
pub(super) struct Row<B: ?Sized> {
    pub(super) name: &'static str,
    pub(super) priority: BackendPriority,
    pub(super) capabilities: BackendCapabilities,
    /// How it knows whose a packet is, where that is not its own doing.
    pub(super) tagger: Option<&'static str>,
    pub(super) probe: fn(&BackendOptions) -> Availability,
    pub(super) create: fn(&Backends) -> Box<B>,
}

/// The programs' own, in the socket.
#[cfg(any(feature = "throttle-ebpf-cgroup", feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
const STORAGE: Option<&str> = Some("socket storage (eBPF)");

/// Monitors.
pub(super) const MONITORS: &[Row<dyn MonitorBackend>] = &[
    #[cfg(feature = "monitor-ebpf")]
    {
        use crate::backends::monitor::ebpf::{CAPABILITIES, EbpfMonitor, NAME, PRIORITY};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: None,
            probe: EbpfMonitor::probe,
            create: |backends| Box::new(EbpfMonitor::new(&backends.options, &backends.engine)),
        }
    },
    #[cfg(feature = "monitor-pnet")]
    {
        use crate::backends::monitor::pnet::{CAPABILITIES, NAME, PRIORITY, PnetMonitor};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: None,
            probe: PnetMonitor::probe,
            create: |backends| Box::new(PnetMonitor::new(&backends.options)),
        }
    },
    #[cfg(feature = "monitor-sock-diag")]
    {
        use crate::backends::monitor::sock_diag::{CAPABILITIES, NAME, PRIORITY, SockDiagMonitor};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: None,
            probe: SockDiagMonitor::probe,
            create: |backends| Box::new(SockDiagMonitor::new(&backends.options)),
        }
    },
];

/// Upload limiters.
pub(super) const UPLOADS: &[Row<dyn UploadThrottleBackend>] = &[
    #[cfg(feature = "throttle-ebpf-cgroup")]
    {
        use crate::backends::throttle::ebpf_cgroup::{CAPABILITIES, EbpfCgroupUpload, NAME, PRIORITY};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: STORAGE,
            probe: EbpfCgroupUpload::probe,
            create: |backends| {
                Box::new(EbpfCgroupUpload::new(&backends.options, &backends.engine, &backends.guarded_flow))
            },
        }
    },
    #[cfg(feature = "throttle-tc-htb")]
    {
        use crate::backends::throttle::tc_htb::{CAPABILITIES, NAME, PRIORITY, TcHtbUpload};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: Some(crate::backends::throttle::tagger::SocketTagger::NAME),
            probe: TcHtbUpload::probe,
            create: |backends| Box::new(TcHtbUpload::new(&backends.options, &backends.flow_in_front)),
        }
    },
    #[cfg(feature = "throttle-nftables")]
    {
        use crate::backends::throttle::nftables::{CAPABILITIES, NAME, NftablesUpload, PRIORITY};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: Some(crate::backends::throttle::tagger::SocketTagger::NAME),
            probe: NftablesUpload::probe,
            create: |backends| Box::new(NftablesUpload::new(&backends.options, &backends.flow_in_front)),
        }
    },
    #[cfg(feature = "throttle-sockopt")]
    {
        use crate::backends::throttle::sockopt::{CAPABILITIES, NAME, PRIORITY, SockoptUpload};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: None,
            probe: SockoptUpload::probe,
            create: |backends| Box::new(SockoptUpload::new(&backends.options, &backends.flow)),
        }
    },
];

/// Download limiters.
pub(super) const DOWNLOADS: &[Row<dyn DownloadThrottleBackend>] = &[
    #[cfg(feature = "throttle-ebpf-cgroup")]
    {
        use crate::backends::throttle::ebpf_cgroup::{CAPABILITIES, EbpfCgroupDownload, NAME, PRIORITY};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: STORAGE,
            probe: EbpfCgroupDownload::probe,
            create: |backends| {
                Box::new(EbpfCgroupDownload::new(&backends.options, &backends.engine, &backends.guarded_flow))
            },
        }
    },
    #[cfg(feature = "throttle-ifb-tc")]
    {
        use crate::backends::throttle::ifb_tc::{CAPABILITIES, IfbTcDownload, NAME, PRIORITY};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: STORAGE,
            probe: IfbTcDownload::probe,
            create: |backends| {
                Box::new(IfbTcDownload::new(&backends.options, &backends.engine, &backends.flow_in_front))
            },
        }
    },
    #[cfg(feature = "throttle-tc-police")]
    {
        use crate::backends::throttle::tc_police::{CAPABILITIES, NAME, PRIORITY, TcPoliceDownload};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: STORAGE,
            probe: TcPoliceDownload::probe,
            create: |backends| {
                Box::new(TcPoliceDownload::new(&backends.options, &backends.engine, &backends.guarded_flow))
            },
        }
    },
    #[cfg(feature = "throttle-sockopt")]
    {
        use crate::backends::throttle::sockopt::{CAPABILITIES, NAME, PRIORITY, SockoptDownload};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: None,
            probe: SockoptDownload::probe,
            create: |backends| Box::new(SockoptDownload::new(&backends.options, &backends.flow)),
        }
    },
];
