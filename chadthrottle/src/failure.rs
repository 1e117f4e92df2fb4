//! What ends the program otherwise than as wished, and the exit status that says so.

use std::io;

use nix::errno::Errno;

use crate::{
    backends::{BackendError, Obstacle, registry::SelectError},
    config::ConfigError,
    daemon::client::DaemonError,
    process::ProcessError,
};

/// A failure with an exit status of its own.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line asks for something that is not there.
    #[error("{0}")]
    Usage(String),
    /// The command that was to be run ended, or could not be started, with this status.
    #[error("{message}")]
    Command {
        /// What `run` exits with.
        status: u8,
        /// Why.
        message: String,
    },
}

/// Failed while running.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// Not privileged enough.
pub const UNPRIVILEGED: u8 = 3;
/// The backend that was asked for cannot work here.
pub const UNAVAILABLE: u8 = 4;

/// The exit status for an error, or `None` when there is nothing to complain about: whoever read our output has
/// closed the pipe.
#[must_use]
pub fn exit_status(error: &anyhow::Error) -> Option<u8> {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(match failure {
                Failure::Usage(_) => USAGE,
                Failure::Command { status, .. } => *status,
            });
        }
        if let Some(error) = cause.downcast_ref::<SelectError>() {
            return Some(match error {
                SelectError::Unknown { .. } => USAGE,
                SelectError::Unavailable { obstacle, .. } | SelectError::NoneAvailable { obstacle, .. } => {
                    of_obstacle(obstacle)
                }
                SelectError::NoneBuilt { .. } => UNAVAILABLE,
            });
        }
        if let Some(error) = cause.downcast_ref::<BackendError>() {
            return Some(of_backend(error));
        }
        if let Some(error) = cause.downcast_ref::<ConfigError>() {
            return Some(match error {
                ConfigError::Wrong(_) => USAGE,
                ConfigError::Unreadable { .. } => FAILED,
            });
        }
        if let Some(error) = cause.downcast_ref::<DaemonError>() {
            return Some(match error {
                error if error.is_denial() => UNPRIVILEGED,
                error if error.is_unenforceable() => UNAVAILABLE,
                _ => FAILED,
            });
        }
        if cause.downcast_ref::<ProcessError>().is_some() {
            return Some(FAILED);
        }
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return None;
        }
    }
    Some(FAILED)
}

/// What helps, to be added to an error that says only what the kernel lacks for any program.
#[must_use]
pub fn way_out(error: &anyhow::Error) -> Option<&'static str> {
    // The error number is wrapped by whoever met it; the words go through.
    let has_no_descriptors = format!("{error:#}").contains(Errno::EMFILE.desc());
    has_no_descriptors.then_some("; allow it more files (`ulimit -n 1024`)")
}

fn of_backend(error: &BackendError) -> u8 {
    match error {
        BackendError::Unavailable { obstacle, .. } => of_obstacle(obstacle),
        BackendError::Denied { .. } => UNPRIVILEGED,
        BackendError::Unenforceable { .. } => UNAVAILABLE,
        BackendError::Process(_) | BackendError::Kernel { .. } => FAILED,
        BackendError::Several(errors) => errors.first().map_or(FAILED, of_backend),
    }
}

const fn of_obstacle(obstacle: &Obstacle) -> u8 {
    match obstacle {
        Obstacle::Privilege { .. } => UNPRIVILEGED,
        Obstacle::Host { .. } => UNAVAILABLE,
    }
}
