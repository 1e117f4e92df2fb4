//! One row a backend.

use super::Backends;
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendOptions, BackendPriority,
        monitor::MonitorBackend,
        throttle::{DownloadThrottleBackend, UploadThrottleBackend},
    },
    sys::capability::Capability,
};
// No row needs any in a build without backends.
#[cfg(any(
    feature = "monitor-ebpf",
    feature = "monitor-pnet",
    feature = "monitor-sock-diag",
    feature = "throttle-ebpf-cgroup",
    feature = "throttle-tc-police",
    feature = "throttle-sockopt",
    feature = "throttle-tc-htb",
    feature = "throttle-nftables",
    feature = "throttle-ifb-tc"
))]
use crate::sys::capability as cap;

/// A backend before it is made.
pub(super) struct Row<B: ?Sized> {
    pub(super) name: &'static str,
    pub(super) priority: BackendPriority,
    pub(super) capabilities: BackendCapabilities,
    /// How it knows whose a packet is, where that is not its own doing.
    pub(super) tagger: fn(&BackendOptions) -> Option<&'static str>,
    /// What it uses where it has it: what its probe asks for, and what it sees or does more by.
    pub(super) uses: &'static [Capability],
    pub(super) probe: fn(&BackendOptions) -> Availability,
    pub(super) create: fn(&Backends) -> Box<B>,
}

/// Those that load programs into the kernel.
#[cfg(any(
    feature = "monitor-ebpf",
    feature = "throttle-ebpf-cgroup",
    feature = "throttle-tc-police",
    all(feature = "ebpf", feature = "throttle-ifb-tc")
))]
const PROGRAMS: &[Capability] =
    &[cap::BPF, cap::PERFMON, cap::NET_ADMIN, cap::SYS_PTRACE, cap::DAC_READ_SEARCH, cap::SYS_NICE];
/// Those with a queue or a table: these, what tagging packets by programs takes, and what moving processes does whose
/// cgroup is another user's.
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
const QUEUES: &[Capability] = &[
    cap::NET_ADMIN,
    cap::SYS_PTRACE,
    cap::DAC_READ_SEARCH,
    cap::SYS_NICE,
    cap::BPF,
    cap::PERFMON,
    cap::DAC_OVERRIDE,
];
/// Those that read packets.
#[cfg(feature = "monitor-pnet")]
const PACKETS: &[Capability] = &[cap::NET_RAW, cap::NET_ADMIN, cap::SYS_PTRACE, cap::DAC_READ_SEARCH];
/// Those that need nothing for one's own processes, and these for everybody's.
#[cfg(any(
    feature = "monitor-sock-diag",
    feature = "throttle-sockopt",
    all(feature = "throttle-ifb-tc", not(feature = "ebpf"))
))]
const SOCKETS: &[Capability] = &[cap::NET_ADMIN, cap::SYS_PTRACE, cap::DAC_READ_SEARCH, cap::SYS_NICE];

/// The programs' own, in the socket.
#[cfg(any(feature = "throttle-ebpf-cgroup", feature = "throttle-tc-police"))]
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
            tagger: |_| None,
            uses: PROGRAMS,
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
            tagger: |_| None,
            uses: PACKETS,
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
            tagger: |_| None,
            uses: SOCKETS,
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
            tagger: |_| STORAGE,
            uses: PROGRAMS,
            probe: EbpfCgroupUpload::probe,
            create: |backends| {
                Box::new(EbpfCgroupUpload::new(&backends.options, &backends.engine, &backends.guarded_flow))
            },
        }
    },
    #[cfg(feature = "throttle-tc-htb")]
    {
        use crate::backends::throttle::{
            tagger::{self, Tagging},
            tc_htb::{CAPABILITIES, NAME, PRIORITY, TcHtbUpload},
        };
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: |options| Some(tagger::name(options, true)),
            uses: QUEUES,
            probe: TcHtbUpload::probe,
            create: |backends| {
                let tagging = Tagging::new(
                    &backends.options,
                    #[cfg(feature = "ebpf")]
                    &backends.engine,
                );
                Box::new(TcHtbUpload::new(&backends.options, &backends.flow_before_queues, tagging))
            },
        }
    },
    #[cfg(feature = "throttle-nftables")]
    {
        use crate::backends::throttle::nftables::{CAPABILITIES, NAME, NftablesUpload, PRIORITY};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: |options| Some(crate::backends::throttle::tagger::name(options, false)),
            uses: QUEUES,
            probe: NftablesUpload::probe,
            create: |backends| Box::new(NftablesUpload::new(&backends.options, &backends.flow_before_table)),
        }
    },
    #[cfg(feature = "throttle-sockopt")]
    {
        use crate::backends::throttle::sockopt::{CAPABILITIES, NAME, PRIORITY, SockoptUpload};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: |_| None,
            uses: SOCKETS,
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
            tagger: |_| STORAGE,
            uses: PROGRAMS,
            probe: EbpfCgroupDownload::probe,
            create: |backends| {
                Box::new(EbpfCgroupDownload::new(&backends.options, &backends.engine, &backends.guarded_flow))
            },
        }
    },
    #[cfg(feature = "throttle-ifb-tc")]
    {
        use crate::backends::throttle::ifb_tc::{self, CAPABILITIES, IfbTcDownload, NAME, PRIORITY};
        Row {
            name: NAME,
            priority: PRIORITY,
            capabilities: CAPABILITIES,
            tagger: |options| Some(ifb_tc::tagger(options)),
            #[cfg(feature = "ebpf")]
            uses: PROGRAMS,
            #[cfg(not(feature = "ebpf"))]
            uses: SOCKETS,
            probe: IfbTcDownload::probe,
            create: |backends| {
                Box::new(IfbTcDownload::new(
                    &backends.options,
                    #[cfg(feature = "ebpf")]
                    &backends.engine,
                    &backends.flow_before_queues,
                ))
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
            tagger: |_| STORAGE,
            uses: PROGRAMS,
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
            tagger: |_| None,
            uses: SOCKETS,
            probe: SockoptDownload::probe,
            create: |backends| Box::new(SockoptDownload::new(&backends.options, &backends.flow)),
        }
    },
];
