//! The entrances of all interfaces that a limit is for, as those come and go.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{SockFlag, SockProtocol},
};

#[cfg(feature = "ebpf")]
use super::filters::Filters;
use super::{Target, carrying::carrying, filters, notes};
#[cfg(feature = "ebpf")]
use crate::backends::ebpf::{SharedEngine, has_links};
use crate::{
    backends::{BackendError, BackendOptions},
    process::ProcessError,
    sys::{
        links::Link,
        namespace,
        netlink::{Channel, Netlink},
    },
};

/// What we want to hear of: interfaces, addresses and routes.
const NOTICES: libc::c_int = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;

/// How often to look where notices cannot be heard.
const DEAF: Duration = Duration::from_secs(1);

/// What stands at entrances: programs, or filters.
pub(super) trait Sentry: Send + 'static {
    /// Has it stand at the entrance of these interfaces, and of no others.
    fn cover(&mut self, netlink: &mut Netlink, interfaces: &[Link]) -> Result<(), BackendError>;
    /// Takes it away everywhere.
    fn leave(&mut self, netlink: &mut Netlink) -> Result<(), BackendError>;
}

/// It stands there as long as this is there.
pub(super) struct Entrances<S: Sentry>(Arc<Shared<S>>);

struct Shared<S> {
    backend: &'static str,
    options: BackendOptions,
    /// Until the end.
    way: Mutex<Option<Way<S>>>,
}

struct Way<S> {
    netlink: Netlink,
    sentry: S,
}

impl<S: Sentry> Entrances<S> {
    /// Has it stand at all interfaces that there are, and at those that come.
    pub(super) fn open(
        backend: &'static str,
        options: &BackendOptions,
        sentry: S,
    ) -> Result<Self, BackendError> {
        let netlink =
            Netlink::open(SockProtocol::NetlinkRoute).map_err(failed(backend, "list the interfaces"))?;
        let way = Mutex::new(Some(Way { netlink, sentry }));
        let shared = Arc::new(Shared { backend, options: options.clone(), way });
        // From before we look on, so that nothing that comes is missed.
        let notices = Channel::open(SockProtocol::NetlinkRoute, NOTICES.cast_unsigned(), SockFlag::empty())
            .map_err(failed(backend, "hear of new interfaces"))?;
        let entrances = Self(shared);
        entrances.0.cover()?;
        let watched = Arc::downgrade(&entrances.0);
        thread::Builder::new()
            .name("entrances".into())
            .spawn(move || watch(&watched, notices))
            .map_err(failed(backend, "start its thread"))?;
        Ok(entrances)
    }

    /// Changes what stands there.
    #[cfg(feature = "throttle-ifb-tc")]
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut S, &mut Netlink) -> T) -> Option<T> {
        let mut way = self.0.way.lock().unwrap_or_else(PoisonError::into_inner);
        way.as_mut().map(|Way { netlink, sentry }| work(sentry, netlink))
    }
}

impl<S: Sentry> Drop for Entrances<S> {
    /// The thread, which may be looking at the moment, changes nothing any more afterwards.
    fn drop(&mut self) {
        let way = self.0.way.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Way { mut netlink, mut sentry }) = way
            && let Err(error) = sentry.leave(&mut netlink)
        {
            log::error!("{error}");
        }
    }
}

impl<S: Sentry> Shared<S> {
    fn cover(&self) -> Result<(), BackendError> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Way { netlink, sentry }) = &mut *way else { return Ok(()) };
        let interfaces =
            carrying(netlink, &self.options).map_err(failed(self.backend, "list the interfaces"))?;
        sentry.cover(netlink, &interfaces)
    }
}

fn failed(backend: &'static str, step: &str) -> impl FnOnce(io::Error) -> BackendError {
    let step = step.to_owned();
    move |cause| BackendError::Kernel { backend, step, cause: cause.into() }
}

/// The program at the entrance: by links that go with us, or as a filter.
#[cfg(feature = "ebpf")]
pub(super) struct Program {
    backend: &'static str,
    options: BackendOptions,
    engine: SharedEngine,
    /// Where the kernel has no links.
    filters: Option<Filters>,
}

#[cfg(feature = "ebpf")]
impl Program {
    pub(super) fn new(backend: &'static str, options: &BackendOptions, engine: &SharedEngine) -> Self {
        let filters = (!has_links()).then(|| Filters::of(&filters::PROGRAM));
        Self { backend, options: options.clone(), engine: engine.clone(), filters }
    }
}

#[cfg(feature = "ebpf")]
impl Sentry for Program {
    fn cover(&mut self, netlink: &mut Netlink, interfaces: &[Link]) -> Result<(), BackendError> {
        let filters = &mut self.filters;
        self.engine.with(self.backend, &self.options, |engine| match filters {
            Some(filters) => {
                let program = engine.entrance_program()?;
                Ok(filters.cover(netlink, interfaces, &|netlink, index| {
                    filters::add_program(netlink, index, program)
                })?)
            }
            None => engine.watch_entrances(interfaces),
        })
    }

    fn leave(&mut self, netlink: &mut Netlink) -> Result<(), BackendError> {
        let filters = self.filters.take();
        self.engine.with(self.backend, &self.options, |engine| {
            engine.leave_entrances();
            Ok(filters.map_or(Ok(()), |mut filters| filters.leave(netlink))?)
        })
    }
}

/// Looks at all interfaces again whenever something has changed, until nobody needs it any more.
fn watch<S: Sentry>(shared: &Weak<Shared<S>>, mut notices: Channel) {
    let (mut has_failed, mut is_deaf) = (false, false);
    loop {
        let has_news = match notices.receive() {
            // After some seconds without news: what failed before is tried again.
            Ok(None) => has_failed,
            // More than fit: all the more reason to look.
            Ok(Some(_)) | Err(Errno::ENOBUFS) => true,
            Err(error) => {
                if !is_deaf {
                    log::warn!("new interfaces may be seen late: {error}");
                }
                is_deaf = true;
                thread::sleep(DEAF);
                true
            }
        };
        let Some(shared) = shared.upgrade() else { return };
        if !has_news {
            continue;
        }
        match shared.cover() {
            Ok(()) => has_failed = false,
            Err(error) => {
                if !has_failed {
                    log::warn!("what arrives by some interface is not limited: {error}");
                }
                has_failed = true;
            }
        }
    }
}

/// Removes the filters that killed ones of us left.
pub(super) fn remove_leftovers(backend: &'static str) -> Result<(), BackendError> {
    let failed = || failed(backend, "remove what a killed one left");
    notes::forget_gone_networks().map_err(failed())?;
    for leftover in filters::leftovers().map_err(failed())? {
        for line in leftover.describe() {
            log::info!("removing {line}");
        }
        leftover.remove().map_err(failed())?;
    }
    Ok(())
}

/// Refuses who is in another network namespace: what arrives there is not seen here.
pub(super) fn check_network(backend: &'static str, target: &Target) -> Result<(), BackendError> {
    let Some(process) = target.subject.process() else { return Ok(()) };
    match namespace::shares_network(process.pid) {
        Ok(true) => Ok(()),
        Ok(false) => Err(BackendError::Unenforceable {
            backend,
            subject: target.subject.clone(),
            reason:
                "it is in another network namespace, which has interfaces of its own; run chadthrottle there \
                     (`nsenter --net=/proc/PID/ns/net`), or use ebpf_cgroup"
                    .to_owned(),
        }),
        Err(error) => Err(ProcessError::of_looking(process.pid, error).into()),
    }
}
