//! The command line. Its contract is in README.md; scripts rely on it.

mod common;
pub mod history;
pub mod packaging;
pub mod rules;
pub(crate) mod screen;
pub mod uploads;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand};

pub use self::common::Common;
use self::{
    history::HistoryOptions,
    rules::RulesCommand,
    screen::{DemoOptions, ScreenOptions},
};
use crate::{
    backends::throttle::{TrafficType, manager::Limits},
    rate::{ParseError, Rate, parse_time},
};

/// See which process sends and receives how much, and hold it to a limit.
///
/// Without options it opens the screen. Limits end with the program that set them. Without privilege it shows and limits
/// the TCP traffic of one's own programs.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 done; 1 failed while running; 2 usage; 3 not privileged enough; 4 the backend \
                        asked for cannot work here; run: the command's own, or 128 + signal, 126 or 127 if it cannot \
                        be started."
)]
pub struct Cli {
    /// What to do, if not the screen.
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the help shows the flattened options, not this line")]
    pub limit: LimitSubject,

    /// List the backends, whether they work here, and why not.
    #[arg(long, conflicts_with_all = ["subject", "demo"])]
    pub list_backends: bool,

    /// With --list-backends: as JSON.
    #[arg(long, requires = "list_backends")]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the help shows the flattened options, not this line")]
    pub screen: ScreenOptions,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the help shows the flattened options, not this line")]
    pub demo: DemoOptions,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the help shows the flattened options, not this line")]
    pub common: Common,
}

/// Limits for what runs already, and for what will.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("limits").args(["upload_limit", "download_limit"]).multiple(true).requires("subject"))]
#[command(group = ArgGroup::new("subject").args(["pid", "program", "unit", "cgroup", "user"]))]
pub struct LimitSubject {
    /// Limit this running process, in the foreground, until SIGINT, SIGTERM or --duration.
    #[arg(long, value_name = "PID", value_parser = parse_pid, requires = "limits", allow_negative_numbers = true)]
    pub pid: Option<i32>,

    /// With --pid: and everything that it has started and will start, together.
    #[arg(long, requires = "pid")]
    pub children: bool,

    /// Limit all processes that execute this file together, those to come too.
    #[arg(long, value_name = "PATH", requires = "limits")]
    pub program: Option<PathBuf>,

    /// Limit all processes of this systemd unit together, those to come too: nginx.service, user.slice.
    #[arg(long, value_name = "NAME", requires = "limits")]
    pub unit: Option<String>,

    /// The same for a cgroup, by its path in the tree as in /proc/PID/cgroup.
    #[arg(long, value_name = "PATH", requires = "limits")]
    pub cgroup: Option<String>,

    /// Limit all processes of this user together, those to come too: a name or a number.
    #[arg(long, value_name = "USER", requires = "limits")]
    pub user: Option<String>,

    /// Most that it may send, in IP bytes a second: 250000, 500K, 1.5M, 2Mi, 10mbit; 0 blocks.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub upload_limit: Option<Rate>,

    /// Most that it may receive.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub download_limit: Option<Rate>,

    /// How long to hold the limit: 30 (seconds), 500ms, 5m, 1h30m.
    #[arg(long, value_name = "TIME", value_parser = parse_time_argument, requires = "subject")]
    #[arg(allow_negative_numbers = true)]
    pub duration: Option<Duration>,

    /// Which traffic the limits are for, by where the peer is.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t, requires = "limits")]
    pub traffic: TrafficType,
}

/// Commands without a screen.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a command that is limited from its first packet, with everything that it starts, and end with its exit
    /// status.
    #[command(group = ArgGroup::new("run_limits").args(["upload_limit", "download_limit"]).multiple(true).required(true))]
    Run {
        /// Most that it may send, in IP bytes a second: 250000, 500K, 1.5M, 2Mi, 10mbit; 0 blocks.
        #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
        upload_limit: Option<Rate>,
        /// Most that it may receive.
        #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
        download_limit: Option<Rate>,
        /// Which traffic the limits are for, by where the peer is.
        #[arg(long, value_name = "TYPE", value_enum, default_value_t)]
        traffic: TrafficType,
        /// The command and its arguments, after `--`.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Remove whatever a killed instance left in the kernel, in this network namespace; nothing else.
    Cleanup {
        /// Only print what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the limits that are in force now, whoever set them.
    Status {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Tell what this kernel offers, what is missing, who else is there, and how to get what would work better.
    Doctor {
        /// As one JSON object without names of interfaces, tables and programs, for a bug report.
        #[arg(long)]
        json: bool,
    },
    /// Print what programs, units, users or interfaces have used, as the screen and the daemon record it.
    History(HistoryOptions),
    /// Keep the rules of the configuration, without a screen, until SIGTERM; SIGHUP reads them again. Whoever may asks it by
    /// its socket: status, monitor, and limits in the foreground.
    Daemon,
    /// Show rules, change them, and tell why a process is limited.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Print the completions of a shell, for packagers: `chadthrottle completions bash`.
    Completions {
        /// Whose.
        shell: packaging::Shell,
    },
    /// Print the manual page of chadthrottle, or write those of all commands, for packagers.
    Man {
        /// Write `chadthrottle.1`, `chadthrottle-run.1` and so on into this directory.
        #[arg(long, value_name = "PATH")]
        directory: Option<PathBuf>,
    },
    /// Print what every process sends and receives.
    Monitor {
        /// One JSON object a line, one line an interval.
        #[arg(long)]
        json: bool,
        /// Time between two lines.
        #[arg(long, value_name = "TIME", value_parser = parse_time_argument, default_value = "1s")]
        #[arg(allow_negative_numbers = true)]
        interval: Duration,
        /// End after this many intervals.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// Only this process; may be given several times.
        #[arg(long = "pid", value_name = "PID", value_parser = parse_pid, allow_negative_numbers = true)]
        pids: Vec<i32>,
        /// With the connections of each --pid: addresses, state, bytes, round-trip time, retransmits, age.
        #[arg(long, requires = "pids")]
        connections: bool,
    },
}

impl LimitSubject {
    /// The option that names the subject, where there is one.
    #[must_use]
    pub const fn option(&self) -> Option<&'static str> {
        if self.pid.is_some() {
            Some("--pid")
        } else if self.program.is_some() {
            Some("--program")
        } else if self.unit.is_some() {
            Some("--unit")
        } else if self.cgroup.is_some() {
            Some("--cgroup")
        } else if self.user.is_some() {
            Some("--user")
        } else {
            None
        }
    }
}

impl Cli {
    /// Parses the process's arguments; ends the process on wrong usage and on `--help`.
    #[must_use]
    pub fn from_arguments() -> Self {
        Self::checked(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Parses `arguments`.
    ///
    /// # Errors
    /// On wrong usage, and when help was asked for.
    pub fn checked(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(arguments)?;
        // clap could refuse these by itself only together with the options for every form.
        let subject = cli.limit.option();
        let form = subject.or(cli.list_backends.then_some("--list-backends"));
        if let Some(option) = form.or(cli.demo.demo.then_some("--demo"))
            && cli.command.is_some()
        {
            let message = format!("{option} is a form of its own and cannot be used with a command\n");
            return Err(Self::command().error(clap::error::ErrorKind::ArgumentConflict, message));
        }
        Ok(cli)
    }
}

/// Limits as typed.
#[must_use]
pub const fn limits(upload: Option<Rate>, download: Option<Rate>) -> Limits {
    const fn bytes(rate: Option<Rate>) -> Option<u64> {
        match rate {
            Some(rate) => Some(rate.0),
            None => None,
        }
    }
    Limits { upload: bytes(upload), download: bytes(download) }
}

fn parse_pid(typed: &str) -> Result<i32, String> {
    match typed.parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(format!("{typed:?} is no process id; give a positive number, as `ps` shows it")),
    }
}

fn parse_time_argument(typed: &str) -> Result<Duration, ParseError> {
    parse_time(typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::checked(line.iter().map(OsString::from))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_limit_needs_a_process_and_a_process_a_limit() {
        for line in [
            &["chadthrottle", "--pid", "1"][..],
            &["chadthrottle", "--upload-limit", "1M"],
            &["chadthrottle", "--duration", "1s"],
            &["chadthrottle", "run", "--", "true"],
            &["chadthrottle", "run", "--upload-limit", "1M"],
            &["chadthrottle", "--pid", "-1", "--upload-limit", "1M"],
            &["chadthrottle", "--json"],
            &["chadthrottle", "--list-backends", "monitor"],
            &["chadthrottle", "--pid", "1", "--upload-limit", "1M", "monitor"],
            &["chadthrottle", "monitor", "--connections"],
        ] {
            let error = parse(line).expect_err("usage error");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
        let line = ["chadthrottle", "--pid", "1", "--upload-limit", "1M", "--duration", "5m"];
        let cli = parse(&line).expect("complete");
        assert_eq!(limits(cli.limit.upload_limit, cli.limit.download_limit).upload, Some(1_000_000));
    }

    #[test]
    fn options_for_every_form_are_taken_on_either_side_of_the_command() {
        for line in [
            &["chadthrottle", "-v", "--cgroup-root", "/x", "run", "--upload-limit", "1M", "--", "true", "-v"]
                [..],
            &["chadthrottle", "run", "--upload-limit", "1M", "--cgroup-root", "/x", "-v", "--", "true", "-v"],
        ] {
            let cli = parse(line).expect("complete");
            assert_eq!(cli.common.cgroup_root, Some(PathBuf::from("/x")));
            assert_eq!(cli.common.verbose, 1);
        }
    }
}
