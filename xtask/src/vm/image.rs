//! What a machine boots into: tests, the programs that they run, and the kernel's modules, all in memory.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::{EMULATED_VARIABLE, traffic::TRAFFIC_VARIABLE};

use super::{fresh_directory, kernel::Kernel, machine::VERDICT, results::PROGRAM_ENDED};
use crate::process;

/// What tests run; their libraries come along. `env` because busybox's starts busybox's own shell for `sh`.
const PROGRAMS: [&str; 10] =
    ["bash", "env", "ip", "tc", "nft", "iperf3", "kmod", "tmux", "setpriv", "unshare"];
/// Under which names the program that handles modules is called.
const MODULE_PROGRAMS: [&str; 4] = ["modprobe", "insmod", "rmmod", "lsmod"];
/// Debian has one directory for each of these.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// `C.UTF-8`, from `libc-bin`.
const LOCALE: &str = "/usr/lib/locale/C.utf8";

/// Files of the checkout that tests read.
const FILES: [&str; 1] = ["chadthrottle/tests/support/unrecorded.toml"];

/// What is to be run in the machine.
pub(super) struct Tests {
    /// Test programs.
    programs: Vec<PathBuf>,
    /// What they start.
    helpers: Vec<PathBuf>,
    /// What they read.
    files: Vec<PathBuf>,
}

/// A packed root directory.
pub(super) struct Image {
    pub(super) path: PathBuf,
}

/// Builds test programs by this profile of Cargo's, with all features.
pub(super) fn build_tests(root: &Path, profile: &str, names: &[String]) -> Result<Tests> {
    let testbed = ["build", "--quiet", "--profile", profile, "--package", "testbed", "--bins"];
    process::run(process::host_cargo(root).args(testbed))?;
    let mut command = process::host_cargo(root);
    command.args([
        "test",
        "--no-run",
        "--profile",
        profile,
        "--package",
        "chadthrottle",
        "--all-features",
        "--message-format=json",
    ]);
    for name in names {
        command.args(["--test", name]);
    }
    let messages = process::output(&mut command)?;
    let files = FILES.map(|file| root.join(file)).to_vec();
    let mut tests = Tests { programs: Vec::new(), helpers: Vec::new(), files };
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(executable) = message["executable"].as_str() else { continue };
        let is_test = message["profile"]["test"] == true;
        if is_test { &mut tests.programs } else { &mut tests.helpers }.push(executable.into());
    }
    ensure!(!tests.programs.is_empty(), "cargo built no tests called {names:?}");
    // In the order that was asked for, which cargo does not keep.
    tests.programs.sort_by_key(|program| names.iter().position(|name| is_called(program, name)));
    let directory = tests.programs[0].parent().and_then(Path::parent).context("tests are in no directory")?;
    tests.helpers.extend(["traffic", "bed"].map(|name| directory.join(name)));
    Ok(tests)
}

/// Whether a test program is this one: cargo has put a hash after the name.
fn is_called(program: &Path, name: &str) -> bool {
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    file.rsplit_once('-').is_some_and(|(before, _)| before == name)
}

impl Tests {
    /// Lines for the shell of the machine that run every program, each for so many seconds at most.
    pub(super) fn script(&self, arguments: &[OsString], patience: u64) -> String {
        let quoted: Vec<_> = arguments
            .iter()
            .map(|argument| format!("'{}'", argument.to_string_lossy().replace('\'', r"'\''")))
            .collect();
        // One test after the other: they share two slow processors.
        let run = |program: &PathBuf| {
            format!("run {patience} {} --test-threads=1 {}\n", program.display(), quoted.join(" "))
        };
        self.programs.iter().map(run).collect()
    }
}

impl Image {
    /// Collects and packs everything.
    pub(super) fn make(kernel: &Kernel, tests: &Tests, script: &str, work: &Path) -> Result<Self> {
        // A directory for each kernel, so that two of these commands can run at once.
        let root = work.join(format!("{}.root", kernel.release));
        fresh_directory(&root)?;
        for name in MERGED {
            fs::create_dir_all(root.join("usr").join(name))?;
            symlink(Path::new("usr").join(name), root.join(name))?;
        }
        for name in ["dev", "proc", "sys", "run", "tmp", "root", "etc", "var"] {
            fs::create_dir_all(root.join(name))?;
        }
        symlink("../run", root.join("var/run"))?;
        for name in ["passwd", "group", "nsswitch.conf", "protocols", "services"] {
            // Not every machine has all of them.
            let _ = fs::copy(Path::new("/etc").join(name), root.join("etc").join(name));
        }
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
        let programs = add_programs(&root)?;
        for file in tests.programs.iter().chain(&tests.helpers) {
            add_stripped(&root, file)?;
        }
        for file in &tests.files {
            add(&root, file)?;
        }
        for file in &tests.helpers {
            let name = file.file_name().context("a program has a name")?;
            symlink(file, root.join("usr/bin").join(name))?;
        }
        let files: Vec<_> = programs.iter().chain(&tests.programs).chain(&tests.helpers).collect();
        for library in libraries(&files)? {
            add(&root, &library)?;
        }
        add_locale(&root)?;
        add_modules(&root, kernel)?;
        write_executable(&root.join("init"), &init(script))?;
        let path = work.join(format!("{}.cpio", kernel.release));
        pack(&root, &path)?;
        fs::remove_dir_all(&root)?;
        Ok(Self { path })
    }
}

/// Adds the programs that tests run, and says where they are on this machine.
fn add_programs(root: &Path) -> Result<Vec<PathBuf>> {
    let path = process::path_with(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))?;
    let find = |name: &str| {
        process::find_in(&path, name).with_context(|| format!("{name} is not in PATH, and the tests use it"))
    };
    let mut programs = Vec::new();
    for name in PROGRAMS {
        let program = find(name)?.canonicalize()?;
        add(root, &program)?;
        let usual = root.join("usr/bin").join(name);
        if !usual.exists() {
            symlink(Path::new("/").join(program.strip_prefix("/")?), &usual)?;
        }
        programs.push(program);
    }
    // Busybox's own shell takes its applets for programs first, and those know fewer options.
    symlink("bash", root.join("usr/bin/sh"))?;
    let busybox = find("busybox")?.canonicalize()?;
    fs::copy(&busybox, root.join("usr/bin/busybox"))?;
    let applets = process::output(Command::new(&busybox).arg("--list"))?;
    for name in MODULE_PROGRAMS {
        symlink("/bin/kmod", root.join("usr/sbin").join(name))?;
    }
    for applet in applets.lines() {
        let taken =
            ["bin", "sbin"].iter().any(|place| root.join("usr").join(place).join(applet).is_symlink());
        if !taken && !root.join("usr/bin").join(applet).exists() {
            symlink("busybox", root.join("usr/bin").join(applet))?;
        }
    }
    Ok(programs)
}

/// The shared libraries of programs, and what loads them.
fn libraries(programs: &[&PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        let needs = process::output(Command::new("ldd").arg(program))?;
        let words = needs.lines().flat_map(str::split_whitespace);
        libraries.extend(words.filter(|word| word.starts_with('/')).map(PathBuf::from));
    }
    // What finds users and hosts is loaded by name.
    for directory in ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"] {
        let files = Path::new(directory).join("libnss_files.so.2");
        if files.exists() {
            libraries.insert(files);
        }
    }
    Ok(libraries)
}

/// Copies a file to where it is here, whatever links lead to it.
fn add(root: &Path, file: &Path) -> Result<()> {
    let directory = file.parent().context("a file has a directory")?.canonicalize()?;
    let directory = root.join(directory.strip_prefix("/")?);
    fs::create_dir_all(&directory)?;
    let to = directory.join(file.file_name().context("a file has a name")?);
    fs::copy(file, &to).with_context(|| format!("cannot copy {} to {}", file.display(), to.display()))?;
    Ok(())
}

/// The same without what debuggers read, which is most of it.
fn add_stripped(root: &Path, file: &Path) -> Result<()> {
    let to = root.join(file.strip_prefix("/")?);
    fs::create_dir_all(to.parent().context("a file has a directory")?)?;
    process::run(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(file))
}

/// Adds the one locale that every Debian has, without which tmux does not start.
fn add_locale(root: &Path) -> Result<()> {
    let to = root.join("usr/lib/locale");
    fs::create_dir_all(&to)?;
    process::run(Command::new("cp").args(["--recursive", LOCALE]).arg(to))
}

/// Adds the kernel's modules, and what finds them.
fn add_modules(root: &Path, kernel: &Kernel) -> Result<()> {
    let to = root.join("usr/lib/modules").join(&kernel.release);
    for part in ["kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch/x86/crypto", "kernel/drivers/net"]
    {
        let from = kernel.modules.join(part);
        if from.is_dir() {
            let into = to.join(part);
            fs::create_dir_all(into.parent().context("a directory has one above it")?)?;
            process::run(Command::new("cp").arg("--recursive").arg(from).arg(into))?;
        }
    }
    for list in ["modules.builtin", "modules.order", "modules.builtin.modinfo"] {
        fs::copy(kernel.modules.join(list), to.join(list))?;
    }
    process::run(Command::new("/sbin/depmod").arg("--basedir").arg(root.join("usr")).arg(&kernel.release))
}

fn write_executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The first process of the machine, which runs `script` in a shell.
fn init(script: &str) -> String {
    format!(
        r#"#!/bin/bash
export PATH=/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 RUST_BACKTRACE=1 CI=true
export {TRAFFIC_VARIABLE}=/usr/bin/traffic {EMULATED_VARIABLE}=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mount -t securityfs security /sys/kernel/security 2>/dev/null
mount -t bpf bpf /sys/fs/bpf 2>/dev/null
mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
if grep -q chad.cgroups=legacy /proc/cmdline; then
    mount -t tmpfs cgroup /sys/fs/cgroup
    mkdir /sys/fs/cgroup/pids
    mount -t cgroup -o pids pids /sys/fs/cgroup/pids
elif grep -q chad.cgroups=hybrid /proc/cmdline; then
    mount -t tmpfs cgroup /sys/fs/cgroup
    mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/net_cls
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    modprobe -q cls_cgroup
    mount -t cgroup -o net_cls net_cls /sys/fs/cgroup/net_cls
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
ip link set lo up
modprobe -q tun
chmod 1777 /tmp
ulimit -n 65536
failed=0
run() {{
    local patience=$1 begun=$SECONDS status
    shift
    printf '\n==> %s on Linux %s\n' "${{1##*/}}" "$(uname -r)"
    timeout -k 10 "$patience" "$@"
    status=$?
    [ $status = 0 ] || failed=$((failed + 1))
    echo
    echo "{PROGRAM_ENDED} ${{1##*/}} $status $((SECONDS - begun))"
}}
{script}
echo
echo "{VERDICT} $failed"
sync
poweroff -f
"#
    )
}

/// Packs a directory as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst).
fn pack(root: &Path, to: &Path) -> Result<()> {
    let names = process::output(Command::new("find").arg(".").current_dir(root))?;
    let archive = fs::File::create(to)?;
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=+0:+0"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(archive)
        .spawn()
        .context("cannot start cpio")?;
    let mut input = cpio.stdin.take().context("cpio takes no names")?;
    input.write_all(names.as_bytes())?;
    input.write_all(b"\n")?;
    drop(input);
    ensure!(cpio.wait()?.success(), "cpio failed");
    Ok(())
}
