//! Real hosts, a real router and real traffic, in network namespaces, for the tests and benchmarks.
//!
//! ```text
//!   client  10.77.1.2 ── 10.77.1.1  router  10.77.2.1 ── 10.77.2.2  server
//!         fd77:1::2 ── fd77:1::1          fd77:2::1 ── fd77:2::2
//! ```
//!
//! The program under test runs on the client, in a cgroup of its own. The router is there because a bare veth
//! pair misleads: a queue in the receiving namespace pushes back on the sender's socket, so that a shaper there
//! looks lossless when it is not.
//!
//! [`Testbed::with_path`] puts delay, a rate, a queue and loss between router and server.
//!
//! Everything needs root. What is missing is an error that says what to install or to run; a test that cannot
//! run has to fail, since a test that skips itself passes without having tested anything.
//!
//! ```no_run
//! use std::time::Duration;
//! use testbed::{Family, Process, Testbed, traffic};
//!
//! # fn main() -> anyhow::Result<()> {
//! let bed = Testbed::new("example")?;
//! let to = std::net::SocketAddr::new(bed.server().address(Family::V4), 0);
//! let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &to.to_string()]))?;
//! let to = traffic::ready(&sink)?;
//! let send = ["tcp-send", "--to", &to.to_string(), "--bytes", "1000000"];
//! Process::spawn(traffic::command(bed.client())?.args(send))?.success(Duration::from_secs(5))?;
//! assert_eq!(traffic::Report::parse(&sink.success(Duration::from_secs(5))?)?.bytes, 1_000_000);
//! # Ok(())
//! # }
//! ```

mod bed;
mod bpf;
mod cgroup;
mod emulated;
pub mod fault;
mod feature;
mod host;
pub mod iperf3;
mod kernel_state;
mod leftovers;
mod netns;
mod old_kernel;
mod parent;
pub mod path;
mod poll;
mod process;
mod program;
pub mod program_runs;
mod timeline;
pub mod traffic;

pub use bed::Testbed;
pub use emulated::{EMULATED_VARIABLE, at_least, is_emulated, patience};
pub use feature::{Feature, is_to_be_tried, skip_unless};
pub use host::{Family, Host};
pub use kernel_state::KernelState;
pub use old_kernel::without_buffer_lock;
pub use parent::ends_with_its_parent;
pub use path::Path;
pub use poll::until;
pub use process::Process;
pub use program::{require_program, require_root};
pub use timeline::{Interval, Timeline};
