//! The daemon's socket: what others ask of a daemon that runs, and how they do.
//!
//! One request a line, one answer a line, both JSON ([`protocol`]). The [`Server`](server::Server) has the connections and
//! never waits for one; what is asked for comes to the [`Desk`](desk::Desk), which owns the engine. A [`Client`](client::Client)
//! is the other end. `docs/DAEMON.md` has the promise, ADR 6 the reasons.

pub mod client;
mod connection;
pub mod counter;
pub mod desk;
pub mod monitor;
pub mod protocol;
pub mod remote;
pub mod rights;
mod said;
pub mod sample;
pub mod server;
