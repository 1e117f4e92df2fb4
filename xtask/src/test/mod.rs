//! `cargo xtask test`: every test of the workspace, with what they need on the machine.

mod again;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use clap::Args;
use testbed::traffic;

use crate::process;

/// What the tests run beside the kernel, and the Debian packages that have it.
const PROGRAMS: [(&str, &str); 14] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("iperf3", "iperf3"),
    ("curl", "curl"),
    ("tmux", "tmux"),
    ("nginx", "nginx-light"),
    ("rsync", "rsync"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("openssl", "openssl"),
    ("gtlsclient", "ngtcp2-client"),
    ("gtlsserver", "ngtcp2-server"),
];

/// Packages that Debian starts as services when they are installed, which nobody wants of a test on their machine.
const SERVICES: [&str; 2] = ["nginx-light", "openssh-server"];

/// Where Debian has programs for root, which `su` without `-` leaves out of `PATH`.
const ROOT_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The command line.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Passed on to `cargo test`
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// Checks the machine, completes it where that can be done, and runs `cargo test`; without arguments, what fails is run
/// once more.
pub(crate) fn run(options: &Options) -> Result<()> {
    let path = require_programs(&PROGRAMS)?;
    ensure!(
        process::is_root()?,
        "the tests need root: they create network namespaces and cgroups of their own and load eBPF programs. \
         Without root, `cargo test --workspace --lib` runs those that do not touch the kernel"
    );
    // Built now: a test whose clock runs already would wait for a lock of cargo's, however long somebody else holds it.
    let helper = traffic::traffic_binary()?;
    let prepared = |mut command: Command| {
        command.env("PATH", &path).env(traffic::TRAFFIC_VARIABLE, helper);
        command
    };
    let mut tests = prepared(command(options)?);
    if !options.arguments.is_empty() {
        return process::run(&mut tests);
    }
    again::run(&mut tests, || {
        let mut command = process::host_cargo(&process::root()?);
        command.args(["test", "--all-features"]);
        Ok(prepared(command))
    })
}

/// Sees to it that programs are in the returned `PATH`, by installing their packages where that can be done.
pub(crate) fn require_programs(programs: &[(&'static str, &'static str)]) -> Result<OsString> {
    let path = process::path_with(ROOT_DIRECTORIES.map(PathBuf::from))?;
    let is_there = |program: &str| process::find_in(&path, program).is_some();
    let missing = packages_without(programs, is_there);
    if missing.is_empty() {
        return Ok(path);
    }
    let services: Vec<_> = missing.iter().copied().filter(|package| SERVICES.contains(package)).collect();
    ensure!(
        services.is_empty(),
        "programs that the tests use are missing, and Debian starts them as services when they are installed, which is \
         yours to decide: apt-get install {}",
        services.join(" ")
    );
    install(&missing, process::is_root()? && is_there("apt-get"))?;
    let still = packages_without(programs, is_there);
    ensure!(
        still.is_empty(),
        "apt-get succeeded, but these packages' programs are still not in PATH: {still:?}"
    );
    Ok(path)
}

fn command(options: &Options) -> Result<Command> {
    let mut command = process::host_cargo(&process::root()?);
    command.arg("test");
    if !options.arguments.iter().any(names_package) {
        command.arg("--workspace");
    }
    command.args(["--all-features", "--no-fail-fast"]).args(&options.arguments);
    Ok(command)
}

/// Whether an argument chooses packages, which cargo ignores beside `--workspace`.
fn names_package(argument: &OsString) -> bool {
    argument.to_str().is_some_and(|text| text.starts_with("-p") || text.starts_with("--package"))
}

/// The packages of the programs that are not `there`, each once.
fn packages_without(
    programs: &[(&'static str, &'static str)],
    there: impl Fn(&str) -> bool,
) -> BTreeSet<&'static str> {
    programs.iter().filter(|(program, _)| !there(program)).map(|&(_, package)| package).collect()
}

fn install(packages: &BTreeSet<&'static str>, possible: bool) -> Result<()> {
    let list = packages.iter().copied().collect::<Vec<_>>().join(" ");
    if !possible {
        bail!("programs that the tests use are missing. On Debian, as root: apt-get install {list}");
    }
    println!("installing what the tests use and this machine lacks: {list}");
    let mut attempts = 0..3;
    while let Err(error) = process::run(apt_get().arg("update")) {
        // Mirrors are sometimes in the middle of an update themselves.
        ensure!(attempts.next().is_some(), error);
        thread::sleep(Duration::from_secs(10));
    }
    process::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_once_and_only_if_missing() {
        let missing = packages_without(&PROGRAMS, |program| !["ip", "tc", "tmux"].contains(&program));
        assert_eq!(missing, BTreeSet::from(["iproute2", "tmux"]));
        assert_eq!(packages_without(&PROGRAMS, |_| true), BTreeSet::new());
    }

    fn words(arguments: &[&str]) -> String {
        let options = Options { arguments: arguments.iter().map(OsString::from).collect() };
        let command = process::describe(&command(&options).expect("a command"));
        command.split_once(" test ").expect("cargo test").1.to_owned()
    }

    #[test]
    fn everything_is_tested_unless_packages_are_named() {
        assert_eq!(words(&[]), "--workspace --all-features --no-fail-fast`");
        assert_eq!(words(&["limits"]), "--workspace --all-features --no-fail-fast limits`");
        assert_eq!(words(&["--package", "testbed"]), "--all-features --no-fail-fast --package testbed`");
        assert_eq!(words(&["-ptestbed"]), "--all-features --no-fail-fast -ptestbed`");
    }

    #[test]
    fn without_root_the_error_says_what_to_install() {
        let error =
            install(&BTreeSet::from(["iperf3", "tmux"]), false).expect_err("nothing can be installed");
        assert!(error.to_string().ends_with("apt-get install iperf3 tmux"), "{error}");
    }
}
