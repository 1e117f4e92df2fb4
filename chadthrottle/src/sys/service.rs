//! What a service tells its manager (`sd_notify(3)`): a datagram to the socket that `$NOTIFY_SOCKET` names.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

/// The manager, where there is one that wants to be told.
#[derive(Debug)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that we are well.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names.
    #[must_use]
    pub fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let opened = open(name.as_bytes());
            opened.inspect_err(|error| log::warn!("$NOTIFY_SOCKET cannot be used: {error}")).ok()
        });
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        // Twice as often as it takes for us to be thought dead (sd_watchdog_enabled(3)).
        let watchdog = number("WATCHDOG_USEC").filter(|_| is_ours && socket.is_some());
        Self { socket, watchdog: watchdog.map(|limit| Duration::from_micros((limit / 2).max(1))) }
    }

    /// How often [`Self::is_well`] is to be told, where it is.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The work has begun, or has been begun anew.
    pub fn is_ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// What is configured is being read again.
    pub fn is_reloading(&self) {
        // In microseconds (sd_notify(3), `MONOTONIC_USEC`).
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// Nothing hangs.
    pub fn is_well(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The end has begun.
    pub fn is_stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            log::debug!("the service manager does not hear: {error}");
        }
    }
}

fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not keep us from working.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_datagrams_of_lines() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("notify");
        let hears = UnixDatagram::bind(&path)?;
        let manager = Manager { socket: Some(open(path.as_os_str().as_bytes())?), watchdog: None };
        manager.is_ready("2 rules");
        manager.is_reloading();
        manager.is_well();
        manager.is_stopping();
        let mut buffer = [0; 100];
        let mut next = || {
            let length = hears.recv(&mut buffer).expect("it was told");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(next(), "READY=1\nSTATUS=2 rules");
        assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!((next().as_str(), next().as_str()), ("WATCHDOG=1", "STOPPING=1"));
        Ok(())
    }
}
