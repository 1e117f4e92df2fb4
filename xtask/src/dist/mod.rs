//! `cargo xtask dist`: the program as a Debian package.

mod deb;
mod needs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::process;

/// The command line.
#[derive(Args)]
pub(crate) struct Options {
    /// Link the C library statically too (musl): one program for every distribution
    #[arg(long)]
    r#static: bool,
    /// Build two versions unoptimized instead, and install, upgrade, remove and purge them in a root of their own
    #[arg(long, conflicts_with = "static")]
    check: bool,
}

/// How the program is built.
#[derive(Clone, Copy)]
enum Build {
    /// Optimized, with the C library of this system.
    Release,
    /// Optimized, with musl.
    Static,
    /// As for the tests.
    Quick,
}

/// Makes the package and says where it is.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.check {
        return check();
    }
    let build = if options.r#static { Build::Static } else { Build::Release };
    let root = process::root()?;
    let program = build.run(&root)?;
    let package = deb::make(&root, &program, &version(&root)?, deb::Compression::Best)?;
    println!("{}", package.display());
    Ok(())
}

/// What `packaging/debian/check.sh` says of the package.
pub(crate) fn check() -> Result<()> {
    ensure!(process::is_root()?, "the package is installed in a root of its own, which needs root to make");
    let root = process::root()?;
    let program = Build::Quick.run(&root)?;
    let version = version(&root)?;
    let old = deb::make(&root, &program, &format!("{version}~old"), deb::Compression::None)?;
    let new = deb::make(&root, &program, &version, deb::Compression::None)?;
    let script = root.join("packaging/debian/check.sh");
    let mut command = Command::new("unshare");
    process::run(
        command.args(["--mount", "--propagation", "private", "--net", "bash"]).arg(script).args([old, new]),
    )
}

impl Build {
    /// Builds, and says where the program is.
    fn run(self, root: &Path) -> Result<PathBuf> {
        let target_dir = process::target_dir(root);
        let mut command = process::host_cargo(root);
        command.args(["build", "--locked", "--package", "chadthrottle"]);
        let directory = match self {
            Self::Release => {
                command.arg("--release");
                target_dir.join("release")
            }
            Self::Quick => {
                // The features of the tests, whose build this can then be.
                command.arg("--all-features");
                target_dir.join("debug")
            }
            Self::Static => {
                let target = musl()?;
                command.args(["--release", "--target", &target]);
                target_dir.join(target).join("release")
            }
        };
        process::run(&mut command)?;
        Ok(directory.join("chadthrottle"))
    }
}

/// The target for this machine with musl, if the toolchain has it.
fn musl() -> Result<String> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let libraries = Path::new(&sysroot).join("lib/rustlib").join(&target);
    ensure!(
        libraries.is_dir(),
        "this toolchain has no {target}: rustup target add {target} (and for SQLite, which is C: apt-get install musl-tools)"
    );
    Ok(target)
}

/// The version of the program, as Cargo.toml has it.
fn version(root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join("Cargo.toml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("version = \""));
    Ok(line.and_then(|rest| rest.strip_suffix('"')).context("Cargo.toml has no version")?.to_owned())
}
