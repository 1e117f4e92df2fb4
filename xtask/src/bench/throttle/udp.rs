//! Datagrams instead of connections: a sender that offers twice the limit, whatever becomes of it.

use std::{path::Path, process::Command};

use testbed::{Family, Process, Testbed, traffic};

/// Where the client receives.
const PORT: u16 = 5301;
/// Bytes of payload in a datagram.
const SIZE: u32 = 1400;
/// A receiver ends when nothing has come for so long, in milliseconds; the first may take longer.
const IDLE: u32 = 1500;

/// The two ends of a run.
pub(super) struct Datagrams {
    /// At the server; ends by itself, or with us.
    _far: Process,
    /// What is to be run on the client.
    near: Vec<String>,
}

impl Datagrams {
    /// Starts the far end: a receiver, or a sender that begins when the near end is ready.
    pub(super) fn start(bed: &Testbed, is_upload: bool, limit: u32, seconds: u32) -> anyhow::Result<Self> {
        let binary = traffic::traffic_binary()?.display().to_string();
        let send = |to: String| {
            let rate = (u64::from(limit) * 2).to_string();
            let options = ["--rate", &rate, "--size", &SIZE.to_string(), "--seconds", &seconds.to_string()];
            [&["udp-send", "--to", &to][..], &options]
                .concat()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let receive = |address: String| {
            let words =
                ["udp-sink", "--listen", &address, "--idle-exit", &IDLE.to_string(), "--first-wait", "20000"];
            words.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mut command = traffic::command(bed.server())?;
        let (far, near) = if is_upload {
            let any = bed.server().socket_address(Family::V4, 0).to_string();
            let sink = Process::spawn(command.args(receive(any)))?;
            let to = traffic::ready(&sink)?.to_string();
            (sink, send(to))
        } else {
            // What comes before there is a receiver is lost, as it is with datagrams.
            let to = bed.client().socket_address(Family::V4, PORT).to_string();
            (Process::spawn(command.args(send(to.clone())))?, receive(to))
        };
        Ok(Self { _far: far, near: [vec![binary], near].concat() })
    }

    /// The near end and its arguments.
    pub(super) fn near(&self) -> &[String] {
        &self.near
    }

    /// The near end by itself.
    pub(super) fn near_command(&self, bed: &Testbed) -> Command {
        let mut command = bed.client().command(Path::new(&self.near[0]));
        command.args(&self.near[1..]);
        command
    }
}
