//! Running other programs, and finding them first.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// The root of the checkout that this task was started for.
///
/// Cargo names the package at run time too; what was compiled in may be another checkout that shares the target
/// directory.
pub(crate) fn root() -> Result<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    let root = package.parent().context("xtask has no parent directory")?;
    root.canonicalize().with_context(|| format!("cannot resolve {}", root.display()))
}

/// Where host builds go: the caller's choice, else `target` in the checkout.
pub(crate) fn target_dir(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// Cargo's own directory, where `cargo install` and the registry's sources are.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// The cargo that started us, for the host's crates.
pub(crate) fn host_cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    command
}

/// `PATH` with `directories` behind it, as far as they are not in it.
pub(crate) fn path_with(directories: impl IntoIterator<Item = PathBuf>) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = env::split_paths(&path).collect();
    for directory in directories {
        if !all.contains(&directory) {
            all.push(directory);
        }
    }
    env::join_paths(all).context("PATH cannot be extended")
}

/// The first executable called `program` in `path`.
pub(crate) fn find_in(path: &OsString, program: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Runs to the end with our output; fails if the program does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", describe(command)))?;
    ensure!(status.success(), "{} failed ({status})", describe(command));
    Ok(())
}

/// What the program prints, without the last line's end; fails if the program does.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", describe(command), output.status);
    }
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed something that is not UTF-8", describe(command)))?;
    Ok(text.trim_end().to_owned())
}

/// The same, where "no" is an answer and not worth a message.
pub(crate) fn quiet_output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim_end().to_owned())
}

/// The program and its arguments, as one would type them.
pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    format!("`{}`", words.join(" "))
}

/// Whether we are root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))? == "0")
}
