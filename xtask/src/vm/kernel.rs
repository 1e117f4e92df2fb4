//! Kernels as Debian has them, unpacked and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::fresh_directory;
use crate::process;

/// Versions that Debian 12 has a kernel for virtual machines of.
pub(super) const DEBIAN: [&str; 2] = ["6.1", "6.12"];

/// An unpacked kernel.
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    /// What QEMU boots.
    pub(super) image: PathBuf,
    /// `/lib/modules/RELEASE`.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// Finds the kernel that somebody named by its version or directory; fetches it where that is needed.
    pub(super) fn find(named: &str, work: &Path) -> Result<Self> {
        if DEBIAN.contains(&named) {
            return Self::in_directory(&debian(named, work)?);
        }
        let directory = Path::new(named);
        ensure!(
            directory.is_dir(),
            "there is no kernel {named:?}: give one of {DEBIAN:?}, or the directory that a kernel's package was \
             unpacked in (dpkg-deb -x)"
        );
        Self::in_directory(directory)
    }

    fn in_directory(directory: &Path) -> Result<Self> {
        for boot in ["boot", "usr/lib/boot"] {
            let Ok(entries) = fs::read_dir(directory.join(boot)) else { continue };
            for entry in entries {
                let image = entry?.path();
                let name = image.file_name().unwrap_or_default().to_string_lossy();
                let Some(release) = name.strip_prefix("vmlinuz-") else { continue };
                let release = release.to_owned();
                let places =
                    ["lib/modules", "usr/lib/modules"].map(|place| directory.join(place).join(&release));
                let modules = places.into_iter().find(|place| place.is_dir());
                let modules =
                    modules.with_context(|| format!("{} has no modules for it", image.display()))?;
                return Ok(Self { release, image, modules });
            }
        }
        bail!("{} has no boot/vmlinuz-*", directory.display())
    }
}

/// Debian's kernel of a version, unpacked; of an earlier run if it is there.
fn debian(version: &str, work: &Path) -> Result<PathBuf> {
    let suffix = if version == "6.1" { String::new() } else { format!("-{version}") };
    let meta = format!("linux-image{suffix}-cloud-amd64");
    let depends = process::output(Command::new("apt-cache").args(["depends", "--important", &meta]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image"))
        .map(|rest| format!("linux-image{rest}"))
        .with_context(|| {
            format!("no source of apt offers {meta}: `apt-get update`, or is this not Debian 12?")
        })?;
    let unpacked = work.join("kernels").join(&package);
    if Kernel::in_directory(&unpacked).is_ok() {
        return Ok(unpacked);
    }
    let packages = work.join("packages");
    fresh_directory(&packages)?;
    // `_apt` may not write here, which apt says and does without.
    process::run(
        Command::new("apt-get")
            .args(["download", "--quiet", "-o", "APT::Sandbox::User=root", &package])
            .current_dir(&packages),
    )?;
    let archive = fs::read_dir(&packages)?.next().context("apt-get downloaded nothing")??.path();
    fresh_directory(&unpacked)?;
    process::run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&unpacked))?;
    Ok(unpacked)
}
