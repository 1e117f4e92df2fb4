//! Finds a compiler and a linker for BPF, and says how to call them.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::byte_order::ByteOrder;
use crate::process;

const PACKAGE: &str = "chadthrottle-ebpf";
const PROFILE: &str = "ebpf";

/// What decides the object's bytes besides the sources and the tools.
pub(crate) const FLAGS: [&str; 6] = [
    "-Clinker=bpf-linker",
    "-Clink-arg=--btf",
    "-Clink-arg=-O3",
    "-Cdebuginfo=2",
    // aya-ebpf takes the host's otherwise, and objects would depend on who builds them.
    "--cfg=bpf_target_arch=\"x86_64\"",
    // Names of functions go into the object; the default scheme changes between releases.
    "-Csymbol-mangling-version=v0",
];

const DEBIAN_BIN: &str = "/usr/bin";
const INSTALL_DEBIAN: &str = concat!(
    "    apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf rust-web-clippy llvm-22-dev g++\n",
    "    LLVM_PREFIX=/usr/lib/llvm-22 cargo install --locked bpf-linker@0.13.0 \\\n",
    "        --no-default-features --features llvm-22",
);
const INSTALL_NIGHTLY: &str = concat!(
    "    rustup toolchain install nightly --component rust-src\n",
    "    cargo binstall bpf-linker@0.13.0",
);

/// The two ways to get a `core` for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Debian's second Rust, which packages `core` prebuilt for BPF
    Debian,
    /// rustup's nightly, which builds `core` from rust-src
    Nightly,
}

impl Kind {
    /// As it is written on the command line and in the record.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Nightly => "nightly",
        }
    }
}

/// A compiler that was found, with what has to be known of it.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    pub(crate) kind: Kind,
    /// Where its `cargo`, `rustc` and `cargo-clippy` are.
    pub(crate) bin: PathBuf,
    pub(crate) sysroot: PathBuf,
    /// What `rustc -vV` says.
    pub(crate) verbose_version: String,
}

impl Compiler {
    /// The one asked for, else the first that is there.
    pub(crate) fn find(wanted: Option<Kind>) -> Result<Self> {
        let found = match wanted {
            Some(Kind::Debian) => Self::debian(),
            Some(Kind::Nightly) => Self::nightly(),
            None => Self::debian().or_else(Self::nightly),
        };
        match (found, wanted) {
            (Some(found), _) => Ok(found),
            (None, Some(Kind::Debian)) => {
                bail!(
                    "Debian's Rust for BPF is not installed. On Debian 12 (security suite) or later:\n{INSTALL_DEBIAN}"
                )
            }
            (None, Some(Kind::Nightly)) => {
                bail!("rustup has no nightly toolchain with the component rust-src:\n{INSTALL_NIGHTLY}")
            }
            (None, None) => bail!(
                "no Rust toolchain here can compile for BPF. (Building ChadThrottle itself does not need one: the \
                 object is in the repository.) Either, on Debian 12 (security suite) or later:\n{INSTALL_DEBIAN}\n\
                 or, with rustup anywhere:\n{INSTALL_NIGHTLY}"
            ),
        }
    }

    fn debian() -> Option<Self> {
        let compiler = Self::at(Kind::Debian, Path::new(DEBIAN_BIN))?;
        let libraries = compiler.sysroot.join("lib/rustlib");
        let has_core = |order: ByteOrder| libraries.join(order.target()).join("lib").is_dir();
        ByteOrder::ALL.into_iter().all(has_core).then_some(compiler)
    }

    fn nightly() -> Option<Self> {
        let mut rustup = Command::new("rustup");
        rustup.args(["run", "nightly", "rustc", "--print", "sysroot"]);
        scrub(&mut rustup);
        let sysroot = process::quiet_output(rustup.env("RUSTUP_AUTO_INSTALL", "0"))?;
        let compiler = Self::at(Kind::Nightly, &Path::new(&sysroot).join("bin"))?;
        compiler.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file().then_some(compiler)
    }

    fn at(kind: Kind, bin: &Path) -> Option<Self> {
        let ask = |arguments: &[&str]| {
            let mut rustc = Command::new(bin.join("rustc"));
            scrub(&mut rustc);
            process::quiet_output(rustc.args(arguments))
        };
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
        Some(Self { kind, bin: bin.to_owned(), sysroot, verbose_version: ask(&["-vV"])? })
    }

    /// A line of `rustc -vV`, by what precedes its colon.
    fn version_field(&self, name: &str) -> Option<&str> {
        self.verbose_version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The version of the compiler and of the LLVM inside it, on one line.
    pub(crate) fn version(&self) -> String {
        let rustc = self.verbose_version.lines().next().unwrap_or("rustc of unknown version");
        let mut version =
            format!("{rustc}, LLVM {}", self.version_field("LLVM version").unwrap_or("unknown"));
        // Debian's prebuilt `core` names this place, and LLVM copies the lines that it finds there into the BTF.
        let sources = format!("/usr/src/rustc-{}", self.version_field("release").unwrap_or("unknown"));
        if self.kind == Kind::Debian && Path::new(&sources).exists() {
            version.push_str(", with rust-web-src");
        }
        version
    }

    /// Where the sources of `core` are if they are installed, and the name that objects have for it if not.
    pub(crate) fn core_sources(&self) -> Option<(PathBuf, String)> {
        let commit = self.version_field("commit-hash")?;
        Some((self.sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{commit}")))
    }

    /// A cargo command of this toolchain, free of what the calling cargo put into the environment.
    pub(crate) fn cargo(&self, root: &Path, subcommand: &str) -> Result<Command> {
        let cargo = self.bin.join("cargo");
        let mut command = if subcommand == "clippy" {
            // Not through `cargo clippy`: cargo looks in its own directory first and would find rustup's.
            Command::new(self.bin.join("cargo-clippy"))
        } else {
            Command::new(&cargo)
        };
        scrub(&mut command);
        command.arg(subcommand).current_dir(root).stdin(Stdio::null());
        command.env("RUSTC", self.bin.join("rustc")).env("PATH", linker_path()?);
        if subcommand == "clippy" {
            command.env("CARGO", &cargo);
        }
        if self.kind == Kind::Debian {
            // A stable release, asked for the unstable features that aya-ebpf uses.
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        Ok(command)
    }

    /// The same for the eBPF package; `remap` is what paths are replaced by, later entries first.
    pub(crate) fn cargo_ebpf(
        &self,
        root: &Path,
        subcommand: &str,
        order: ByteOrder,
        target_dir: &Path,
        remap: &[(PathBuf, String)],
    ) -> Result<Command> {
        let mut command = self.cargo(root, subcommand)?;
        command.args(["--package", PACKAGE, "--profile", PROFILE, "--target", order.target()]);
        command.arg("--target-dir").arg(target_dir);
        if self.kind == Kind::Nightly {
            command.args(["-Z", "build-std=core"]);
        }
        let mut flags: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
        for (from, to) in remap {
            let from = from.to_str().with_context(|| format!("{} is not UTF-8", from.display()))?;
            flags.push(format!("--remap-path-prefix={from}={to}"));
        }
        // The form that is not split at blanks.
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        Ok(command)
    }

    /// Where cargo leaves what [`Self::cargo_ebpf`] built.
    pub(crate) fn built(order: ByteOrder, target_dir: &Path) -> PathBuf {
        target_dir.join(order.target()).join(PROFILE).join("chadthrottle-ebpf")
    }
}

/// The linker that was found.
#[derive(Clone, Debug)]
pub(crate) struct Linker {
    pub(crate) file: PathBuf,
    /// What it says of itself.
    pub(crate) version: String,
}

impl Linker {
    /// `bpf-linker` from `PATH`, else from where `cargo install` puts it.
    pub(crate) fn find() -> Result<Self> {
        let Some(file) = process::find_in(&linker_path()?, "bpf-linker") else {
            bail!(
                "bpf-linker is not installed. Beside Debian's Rust:\n{INSTALL_DEBIAN}\nbeside rustup's:\n{INSTALL_NIGHTLY}"
            );
        };
        let version = process::output(Command::new(&file).arg("--version"))
            .context("bpf-linker is installed, but does not run; is its LLVM still there?")?;
        Ok(Self { file, version })
    }

    /// The LLVM that it loads, if that is a library of its own.
    pub(crate) fn llvm(&self) -> Option<PathBuf> {
        let libraries = process::quiet_output(Command::new("ldd").arg(&self.file))?;
        let line = libraries.lines().find(|line| line.trim_start().starts_with("libLLVM"))?;
        Some(PathBuf::from(line.split_whitespace().nth(2)?))
    }
}

fn linker_path() -> Result<std::ffi::OsString> {
    process::path_with(process::cargo_home().map(|home| home.join("bin")))
}

/// Takes out of the command's environment what the outer cargo or the user's shell would leak into the build.
fn scrub(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            command.env_remove(name);
        }
    }
}

/// Whether a variable changes what a build produces, or was set by cargo for the program that it runs.
fn leaks(name: &str) -> bool {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_HOME",
    ];
    const REMOVED: [&str; 6] =
        ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"];
    REMOVED.iter().any(|prefix| name.starts_with(prefix))
        && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn compiler(kind: Kind) -> Compiler {
        Compiler {
            kind,
            bin: "/toolchain/bin".into(),
            sysroot: "/toolchain".into(),
            verbose_version:
                "rustc 1.96.0 (ac68faa20 2026-05-25)\ncommit-hash: ac68faa\nLLVM version: 22.1.8".to_owned(),
        }
    }

    fn command(kind: Kind, subcommand: &str) -> Command {
        let remap = [(PathBuf::from("/home/me/a checkout"), "/source".to_owned())];
        let root = Path::new("/home/me/a checkout");
        let order = ByteOrder::Little;
        let target_dir = Path::new("/target dir");
        compiler(kind).cargo_ebpf(root, subcommand, order, target_dir, &remap).expect("a command")
    }

    fn variables(command: &Command) -> HashMap<String, Option<String>> {
        let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
        command.get_envs().map(|(name, value)| (text(name), value.map(text))).collect()
    }

    #[test]
    fn debians_toolchain_builds_with_its_own_core() {
        let command = command(Kind::Debian, "build");
        assert_eq!(
            process::describe(&command),
            "`/toolchain/bin/cargo build --package chadthrottle-ebpf --profile ebpf --target bpfel-unknown-none \
             --target-dir /target dir`"
        );
        let variables = variables(&command);
        assert_eq!(variables["RUSTC"].as_deref(), Some("/toolchain/bin/rustc"));
        assert_eq!(variables["RUSTC_BOOTSTRAP"].as_deref(), Some("1"));
        let flags: Vec<_> =
            variables["CARGO_ENCODED_RUSTFLAGS"].as_deref().expect("flags").split('\x1f').collect();
        assert_eq!(flags[..FLAGS.len()], FLAGS);
        assert_eq!(flags[FLAGS.len()..], ["--remap-path-prefix=/home/me/a checkout=/source"]);
    }

    #[test]
    fn nightly_builds_core_and_needs_no_permission() {
        let command = command(Kind::Nightly, "build");
        assert!(
            process::describe(&command).ends_with(" -Z build-std=core`"),
            "{}",
            process::describe(&command)
        );
        assert_ne!(variables(&command).get("RUSTC_BOOTSTRAP").cloned().flatten().as_deref(), Some("1"));
    }

    #[test]
    fn clippy_is_the_toolchains_own() {
        let command = command(Kind::Debian, "clippy");
        assert!(process::describe(&command).starts_with("`/toolchain/bin/cargo-clippy clippy --package"));
        assert_eq!(variables(&command)["CARGO"].as_deref(), Some("/toolchain/bin/cargo"));
    }

    #[test]
    fn the_callers_flags_do_not_leak_and_its_network_settings_do() {
        let leaking = [
            "CARGO",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_PROFILE_EBPF_LTO",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ];
        assert_eq!(leaking.iter().find(|name| !leaks(name)), None);
        let kept = [
            "CARGO_HOME",
            "CARGO_HTTP_CAINFO",
            "CARGO_NET_OFFLINE",
            "HOME",
            "PATH",
            "RUSTUP_HOME",
            "RUST_BACKTRACE",
        ];
        assert_eq!(kept.iter().find(|name| leaks(name)), None);
    }

    #[test]
    fn versions_are_taken_from_what_rustc_says() {
        let compiler = compiler(Kind::Nightly);
        assert_eq!(compiler.version(), "rustc 1.96.0 (ac68faa20 2026-05-25), LLVM 22.1.8");
        assert_eq!(
            compiler.core_sources(),
            Some(("/toolchain/lib/rustlib/src/rust".into(), "/rustc/ac68faa".to_owned()))
        );
    }
}
