//! Limits by flow control alone, for who has no privilege: TCP, one's own processes, no packet lost.
//!
//! How is in [`flow`](super::flow). What it cannot hold it refuses: a block, a download below what the receive windows
//! of busy connections allow, and processes that ptrace(2) does not let us look into. That UDP is not covered, whoever
//! uses it has to say.

use chadthrottle_common::ThrottleStats;

use super::{
    DownloadThrottleBackend, Subject, Target, UploadThrottleBackend,
    flow::{Achievable, Counted, Direction, FlowError, SharedFlow, too_low},
};
use crate::{
    backends::{Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, Obstacle},
    process::ProcessError,
    sys::pidfd::PidFd,
};

/// Name on the command line.
pub const NAME: &str = "sockopt";
/// UDP passes it by.
pub const PRIORITY: BackendPriority = BackendPriority::Fallback;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities =
    BackendCapabilities { udp: false, shapes: true, ..BackendCapabilities::ALL_TRAFFIC };

/// One direction of it.
struct Limiter {
    flow: SharedFlow,
    options: BackendOptions,
    direction: Direction,
}

impl Limiter {
    fn new(options: &BackendOptions, flow: &SharedFlow, direction: Direction) -> Self {
        Self { flow: flow.clone(), options: options.clone(), direction }
    }

    fn set(&self, target: &Target, limit: u64) -> Result<(), BackendError> {
        let subject = &target.subject;
        if limit == 0 {
            let reason =
                "flow control slows connections down and cannot block them; a backend that drops packets \
                          can (sudo)"
                    .to_owned();
            return Err(unenforceable(subject, reason));
        }
        let before = self.flow.limit(subject, self.direction);
        let counted = Counted::new(&self.options, target.traffic);
        match self.flow.hold(target, self.direction, limit, &counted) {
            Ok(Achievable::Yes) => Ok(()),
            Ok(Achievable::AtLeast(floor)) => {
                // Back to what it was. If that fails the process has ended.
                let restored = before.map(|before| self.flow.hold(target, self.direction, before, &counted));
                if !matches!(restored, Some(Ok(_))) {
                    self.flow.release(subject, self.direction);
                }
                Err(unenforceable(subject, too_low(floor)))
            }
            Err(FlowError::Ended) => {
                Err(ProcessError::Absent(subject.process().map_or(0, |process| process.pid)).into())
            }
            Err(FlowError::Denied(reason)) => {
                Err(BackendError::Denied { backend: NAME, subject: subject.clone(), reason })
            }
            Err(FlowError::Kernel(error)) => {
                let step = "start its thread".to_owned();
                Err(BackendError::Kernel { backend: NAME, step, cause: error.into() })
            }
        }
    }

    fn stats(&self, subject: &Subject) -> ThrottleStats {
        let passed = self.flow.passed(subject, self.direction);
        ThrottleStats { bytes_total: passed.bytes, ..ThrottleStats::default() }
    }
}

fn unenforceable(subject: &Subject, reason: String) -> BackendError {
    BackendError::Unenforceable { backend: NAME, subject: subject.clone(), reason }
}

impl Drop for Limiter {
    /// Whatever ends us, short of SIGKILL, no socket stays as we set it.
    fn drop(&mut self) {
        self.flow.release_all(self.direction);
    }
}

/// Whether the kernel has what it takes. Changes nothing.
fn probe(options: &BackendOptions) -> Availability {
    if !options.interfaces.is_empty() {
        return Availability::Unavailable(Obstacle::Host {
            cause: "it cannot tell which interface a connection uses, as --interface asks for".into(),
            remedy: "leave that out, or use ebpf_cgroup, which needs root".into(),
        });
    }
    match PidFd::open(std::process::id().cast_signed()).and_then(|us| us.duplicate(0)) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOSYS) => {
            Availability::Unavailable(Obstacle::Host {
                cause: "this kernel has no pidfd_getfd".into(),
                remedy: "use Linux 5.6 or later".into(),
            })
        }
        // Whether there is a descriptor 0 is all the same.
        _ => Availability::Available,
    }
}

/// Upload limits.
pub struct SockoptUpload(Limiter);

impl SockoptUpload {
    /// A limiter on the flow control that all backends share.
    #[must_use]
    pub fn new(options: &BackendOptions, flow: &SharedFlow) -> Self {
        Self(Limiter::new(options, flow, Direction::Upload))
    }
}

impl UploadThrottleBackend for SockoptUpload {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        probe(options)
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn throttle_upload(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.0.set(target, limit)
    }

    fn remove_upload_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.0.flow.release(subject, Direction::Upload);
        Ok(())
    }

    fn get_upload_throttle(&self, subject: &Subject) -> Option<u64> {
        self.0.flow.limit(subject, Direction::Upload)
    }

    fn held_back(&self, subject: &Subject) -> Option<u64> {
        self.0.flow.held_back(subject)
    }

    fn upload_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        Ok(self.0.stats(subject))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.0.flow.release_all(Direction::Upload);
        Ok(())
    }
}

/// Download limits.
pub struct SockoptDownload(Limiter);

impl SockoptDownload {
    /// A limiter on the flow control that all backends share.
    #[must_use]
    pub fn new(options: &BackendOptions, flow: &SharedFlow) -> Self {
        Self(Limiter::new(options, flow, Direction::Download))
    }
}

impl DownloadThrottleBackend for SockoptDownload {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        probe(options)
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn throttle_download(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.0.set(target, limit)
    }

    fn remove_download_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.0.flow.release(subject, Direction::Download);
        Ok(())
    }

    fn get_download_throttle(&self, subject: &Subject) -> Option<u64> {
        self.0.flow.limit(subject, Direction::Download)
    }

    fn download_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        Ok(self.0.stats(subject))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.0.flow.release_all(Direction::Download);
        Ok(())
    }
}
