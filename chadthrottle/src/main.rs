//! Parses the command line, sets up the log, and turns errors into exit statuses. Nothing else.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;
use chadthrottle::{
    backends::registry::{Backends, Wanted},
    cli::{Cli, Command, Common, packaging},
    config::Files,
    failure::{self, Failure},
    headless,
    sys::cgroup::CgroupRoot,
};
use env_logger::Target;
use log::LevelFilter;

fn main() -> ExitCode {
    #[cfg(feature = "limits")]
    if let Some(status) = chadthrottle::backends::throttle::guard::run_if_asked() {
        return status;
    }
    let cli = Cli::from_arguments();
    match run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => match failure::exit_status(&error) {
            Some(status) => {
                // Whoever cannot read it any more still wants to know the status.
                let way_out = failure::way_out(&error).unwrap_or_default();
                let _ = writeln!(io::stderr(), "chadthrottle: {error:#}{way_out}");
                ExitCode::from(status)
            }
            None => ExitCode::SUCCESS,
        },
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    let has_screen = cli.command.is_none() && cli.limit.option().is_none() && !cli.list_backends;
    start_log(&cli.common, has_screen)?;
    if let Some(path) = &cli.common.cgroup_root {
        // A wrong path is the command line's fault, not that of whichever backend meets it first.
        CgroupRoot::open(Some(path)).map_err(|error| Failure::Usage(format!("--cgroup-root: {error}")))?;
    }
    check_interfaces(&cli.common.interfaces)?;
    let backends = Backends::new(cli.common.backend_options());
    let wanted = cli.common.wanted();
    match cli.command {
        Some(Command::Run { upload_limit, download_limit, traffic, command }) => {
            let limits = chadthrottle::cli::limits(upload_limit, download_limit);
            headless::command::run(&backends, &wanted, limits, traffic, &command)
        }
        Some(Command::Cleanup { dry_run }) => {
            headless::cleanup::run(dry_run, &mut io::stdout().lock()).map(|()| 0)
        }
        Some(Command::Status { json }) => {
            headless::status::run(json, &cli.common.place(), &mut io::stdout().lock()).map(|()| 0)
        }
        Some(Command::Doctor { json }) => {
            headless::doctor::run(&backends, &wanted, json, &mut io::stdout().lock()).map(|()| 0)
        }
        Some(Command::History(options)) => {
            let settings = headless::screen::configured(&cli.common.config_files())?.history;
            let path = settings.file().context("there is no home to keep a history in: HOME is not set")?;
            headless::history::run(&path, &options, &mut io::stdout().lock()).map(|()| 0)
        }
        Some(Command::Daemon) => {
            headless::daemon::run(&backends, &wanted, &cli.common.config_files(), &cli.common.place())
                .map(|()| 0)
        }
        Some(Command::Rules(command)) => {
            let (files, root) = (cli.common.config_files(), cli.common.cgroup_root.as_deref());
            headless::rules::run(&command, &files, root, &cli.common.place(), &mut io::stdout().lock())
                .map(|()| 0)
        }
        Some(Command::Completions { shell }) => {
            packaging::completions(shell, &mut io::stdout().lock()).map(|()| 0)
        }
        Some(Command::Man { directory: Some(directory) }) => packaging::pages(&directory).map(|()| 0),
        Some(Command::Man { directory: None }) => packaging::page(&mut io::stdout().lock()).map(|()| 0),
        Some(Command::Monitor { json, interval, count, pids, connections }) => {
            let options = headless::monitor::Options { json, interval, count, pids, connections };
            headless::monitor::run(&backends, &wanted, &options, &cli.common.place_to_ask()?).map(|()| 0)
        }
        None if cli.list_backends => {
            headless::list::run(&backends, &wanted, cli.json, &mut io::stdout().lock()).map(|()| 0)
        }
        None if cli.limit.option().is_some() => {
            let place = cli.common.place_to_ask()?;
            headless::limit::run(&backends, &wanted, &cli.limit, cli.common.force, &place).map(|()| 0)
        }
        None => show(&cli, &backends, &wanted),
    }
}

/// The screen, over this host or over a simulated one.
fn show(cli: &Cli, backends: &Backends, wanted: &Wanted) -> anyhow::Result<u8> {
    let Some(demo) = cli.demo.options() else {
        let files = cli.common.config_files();
        let config = headless::screen::configured(&files)?;
        let options = cli.screen.options(config.screen);
        return headless::screen::run(backends, wanted, options, config, files, &cli.common.place_to_ask()?);
    };
    // A picture is the same everywhere, but for what the command line says.
    let is_picture = demo.picture.is_some() && cli.common.config.is_none();
    let files = if is_picture { Files::none() } else { cli.common.config_files() };
    let options = cli.screen.options(headless::screen::configured(&files)?.screen);
    // Not locked: whichever thread panics gives the terminal back.
    headless::demo::run(&demo, options, &mut io::stdout())
}

/// A name that nothing has would show nothing, and limit nobody.
fn check_interfaces(names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let there = procfs::net::dev_status().context("cannot list the interfaces")?;
    if let Some(name) = names.iter().find(|name| !there.contains_key(*name)) {
        let mut known: Vec<_> = there.into_keys().collect();
        known.sort();
        let known = known.join(", ");
        return Err(
            Failure::Usage(format!("--interface: there is no {name:?} here; there are: {known}")).into()
        );
    }
    Ok(())
}

/// The log goes to the file where there is one, else to stderr, except over the screen.
fn start_log(common: &Common, has_screen: bool) -> anyhow::Result<()> {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(common.log_level());
    // How the loader relocates each instruction is its authors' concern.
    builder.filter_module("aya", LevelFilter::Warn).filter_module("aya_obj", LevelFilter::Warn);
    match &common.log_file {
        Some(path) => {
            let file = File::options().create(true).append(true).open(path);
            let file = file.with_context(|| format!("cannot write the log file {}", path.display()))?;
            builder.target(Target::Pipe(Box::new(file)));
        }
        // On a terminal stderr is the screen; elsewhere it is a file of the user's choice.
        None if has_screen && io::stderr().is_terminal() => return Ok(()),
        None => {}
    }
    builder.init();
    Ok(())
}
