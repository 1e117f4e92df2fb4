//! `cargo xtask fuzz`: gives any bytes to all that reads what others have written.
//!
//! libFuzzer needs code that tells it which branches were taken. The stable compiler can do that, asked with options that
//! only the compiler's own code generator knows. This program's code alone is compiled so, by being the compiler's wrapper
//! for it: what it depends on is the same as for tests, and is not compiled again.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::process;

const PACKAGE: &str = "chadthrottle-fuzz";
/// Every target: a program of `fuzz/`, and a directory of `fuzz/corpus`.
const TARGETS: [&str; 6] = ["packets", "netlink", "proc", "notes", "config", "words"];
/// That we are to be the compiler.
const COMPILE: &str = "CHADTHROTTLE_FUZZ_COMPILE";
/// What cargo-fuzz gives the compiler where no sanitizer is wanted.
const OPTIONS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// How many run at a time: on the two cores of CI, all of them take three times as long as one.
const AT_A_TIME: usize = 2;
/// Most memory of a target in MB, and most seconds for one input: more than that is an error.
const MOST_MEMORY: &str = "-rss_limit_mb=1024";
const MOST_TIME: &str = "-timeout=10";
/// No datagram or file that matters is longer, in bytes.
const LONGEST: &str = "-max_len=4096";

/// The command line.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these
    #[arg(value_name = "TARGET", value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

impl Options {
    /// As in CI: each for a minute.
    pub(crate) const fn all() -> Self {
        Self { targets: Vec::new(), seconds: 60 }
    }
}

/// Compiles, where cargo has started us for that. None where it has not.
pub(crate) fn compile_if_asked() -> Option<ExitCode> {
    env::var_os(COMPILE)?;
    let mut arguments = env::args_os().skip(1);
    let mut compiler = Command::new(arguments.next()?);
    let arguments: Vec<OsString> = arguments.collect();
    // A build script is a program of its own, without a fuzzer in it.
    let is_build_script = arguments.iter().any(|argument| argument == "build_script_build");
    compiler.args(&arguments);
    if !is_build_script {
        compiler.args(OPTIONS);
    }
    let error = compiler.exec();
    eprintln!("error: cannot start {}: {error}", process::describe(&compiler));
    Some(ExitCode::FAILURE)
}

/// Builds all targets and runs those that are asked for.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = process::root()?;
    build(&root)?;
    let targets: Vec<&str> = match options.targets.as_slice() {
        [] => TARGETS.to_vec(),
        some => some.iter().map(String::as_str).collect(),
    };
    let mut failed = Vec::new();
    for some in targets.chunks(AT_A_TIME) {
        let running: Result<Vec<Run>> =
            some.iter().map(|target| Run::start(&root, target, options.seconds)).collect();
        // All of them are waited for, whichever fails.
        for run in running? {
            failed.extend(run.wait()?);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n       ")) }
}

fn build(root: &Path) -> Result<()> {
    let ourselves = env::current_exe().context("cannot tell which program this is")?;
    let start = Instant::now();
    let mut cargo = process::host_cargo(root);
    cargo.args(["build", "--package", PACKAGE, "--bins"]);
    process::run(cargo.env("RUSTC_WORKSPACE_WRAPPER", ourselves).env(COMPILE, "1"))?;
    println!("built in {:.1} s", start.elapsed().as_secs_f64());
    io::stdout().flush().context("cannot print")
}

/// A target that runs.
struct Run {
    target: String,
    child: Child,
    log: PathBuf,
    /// Where an input is put that something was wrong with.
    artifacts: PathBuf,
}

impl Run {
    fn start(root: &Path, target: &str, seconds: u32) -> Result<Self> {
        // What is found on the way stays out of the checkout.
        let own = process::target_dir(root).join("fuzz").join(target);
        let (found, artifacts) = (own.join("corpus"), own.join("artifacts"));
        for directory in [&found, &artifacts] {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let log = own.join("log");
        let output = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let program = process::target_dir(root).join("debug").join(target);
        let child = Command::new(&program)
            .args([&found, &root.join("fuzz/corpus").join(target)])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(format!("-max_total_time={seconds}"))
            .args([MOST_MEMORY, MOST_TIME, LONGEST, "-print_final_stats=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { target: target.to_owned(), child, log, artifacts })
    }

    /// Why it failed, if it did.
    fn wait(mut self) -> Result<Option<String>> {
        let status = self.child.wait().with_context(|| format!("cannot wait for {}", self.target))?;
        let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        if status.success() {
            let (runs, branches) = figures(&log).with_context(|| {
                format!("{} says nothing of what it did: {}", self.target, self.log.display())
            })?;
            ensure!(branches > 0, "{} was not compiled for the fuzzer", self.target);
            println!("{:<8}{runs} inputs, {branches} branches", self.target);
            return Ok(None);
        }
        // The panic's message and the input, which libFuzzer prints in the end.
        let from = log.find("panicked at").map_or(0, |at| log[..at].rfind('\n').unwrap_or(0));
        print!("{}", &log[from..]);
        io::stdout().flush()?;
        Ok(Some(format!(
            "{} failed ({status}); its input is in {}, to be run by {} FILE",
            self.target,
            self.artifacts.display(),
            Path::new("target/debug").join(&self.target).display()
        )))
    }
}

/// How many inputs were tried and how many branches were seen, by libFuzzer's last words:
/// `#1234 DONE   cov: 56 ft: 78 …` and `stat::number_of_executed_units: 1234`.
fn figures(log: &str) -> Option<(u64, u64)> {
    let number = |after: &str| {
        let rest = log.rsplit_once(after)?.1.trim_start();
        rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
    };
    Some((number("stat::number_of_executed_units:")?, number(" cov:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_end() {
        let log = "#2\tINITED cov: 1 ft: 1 corp: 1/1b\n#900\tDONE   cov: 56 ft: 78 corp: 9/1Kb\n\
                   Done 900 runs in 3 second(s)\nstat::number_of_executed_units: 900\nstat::average_exec_per_sec: 300\n";
        assert_eq!(figures(log), Some((900, 56)));
        assert_eq!(figures("no libFuzzer"), None);
    }

    #[test]
    fn every_target_has_a_program_and_inputs() -> Result<()> {
        let fuzz = process::root()?.join("fuzz");
        for target in TARGETS {
            assert!(fuzz.join("targets").join(target).with_extension("rs").is_file(), "{target}");
            assert!(fuzz.join("corpus").join(target).is_dir(), "{target}");
        }
        assert_eq!(fs::read_dir(fuzz.join("targets"))?.count(), TARGETS.len());
        Ok(())
    }
}
