//! `cargo xtask ebpf`: the eBPF objects, one for each byte order, from the sources to where `chadthrottle` embeds them.

mod byte_order;
mod compare;
mod record;
mod sources;
mod strip;
mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::{
    byte_order::ByteOrder,
    record::Record,
    sources::Sources,
    toolchain::{Compiler, Kind, Linker},
};
use crate::process;

/// What both objects were built with.
const RECORD: &str = "chadthrottle/src/backends/ebpf/chadthrottle.bpf.toolchain";
/// Makes the build of `chadthrottle` embed another object than the committed one.
const OBJECT_VARIABLE: &str = "CHADTHROTTLE_EBPF_OBJECT";

/// The command line.
#[derive(Args)]
pub(crate) struct Options {
    /// Install nothing; fail if the committed objects are not what the sources make
    #[arg(long)]
    check: bool,
    /// The compiler to use, instead of the first one that is installed
    #[arg(long, value_name = "KIND")]
    toolchain: Option<Kind>,
}

impl Options {
    /// What CI asks for.
    pub(crate) fn check() -> Self {
        Self { check: true, toolchain: None }
    }
}

/// Objects fresh from the compiler, stripped.
struct Built {
    objects: [(ByteOrder, Vec<u8>); 2],
    record: Record,
    target_dir: PathBuf,
}

/// Builds, then installs or checks.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = process::root()?;
    let built = build(&root, options.toolchain)?;
    if options.check { check(&root, &built) } else { install(&root, &built) }
}

/// Clippy over the eBPF package, with the compiler that builds it.
pub(crate) fn clippy() -> Result<()> {
    let root = process::root()?;
    let compiler = Compiler::find(None)?;
    let mut command = compiler.cargo_ebpf(&root, "clippy", ByteOrder::HOST, &target_dir(&root), &[])?;
    process::run(command.args(["--", "-D", "warnings"]))
}

fn target_dir(root: &Path) -> PathBuf {
    process::target_dir(root).join("ebpf")
}

fn build(root: &Path, toolchain: Option<Kind>) -> Result<Built> {
    let compiler = Compiler::find(toolchain)?;
    let linker = Linker::find()?;
    println!("compiler: {} ({}), linker: {}", compiler.version(), compiler.kind.name(), linker.version);
    let sources = Sources::find(&compiler, root)?;
    let record = Record::of(&compiler, &linker, &sources)?;
    let target_dir = target_dir(root);
    let remap = sources.remap(&compiler, root, &target_dir);
    let object = |order: ByteOrder| -> Result<(ByteOrder, Vec<u8>)> {
        process::run(&mut compiler.cargo_ebpf(root, "build", order, &target_dir, &remap)?)?;
        let file = Compiler::built(order, &target_dir);
        let object = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let object = strip::strip(&object).with_context(|| format!("cannot strip {}", file.display()))?;
        Ok((order, object))
    };
    let objects = [object(ByteOrder::Little)?, object(ByteOrder::Big)?];
    Ok(Built { objects, record, target_dir })
}

fn install(root: &Path, built: &Built) -> Result<()> {
    for (order, object) in &built.objects {
        write_if_changed(&root.join(order.object()), object)?;
    }
    write_if_changed(&root.join(RECORD), built.record.to_text().as_bytes())
}

fn check(root: &Path, built: &Built) -> Result<()> {
    let record = fs::read_to_string(root.join(RECORD)).with_context(|| format!("cannot read {RECORD}"))?;
    let record = Record::from_text(&record).with_context(|| format!("cannot use {RECORD}"))?;
    if record.sources != built.record.sources {
        bail!(
            "the committed eBPF objects are out of date: the eBPF sources (or the versions of what they use) have \
             changed since they were built. Run `cargo xtask ebpf` and commit what it writes"
        );
    }
    let tools = record.tools.differences(&built.record.tools);
    let mut differs = false;
    for (order, object) in &built.objects {
        let name = order.object();
        let committed = fs::read(root.join(name)).with_context(|| format!("cannot read {name}"))?;
        match compare::difference(&committed, object) {
            None => println!("{name} is what the sources make: all {} bytes are equal", committed.len()),
            Some(difference) if tools.is_empty() => bail!(
                "{name} is not what the sources make, though the tools are those that it was built with: \
                 {difference}. Run `cargo xtask ebpf` and commit what it writes"
            ),
            Some(_) => differs = true,
        }
    }
    if !differs {
        return Ok(());
    }
    println!(
        "The tools here are others than those that the committed objects were built with:\n{}",
        tools.join("\n")
    );
    println!("Bytes are not compared, therefore; the tests run with the object that was built here.");
    test_rebuilt(root, built)
}

/// Other tools make other bytes, so the question is whether what they make works. What this machine cannot load has been
/// built, at least.
fn test_rebuilt(root: &Path, built: &Built) -> Result<()> {
    let [(_, little), (_, big)] = &built.objects;
    let fresh = if ByteOrder::HOST == ByteOrder::Little { little } else { big };
    let object = built.target_dir.join("chadthrottle.bpf.o");
    write_if_changed(&object, fresh)?;
    let mut command = test_command(root, &object);
    println!("{OBJECT_VARIABLE}={} {}", object.display(), process::describe(&command));
    process::run(&mut command).context("the object built here, with other tools, does not pass the tests")
}

fn test_command(root: &Path, object: &Path) -> Command {
    let mut command = process::host_cargo(root);
    command.args(["test", "--package", "chadthrottle", "--all-features", "--no-fail-fast"]);
    command.env(OBJECT_VARIABLE, object);
    command
}

/// Leaves the file alone if it is right already, so that nothing that embeds it is built again.
fn write_if_changed(file: &Path, content: &[u8]) -> Result<()> {
    let name = file.display();
    if fs::read(file).is_ok_and(|old| old == content) {
        println!("unchanged: {name} ({} bytes)", content.len());
        return Ok(());
    }
    let directory = file.parent().with_context(|| format!("{name} has no directory"))?;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    fs::write(file, content).with_context(|| format!("cannot write {name}"))?;
    println!("written: {name} ({} bytes)", content.len());
    Ok(())
}
