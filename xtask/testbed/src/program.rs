//! The programs and the rights that the testbed needs, and errors that say how to get them.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Finds `name` in `PATH`.
///
/// # Errors
///
/// That it is not there, and which package of Debian (and of most others) has it.
pub fn require_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()) {
        return Ok(found);
    }
    let package = match name {
        "ip" | "tc" => "iproute2",
        "nft" => "nftables",
        "nginx" => "nginx-light",
        "sshd" => "openssh-server",
        "ssh" | "ssh-keygen" => "openssh-client",
        "gtlsclient" => "ngtcp2-client",
        "gtlsserver" => "ngtcp2-server",
        other => other,
    };
    bail!("the program `{name}` is not in PATH: install the package {package} (`apt-get install {package}`)");
}

/// Checks that we may make network namespaces and cgroups.
///
/// # Errors
///
/// That we are not root, and how to run the tests so.
pub fn require_root() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "the testbed makes network namespaces and cgroups: run the tests as root, e.g. \
         `CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='sudo -E' cargo test`"
    );
}

/// Runs a program to its end with `input` as its standard input and returns what it printed.
pub(crate) fn run(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    require_program(&name)?;
    let line = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {line}"))?;
    // The input is a few hundred bytes and fits into the pipe, so this cannot block against the output.
    let written = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {line}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let input = if input.is_empty() { String::new() } else { format!(", given:\n{input}") };
        bail!("{line}: {}: {}{input}", output.status, stderr.trim());
    }
    written.with_context(|| format!("cannot write to {line}"))?;
    String::from_utf8(output.stdout).with_context(|| format!("{line} printed something that is not UTF-8"))
}
