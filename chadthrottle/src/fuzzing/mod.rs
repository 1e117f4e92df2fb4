//! Any bytes, given to all that reads what others have written: for the fuzzer (`cargo xtask fuzz`), and for the test that
//! gives it the inputs in `fuzz/corpus`.
//!
//! Beside not to panic, each reader has to keep what is said at its `fuzz` function, or here.

mod config;
mod words;

use std::str;

pub use self::{config::config, words::words};
use crate::{
    backends::{
        monitor::{pnet, sock_diag::socket},
        throttle::{guard, journal},
    },
    containers, doctor, instances,
    sys::{
        cgroup, inet_diag, kernel_features, kernel_version, links, netlink, nft, proc_fd, proc_text, routes,
        sock_diag, socket_lookup, tc, tcp_info::TcpInfo,
    },
};

/// What is given any bytes.
pub type Target = fn(&[u8]);

/// Where the counters of a `struct tcp_info` end that every kernel has which can be asked (Linux 4.2).
const COUNTERS: usize = 144;

/// Every target by its name, which is that of its directory in `fuzz/corpus` and of its program.
pub const TARGETS: [(&str, Target); 6] = [
    ("packets", packets),
    ("netlink", netlink),
    ("proc", proc),
    ("notes", notes),
    ("config", config),
    ("words", words),
];

/// Frames and packets from packet sockets.
///
/// # Panics
/// Where what is read of them is not right.
pub fn packets(bytes: &[u8]) {
    pnet::fuzz(bytes);
}

/// Datagrams from the kernel. Whatever a message is about, everybody who reads messages reads it.
///
/// # Panics
/// Where what is read of them is not right.
pub fn netlink(bytes: &[u8]) {
    netlink::fuzz(bytes, |body| {
        links::fuzz(body);
        routes::fuzz(body);
        tc::fuzz(body);
        nft::fuzz(body);
        socket_lookup::fuzz(body);
        if let Some(socket) = inet_diag::fuzz(body) {
            sock_diag::fuzz_answer(body, &socket);
        }
    });
    sock_diag::fuzz(bytes, socket::fuzz);
    assert_eq!(TcpInfo::read(bytes).is_some(), bytes.len() >= COUNTERS);
}

/// Files of /proc, and what others are called in them.
///
/// # Panics
/// Where what is read of them is not right.
pub fn proc(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    proc_text::fuzz(&text);
    cgroup::fuzz(&text);
    doctor::host::fuzz(&text);
    kernel_features::fuzz(&text);
    kernel_version::fuzz(&text);
    proc_fd::fuzz(&text);
}

/// Notes that another instance wrote, or somebody who takes its place, and what runtimes of containers write.
///
/// # Panics
/// Where what is read of them is not right.
pub fn notes(bytes: &[u8]) {
    journal::fuzz(bytes);
    instances::fuzz(bytes);
    containers::fuzz(bytes);
    guard::fuzz(bytes);
}

/// The input as a text, where it is one.
fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}
