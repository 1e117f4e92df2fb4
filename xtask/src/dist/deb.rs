//! A binary package as deb(5) and the Debian policy want it, built by `dpkg-deb`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::needs;
use crate::process;

/// How small the package is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// As `dpkg-deb` does by itself.
    Best,
    /// Not at all, for packages that are installed once.
    None,
}

/// What is copied as it is, and where to.
const FILES: [(&str, &str); 4] = [
    ("packaging/chadthrottle.service", "usr/lib/systemd/system/chadthrottle.service"),
    ("packaging/chadthrottle.sysusers", "usr/lib/sysusers.d/chadthrottle.conf"),
    ("LICENSE", "usr/share/doc/chadthrottle/copyright"),
    ("README.md", "usr/share/doc/chadthrottle/README.md"),
];

/// Where each shell looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/chadthrottle"),
    ("zsh", "usr/share/zsh/vendor-completions/_chadthrottle"),
    ("fish", "usr/share/fish/vendor_completions.d/chadthrottle.fish"),
];

/// Packs `program` and everything that belongs to it, and says where the package is.
pub(super) fn make(root: &Path, program: &Path, version: &str, compression: Compression) -> Result<PathBuf> {
    let architecture = process::output(Command::new("dpkg").arg("--print-architecture"))
        .context("a Debian package is made where dpkg is")?;
    let directory = process::target_dir(root).join("package");
    let name = format!("chadthrottle_{version}_{architecture}");
    let tree = directory.join(&name);
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    fill(root, program, &tree)?;
    let control = control(version, &architecture, &needs::of(program)?, size(&tree)?);
    place(&tree, "DEBIAN/control", control.as_bytes(), 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        let text = fs::read(root.join("packaging/debian").join(script))?;
        place(&tree, &format!("DEBIAN/{script}"), &text, 0o755)?;
    }
    let package = directory.join(format!("{name}.deb"));
    let mut command = Command::new("dpkg-deb");
    command.arg("--root-owner-group");
    if compression == Compression::None {
        command.arg("-Znone");
    }
    // Two builds of one commit are the same, byte for byte.
    let git = ["log", "-1", "--format=%ct"];
    if let Some(time) = process::quiet_output(Command::new("git").current_dir(root).args(git)) {
        command.env("SOURCE_DATE_EPOCH", time);
    }
    process::run(command.arg("--build").args([&tree, &package]))?;
    Ok(package)
}

/// The files of the package, as they are to be installed.
fn fill(root: &Path, program: &Path, tree: &Path) -> Result<()> {
    let installed = place(tree, "usr/bin/chadthrottle", &fs::read(program)?, 0o755)?;
    process::run(Command::new("strip").arg("--strip-unneeded").arg(installed))?;
    for (from, to) in FILES {
        place(tree, to, &fs::read(root.join(from)).with_context(|| from.to_owned())?, 0o644)?;
    }
    for (shell, to) in COMPLETIONS {
        let script = process::output(Command::new(program).args(["completions", shell]))?;
        place(tree, to, (script + "\n").as_bytes(), 0o644)?;
    }
    let manual = tree.join("usr/share/man/man1");
    process::run(Command::new(program).args(["man", "--directory"]).arg(&manual))?;
    for page in fs::read_dir(&manual)? {
        compress(&page?.path())?;
    }
    let changes =
        place(tree, "usr/share/doc/chadthrottle/changelog", &fs::read(root.join("CHANGELOG.md"))?, 0o644)?;
    compress(&changes)?;
    for guide in fs::read_dir(root.join("docs"))? {
        let guide = guide?.path();
        if guide.extension().is_some_and(|extension| extension == "md") {
            let name = guide.file_name().and_then(|name| name.to_str()).context("a name in UTF-8")?;
            place(tree, &format!("usr/share/doc/chadthrottle/docs/{name}"), &fs::read(&guide)?, 0o644)?;
        }
    }
    Ok(())
}

/// As the policy wants manual pages and changelogs: without name and time in it.
fn compress(file: &Path) -> Result<()> {
    process::run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(file))
}

fn place(tree: &Path, to: &str, content: &[u8], mode: u32) -> Result<PathBuf> {
    let path = tree.join(to);
    let directory = path.parent().context("a file in the package's root")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(path)
}

/// What the installed files take, in KiB.
fn size(tree: &Path) -> Result<u64> {
    let text = process::output(Command::new("du").args(["--summarize", "--block-size=1024"]).arg(tree))?;
    text.split_whitespace().next().and_then(|word| word.parse().ok()).context("`du` printed no number")
}

fn control(version: &str, architecture: &str, needs: &str, size: u64) -> String {
    // A field that is there must have a value.
    let depends =
        [needs, "passwd"].into_iter().filter(|names| !names.is_empty()).collect::<Vec<_>>().join(", ");
    format!(
        "Package: chadthrottle\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: The ChadThrottle authors <authors@chadthrottle.invalid>\n\
         Installed-Size: {size}\n\
         Depends: {depends}\n\
         Section: net\n\
         Priority: optional\n\
         Description: limits of network traffic by process\n \
         Shows which process sends and receives how much, and holds processes,\n \
         programs, users and units to limits that the kernel keeps, on a screen in\n \
         the terminal, by rules, and from scripts.\n"
    )
}

/// That a package can be made is tested by `cargo xtask dist --check`.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_libraries_needs_none() {
        let text = control("1.2.3", "amd64", "", 10);
        assert!(text.contains("\nDepends: passwd\n"), "{text}");
        let text = control("1.2.3", "amd64", "libc6 (>= 2.34)", 10);
        assert!(text.contains("\nDepends: libc6 (>= 2.34), passwd\n"), "{text}");
        // Lines of the description begin with a space, or are fields.
        assert!(text.lines().all(|line| line.starts_with(' ') || line.contains(": ")), "{text}");
    }
}
