//! Tests that fail are run once more, alone.
//!
//! Most of ours measure what a kernel does with real traffic, on machines that others use at the same time. What such a
//! moment spoils holds when it is tried again; what is broken fails twice. Nothing of that is hidden: what passed only
//! the second time is named at the end.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    mem,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

use crate::process;

/// Where more tests fail, or more programs with tests, it is not the moment.
const MOST: usize = 5;

/// The tests of one program that failed.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    /// What cargo calls the program: `-p chadthrottle --test limits`.
    target: String,
    /// Empty where they are not known: then it is all of them.
    names: Vec<String>,
}

/// Where the output of what is run goes, and its errors.
type Shown = (Box<dyn Write>, Box<dyn Write + Send>);

/// Runs `cargo test`, and what failed in it once more: with `again`, and the arguments for that program and its tests.
pub(super) fn run(tests: &mut Command, again: impl Fn() -> Result<Command>) -> Result<()> {
    run_shown(tests, again, || (Box::new(io::stdout()), Box::new(io::stderr())))
}

fn run_shown(
    tests: &mut Command,
    again: impl Fn() -> Result<Command>,
    shown: impl Fn() -> Shown,
) -> Result<()> {
    let first = Run::watch(tests, shown())?;
    if first.succeeded {
        return Ok(());
    }
    let failed = first.failed().with_context(|| format!("{} failed", process::describe(tests)))?;
    println!("\nonce more, alone: {}", listed(&failed));
    for Failed { target, names } in &failed {
        let mut command = again()?;
        command.args(target.split(' '));
        if !names.is_empty() {
            command.args(["--", "--exact"]).args(names);
        }
        let second = Run::watch(&mut command, shown())?;
        ensure!(second.succeeded, "failed twice, the second time alone: {}", listed(&failed));
        let has_run = names.is_empty() || second.passed == names.len();
        ensure!(has_run, "{} did not run each of them", process::describe(&command));
    }
    println!("\nFAILED ONCE, and passed when run again alone: {}", listed(&failed));
    Ok(())
}

fn listed(failed: &[Failed]) -> String {
    let one = |failed: &Failed| match failed.names[..] {
        [] => format!("all of {}", failed.target),
        _ => failed.names.join(", "),
    };
    failed.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What a run of `cargo test` printed, as far as it matters here.
#[derive(Default)]
struct Run {
    succeeded: bool,
    /// Tests that passed, of all programs.
    passed: usize,
    /// For each program with a failure, the names that it lists, in the order of the programs.
    names: Vec<Vec<String>>,
    /// Programs with a failure, as cargo names them at the end, in the same order.
    targets: Vec<String>,
    /// Names in the list that is being printed.
    list: Vec<String>,
}

impl Run {
    /// Runs the command to its end.
    fn watch(command: &mut Command, (output, errors): Shown) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", process::describe(command)))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let mut run = Self::default();
        let targets = thread::spawn(move || {
            let mut targets = Vec::new();
            pass_on(stderr, errors, |line| targets.extend(target(line))).map(|()| targets)
        });
        pass_on(stdout, output, |line| run.see(line))?;
        run.targets = targets.join().ok().context("the thread for standard error ended")??;
        run.succeeded = child.wait()?.success();
        Ok(run)
    }

    /// A line of what libtest prints.
    fn see(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("    ").filter(|name| !name.contains(' ')) {
            self.list.push(name.to_owned());
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += passed(result);
            let names = mem::take(&mut self.list);
            if result.starts_with("FAILED") {
                self.names.push(names);
            }
        } else if !line.is_empty() {
            self.list.clear();
        }
    }

    /// What can be run again.
    fn failed(self) -> Result<Vec<Failed>> {
        if self.targets.is_empty() {
            bail!("it did not get as far as its tests");
        }
        let Self { targets, mut names, .. } = self;
        // One that crashed, or has its own way of testing, has not said which.
        if targets.len() != names.len() || names.iter().any(Vec::is_empty) {
            names = vec![Vec::new(); targets.len()];
        }
        ensure!(targets.len() <= MOST, "tests failed in {}", targets.join(", "));
        let failed: Vec<_> =
            targets.into_iter().zip(names).map(|(target, names)| Failed { target, names }).collect();
        let count: usize = failed.iter().map(|failed| failed.names.len()).sum();
        ensure!(count <= MOST, "{count} tests failed: {}", listed(&failed));
        Ok(failed)
    }
}

/// Hands each line on, and shows it to `see`.
fn pass_on(from: impl Read, mut to: impl Write, mut see: impl FnMut(&str)) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        see(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        line.clear();
    }
    Ok(())
}

/// A program in cargo's list of those that failed: "    `-p chadthrottle --test limits`".
fn target(line: &str) -> Option<String> {
    line.strip_prefix("    `-p ")?.strip_suffix('`').map(|rest| format!("-p {rest}"))
}

/// How many passed, of "ok. 3 passed; 0 failed; …".
fn passed(result: &str) -> usize {
    result
        .split([' ', ';'])
        .skip_while(|word| word.parse::<usize>().is_err())
        .find_map(|word| word.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 2 tests
test one ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s


running 3 tests
test path::lossy ... FAILED
test upload ... FAILED

failures:

---- upload stdout ----

thread 'upload' panicked at tests/limits.rs:1:2:
stack backtrace:
    indented

---- path::lossy stdout ----
Error: no

failures:
    path::lossy
    upload

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

    fn run_of(output: &str, errors: &str) -> Run {
        let mut run = Run::default();
        pass_on(output.as_bytes(), io::sink(), |line| run.see(line)).expect("memory can be read");
        run.targets = errors.lines().filter_map(target).collect();
        run
    }

    #[test]
    fn what_failed_is_known_with_its_program() {
        let errors = "error: test failed, to rerun pass `-p chadthrottle --test limits`\nerror: 1 target failed:\n    \
                      `-p chadthrottle --test limits`\n";
        let run = run_of(OUTPUT, errors);
        assert_eq!(run.passed, 3);
        let names = ["path::lossy", "upload"].map(str::to_owned).to_vec();
        let target = "-p chadthrottle --test limits".to_owned();
        assert_eq!(run.failed().expect("names"), [Failed { target, names }]);
    }

    #[test]
    fn without_names_it_is_the_whole_program_and_without_programs_nothing() {
        let crashed = "error: 2 targets failed:\n    `-p a --lib`\n    `-p b --test c`\n";
        let whole = |target: &str| Failed { target: target.to_owned(), names: Vec::new() };
        let failed = run_of(OUTPUT, crashed).failed().expect("programs");
        assert_eq!(failed, [whole("-p a --lib"), whole("-p b --test c")]);
        assert_eq!(listed(&failed), "all of -p a --lib, all of -p b --test c");
        assert!(run_of("", "error: could not compile `a`\n").failed().is_err());
        let many = format!(
            "failures:\n{}\ntest result: FAILED. 0 passed; 6 failed\n",
            "    test\n".repeat(MOST + 1)
        );
        let error = run_of(&many, "    `-p a --lib`\n").failed().expect_err("too many");
        assert!(error.to_string().starts_with("6 tests failed"), "{error}");
    }

    /// Programs that print what cargo and a test would, the second time as `passes` says.
    fn twice(second: &str, status: u8) -> Result<()> {
        let script = |text: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", text, "sh"]);
            shell
        };
        let first = "printf 'failures:\\n    one\\n\\ntest result: FAILED. 0 passed; 1 failed\\n'; \
                     printf '    `-p a --lib`\\n' >&2; exit 101";
        let again = || Ok(script(&format!("echo 'test result: {second}'; exit {status}")));
        run_shown(&mut script(first), again, || (Box::new(io::sink()), Box::new(io::sink())))
    }

    #[test]
    fn the_second_time_counts_if_it_ran() {
        twice("ok. 1 passed; 0 failed", 0).expect("passed the second time");
        twice("ok. 0 passed; 0 failed", 0).expect_err("no test of that name ran");
        twice("FAILED. 0 passed; 1 failed", 101).expect_err("failed twice");
    }
}
