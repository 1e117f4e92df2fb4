//! The forms of the program without a screen.

mod by_daemon;
pub mod cleanup;
pub mod command;
mod connections;
pub mod daemon;
pub mod demo;
pub mod doctor;
pub mod history;
pub mod limit;
mod line;
pub mod list;
pub mod monitor;
pub mod rules;
pub mod screen;
pub mod status;

use std::{
    fmt,
    io::{self, Write},
};

use crate::{
    backends::{
        BackendError, Obstacle,
        registry::{Backends, NO_BACKEND, Wanted, used_capabilities},
        throttle::{DownloadThrottleBackend, UploadThrottleBackend, manager::Limits},
    },
    sys::capability::{self, Capability},
};

/// Says something about the work. Where nobody can be told any more it is done all the same.
pub(crate) fn tell(words: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "chadthrottle: {words}");
}

/// What went wrong of several things that have all been done: the first is returned, and others are told of.
fn all_of(results: impl IntoIterator<Item = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut errors = results.into_iter().filter_map(Result::err);
    let first = errors.next();
    for error in errors {
        tell(format_args!("{error:#}"));
    }
    first.map_or(Ok(()), Err)
}

/// Gives up every capability that neither the backends of these names use (all that there are, where no name is given), nor
/// whoever uses `more`. To be called while there is one thread: each has its own.
///
/// Without `CAP_SYS_PTRACE` nothing is given up: the kernel lets nobody look at a process that may do more than they may
/// (`cap_ptrace_access_check`, security/commoncap.c), as the command of `run` may.
fn give_up_others(names: &[&str], more: &[Capability]) {
    if capability::first_missing(&[capability::SYS_PTRACE]).is_some() {
        return;
    }
    let mut wanted = used_capabilities(names);
    wanted.extend(more);
    // It works with more, too.
    if let Err(error) = capability::keep(&wanted) {
        log::warn!("privileges that nobody needs are kept: {error}");
    }
}

/// The names of these backends.
fn names((upload, download): &Throttles) -> Vec<&'static str> {
    [upload.name()].into_iter().chain(download.as_ref().map(|download| download.name())).collect()
}

/// The backends that would hold these limits, chosen but not made ready: nothing in the kernel has changed.
fn select_throttles(backends: &Backends, wanted: &Wanted, limits: Limits) -> anyhow::Result<Throttles> {
    let upload = backends.select_upload_backend(wanted.upload.as_deref())?;
    let download = backends.select_download_backend(wanted.download.as_deref())?;
    if limits.download.is_some() && download.is_none() {
        let asked_for = wanted.download.as_deref() == Some(NO_BACKEND);
        let cause =
            if asked_for { "--download-backend none was given" } else { "no download backend works here" };
        return Err(BackendError::Unavailable {
            backend: NO_BACKEND,
            obstacle: Obstacle::Host {
                cause: format!("a download limit needs a download backend, and {cause}"),
                remedy: "--list-backends tells which there are and what they need".into(),
            },
        }
        .into());
    }
    Ok((upload, download))
}

/// An upload backend and, where there is one, a download backend.
type Throttles = (Box<dyn UploadThrottleBackend>, Option<Box<dyn DownloadThrottleBackend>>);

/// Limits in words: `1M up, 2M down`.
pub(crate) fn in_words(limits: Limits) -> String {
    let direction = |limit: Option<u64>, name: &str| {
        limit.map(|limit| match limit {
            0 => format!("nothing {name}"),
            limit => format!("{}B/s {name}", crate::rate::scaled(limit)),
        })
    };
    let both = [direction(limits.upload, "up"), direction(limits.download, "down")];
    both.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
