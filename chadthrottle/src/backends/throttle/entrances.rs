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

use super::{
    Target,
    carrying::carrying,
    filters::{self, Filters},
    notes,
};
use crate::{
    backends::{
        BackendError, BackendOptions,
        ebpf::{SharedEngine, has_links},
    },
    process::ProcessError,
    sys::{
        namespace,
        netlink::{Channel, Netlink},
    },
};

/// What we want to hear of: interfaces, addresses and routes.
const NOTICES: libc::c_int = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;

/// How often to look where notices cannot be heard.
const DEAF: Duration = Duration::from_secs(1);

/// The program at the entrance is attached as long as this is there.
pub(super) struct Entrances(Arc<Shared>);

struct Shared {
    backend: &'static str,
    options: BackendOptions,
    engine: SharedEngine,
    /// Until the end.
    way: Mutex<Option<Way>>,
}

/// How the program is attached.
struct Way {
    netlink: Netlink,
    /// Where the kernel has no links.
    filters: Option<Filters>,
}

impl Entrances {
    /// Attaches the program to all interfaces that there are, and to those that come.
    pub(super) fn open(
        backend: &'static str,
        options: &BackendOptions,
        engine: &SharedEngine,
    ) -> Result<Self, BackendError> {
        let failed = |step: &str| {
            let step = step.to_owned();
            move |cause: io::Error| BackendError::Kernel { backend, step, cause: cause.into() }
        };
        let netlink = Netlink::open(SockProtocol::NetlinkRoute).map_err(failed("list the interfaces"))?;
        let shared = Arc::new(Shared {
            backend,
            options: options.clone(),
            engine: engine.clone(),
            way: Mutex::new(Some(Way { netlink, filters: (!has_links()).then(Filters::default) })),
        });
        // From before we look on, so that nothing that comes is missed.
        let notices = Channel::open(SockProtocol::NetlinkRoute, NOTICES.cast_unsigned(), SockFlag::empty())
            .map_err(failed("hear of new interfaces"))?;
        let entrances = Self(shared);
        entrances.0.cover()?;
        let watched = Arc::downgrade(&entrances.0);
        thread::Builder::new()
            .name("entrances".into())
            .spawn(move || watch(&watched, notices))
            .map_err(failed("start its thread"))?;
        Ok(entrances)
    }
}

impl Drop for Entrances {
    /// The thread, which may be looking at the moment, attaches nothing any more afterwards.
    fn drop(&mut self) {
        let shared = &self.0;
        let way = shared.way.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Way { mut netlink, filters }) = way else { return };
        let left = shared.engine.with(shared.backend, &shared.options, |engine| {
            engine.leave_entrances();
            Ok(filters.map_or(Ok(()), |mut filters| filters.leave(&mut netlink))?)
        });
        if let Err(error) = left {
            log::error!("{error}");
        }
    }
}

impl Shared {
    fn cover(&self) -> Result<(), BackendError> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Way { netlink, filters }) = &mut *way else { return Ok(()) };
        let interfaces = carrying(netlink, &self.options);
        self.engine.with(self.backend, &self.options, |engine| match filters {
            Some(filters) => Ok(filters.cover(netlink, &interfaces?, engine.entrance_program()?)?),
            None => engine.watch_entrances(&interfaces?),
        })
    }
}

/// Looks at all interfaces again whenever something has changed, until nobody needs it any more.
fn watch(shared: &Weak<Shared>, mut notices: Channel) {
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
    let failed = |cause: io::Error| BackendError::Kernel {
        backend,
        step: "remove what a killed one left".to_owned(),
        cause: cause.into(),
    };
    notes::forget_gone_networks().map_err(failed)?;
    for leftover in filters::leftovers().map_err(failed)? {
        for line in leftover.describe() {
            log::info!("removing {line}");
        }
        leftover.remove().map_err(failed)?;
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
