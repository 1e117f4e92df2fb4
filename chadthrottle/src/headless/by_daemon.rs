//! A limit in the foreground that a daemon holds.

use std::time::{Duration, Instant};

use super::{
    limit::{LOOK_EVERY, outcome},
    tell,
};
use crate::{
    backends::throttle::{Subject, Target, manager::Limits},
    daemon::{
        client::{Client, DaemonError, Place, Reached},
        protocol::{Kind, Refusal, Request},
    },
    failure::Failure,
    instances::Whom,
    sys::signals::Signals,
};
use nix::sys::signal::Signal;

/// The daemon that takes changes from us. None where this process is to do it.
///
/// # Errors
/// When one that is asked for by its path does not take changes.
pub(super) fn that_changes(place: &Place) -> anyhow::Result<Option<Client>> {
    let Reached::Daemon(client) = place.reach()? else { return Ok(None) };
    if client.daemon.may_change {
        return Ok(Some(*client));
    }
    let message =
        "it takes changes from root and from members of change_group of [daemon] in its configuration";
    if matches!(place, Place::At(_)) {
        return Err(DaemonError::Refused(Refusal::new(Kind::Denied, message)).into());
    }
    tell(format_args!("not by the daemon that runs here (process {}): {message}", client.daemon.pid));
    Ok(None)
}

/// Has the daemon hold limits until a signal, the end of the time that was given, or of the process.
///
/// # Errors
/// When it refuses, or ends.
pub(super) fn hold(
    client: &mut Client,
    target: &Target,
    limits: Limits,
    duration: Option<Duration>,
    signals: &Signals,
) -> anyhow::Result<()> {
    let subject = whom(target)?;
    let set = Request::Set {
        subject: subject.clone(),
        name: target.name.chars().take(64).collect(),
        traffic: target.traffic.into(),
        upload: limits.upload,
        download: limits.download,
        take_over: false,
    };
    let done = client.change(&set)?;
    tell(format_args!(
        "{target} is held to {} by the daemon (process {}); Ctrl-C ends it",
        super::in_words(limits),
        client.daemon.pid
    ));
    if let Some(note) = done.note {
        tell(note);
    }
    let end = duration.map(|duration| Instant::now() + duration);
    let has_ended = loop {
        let next = Instant::now() + LOOK_EVERY;
        let next = end.map_or(next, |end| end.min(next));
        let (signal, ready) = signals.wait_beside(Some(next), vec![client.end()])?;
        if signal.is_some_and(|signal| signal != Signal::SIGCHLD) {
            break false;
        }
        if ready.contains(&true) {
            return Err(DaemonError::Gone(std::io::ErrorKind::UnexpectedEof.into()).into());
        }
        if !target.subject.is_alive() {
            break true;
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            break false;
        }
    };
    let ended = client.change(&Request::Release { subject })?.ended;
    let why = if has_ended { "ended" } else { "is free again" };
    let outcomes = ended.map(|[up, down]| {
        let up = limits.upload.map(|_| outcome("send", up.into())).unwrap_or_default();
        up + &limits.download.map(|_| outcome("receive", down.into())).unwrap_or_default()
    });
    tell(format_args!("{target} {why}{}", outcomes.unwrap_or_default()));
    Ok(())
}

/// A target as it is said through the socket.
fn whom(target: &Target) -> Result<Whom, Failure> {
    let whom = Whom::from(&target.subject);
    if Subject::from(whom.clone()) == target.subject {
        return Ok(whom);
    }
    Err(Failure::Usage(format!(
        "{target}: a path that is not UTF-8 cannot be told a daemon; --socket none does without"
    )))
}
