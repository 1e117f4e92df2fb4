//! `cargo xtask ci`: the steps that a change has to pass.

use std::{
    env, fmt,
    fs::{self, File},
    io,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use testbed::ends_with_its_parent;

use crate::{architectures, dist, ebpf, fuzz, process, test, vm};

/// The command line.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these, in this order
    #[arg(value_name = "STEP")]
    steps: Vec<Step>,
    /// Run the other steps too when one has failed
    #[arg(long)]
    keep_going: bool,
}

/// In the order in which they run: what fails in seconds comes first, what takes minutes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting
    Fmt,
    /// Advisories, licences, duplicates and origins of dependencies
    Deny,
    /// Lints, in the programs for the host and for the kernel
    Clippy,
    /// The documentation builds, and its links lead somewhere
    Doc,
    /// Each feature compiles alone
    Hack,
    /// The program compiles for other processors
    Arch,
    /// The committed eBPF object is what the sources make
    Ebpf,
    /// Any bytes, for a minute each, to all that reads what others have written
    Fuzz,
    /// A short look at everything on Debian's kernels, in virtual machines
    Kernels,
    /// Every test
    Test,
    /// The package installs, upgrades and goes
    Dist,
}

enum Outcome {
    Passed(Duration),
    Failed(Duration),
    NotRun,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(took) => write!(f, "passed in {:.1} s", took.as_secs_f64()),
            Self::Failed(took) => write!(f, "FAILED after {:.1} s", took.as_secs_f64()),
            Self::NotRun => f.write_str("not run"),
        }
    }
}

/// What runs beside [`Step::Fuzz`]: fuzzers take a minute each whatever else there is. Tests run alone, since their
/// deadlines are those of a machine that does nothing else.
const BESIDE_FUZZ: Step = Step::Kernels;

/// Runs the steps and prints which of them passed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let steps = if options.steps.is_empty() { Step::value_variants() } else { &options.steps };
    let are_paired = steps.contains(&Step::Fuzz) && steps.contains(&BESIDE_FUZZ);
    let steps: Vec<Step> = steps.iter().copied().filter(|&step| !are_paired || step != BESIDE_FUZZ).collect();
    let (outcomes, errors) = run_all(&steps, options.keep_going, |step| match step {
        Step::Fuzz if are_paired => beside(Step::Fuzz, BESIDE_FUZZ),
        step => step.run(),
    });
    println!("\n==> summary");
    for (step, outcome) in &outcomes {
        println!("{:<8}{outcome}", step.name());
    }
    if !errors.is_empty() {
        bail!("{}", errors.join("\n       "));
    }
    Ok(())
}

/// Runs a step while another one runs, and prints what that one prints when both have ended.
fn beside(step: Step, other: Step) -> Result<()> {
    let log = process::target_dir(&process::root()?).join("ci-beside.log");
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    println!("beside it, in {}: {}", log.display(), other.name());
    let mut command = Command::new(env::current_exe()?);
    command.args(["ci", other.name()]);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // Or whoever ends this would leave virtual machines behind.
    ends_with_its_parent(&mut command);
    let mut beside = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let done = step.run();
    let status = beside.wait()?;
    print!("{}", fs::read_to_string(&log)?);
    let errors: Vec<String> = [done, status.success().then_some(()).context(other.name())]
        .into_iter()
        .filter_map(|result| Some(format!("{:#}", result.err()?)))
        .collect();
    ensure!(errors.is_empty(), "{}", errors.join("; "));
    Ok(())
}

fn run_all(
    steps: &[Step],
    keep_going: bool,
    run: impl Fn(Step) -> Result<()>,
) -> (Vec<(Step, Outcome)>, Vec<String>) {
    let mut errors = Vec::new();
    let mut outcomes = Vec::new();
    for &step in steps {
        if !errors.is_empty() && !keep_going {
            outcomes.push((step, Outcome::NotRun));
            continue;
        }
        println!("\n==> {}", step.name());
        // What the step runs writes to the same place.
        io::stdout().flush().unwrap_or_default();
        let start = Instant::now();
        let outcome = match run(step) {
            Ok(()) => Outcome::Passed(start.elapsed()),
            Err(error) => {
                errors.push(format!("{}: {error:#}", step.name()));
                Outcome::Failed(start.elapsed())
            }
        };
        println!("==> {}: {outcome}", step.name());
        outcomes.push((step, outcome));
    }
    (outcomes, errors)
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Deny => "deny",
            Self::Clippy => "clippy",
            Self::Doc => "doc",
            Self::Hack => "hack",
            Self::Arch => "arch",
            Self::Ebpf => "ebpf",
            Self::Fuzz => "fuzz",
            Self::Kernels => "kernels",
            Self::Test => "test",
            Self::Dist => "dist",
        }
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => process::run(cargo()?.args(["fmt", "--all", "--check"])),
            Self::Deny => deny(),
            Self::Clippy => {
                let arguments =
                    ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
                process::run(cargo()?.args(arguments))?;
                ebpf::clippy()
            }
            Self::Doc => {
                let arguments = ["doc", "--workspace", "--no-deps", "--all-features"];
                process::run(cargo()?.args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
            }
            Self::Hack => {
                installed("hack")?;
                // For the host, chadthrottle-ebpf is an empty program without features.
                let arguments =
                    ["hack", "--workspace", "--exclude", "chadthrottle-ebpf", "--each-feature", "check"];
                process::run(cargo()?.args(arguments))
            }
            Self::Arch => architectures::check(),
            Self::Ebpf => ebpf::run(&ebpf::Options::check()),
            Self::Fuzz => fuzz::run(&fuzz::Options::all()),
            Self::Kernels => vm::smoke(),
            Self::Test => test::run(&test::Options::default()),
            Self::Dist => dist::check(),
        }
    }
}

/// What can be checked from the checkout always, and the advisories where their database can be had.
fn deny() -> Result<()> {
    installed("deny")?;
    process::run(cargo()?.args(["deny", "check", "bans", "licenses", "sources"]))?;
    if process::quiet_output(cargo()?.args(["deny", "fetch", "db"])).is_none() {
        println!(
            "NOT CHECKED: advisories, because their database cannot be fetched from here (`cargo deny fetch db` \
             says why). Where it can: `cargo deny check advisories`"
        );
        return Ok(());
    }
    process::run(cargo()?.args(["deny", "check", "advisories"]))
}

fn cargo() -> Result<Command> {
    Ok(process::host_cargo(&process::root()?))
}

fn installed(subcommand: &str) -> Result<()> {
    process::quiet_output(cargo()?.args([subcommand, "--version"])).map(drop).with_context(|| {
        format!("cargo-{subcommand} is not installed: cargo install --locked cargo-{subcommand}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(keep_going: bool) -> (String, Vec<String>) {
        let steps = [Step::Fmt, Step::Clippy, Step::Test];
        let (outcomes, errors) = run_all(&steps, keep_going, |step| match step {
            Step::Clippy => bail!("a lint"),
            _ => Ok(()),
        });
        let letters = outcomes.iter().map(|(_, outcome)| match outcome {
            Outcome::Passed(_) => 'p',
            Outcome::Failed(_) => 'f',
            Outcome::NotRun => 'n',
        });
        (letters.collect(), errors)
    }

    #[test]
    fn stops_at_the_first_failure() {
        assert_eq!(outcomes(false), ("pfn".to_owned(), vec!["clippy: a lint".to_owned()]));
    }

    #[test]
    fn keeps_going_if_asked_and_fails_all_the_same() {
        assert_eq!(outcomes(true), ("pfp".to_owned(), vec!["clippy: a lint".to_owned()]));
    }

    #[test]
    fn every_step_has_the_name_that_the_command_line_takes() {
        for step in Step::value_variants() {
            let value = step.to_possible_value().expect("no step is hidden");
            assert_eq!(value.get_name(), step.name());
        }
    }
}
