//! Everything about this repository that is more than one cargo command: `cargo xtask --help`.

mod architectures;
mod bench;
mod ci;
mod dist;
mod ebpf;
mod fuzz;
mod process;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Repository tasks", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the eBPF programs and install the objects that `chadthrottle` embeds
    Ebpf(ebpf::Options),
    /// Run every test of the workspace, in the kernel too (needs root)
    Test(test::Options),
    /// Measure, and print tables (needs root)
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Give any bytes to all that reads what others have written
    Fuzz(fuzz::Options),
    /// Run tests on Debian's kernels, in a virtual machine
    Vm(vm::Options),
    /// Make a Debian package
    Dist(dist::Options),
    /// Run what CI runs, all of it or the steps named
    Ci(ci::Options),
}

fn main() -> ExitCode {
    if let Some(status) = fuzz::compile_if_asked() {
        return status;
    }
    let result = match Arguments::parse().task {
        Task::Ebpf(options) => ebpf::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(bench) => bench.run(),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Vm(options) => vm::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Ci(options) => ci::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
