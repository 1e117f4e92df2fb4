//! Without a command: the screen.

use jiff::tz::TimeZone;

use crate::{
    app::BackendNames,
    backends::{
        monitor::MonitorBackend,
        registry::{Backends, Wanted},
        throttle::{ThrottleManager, manager::Limits},
    },
    config::{Config, Files, HistorySettings},
    daemon::{
        client::{Client, Place, Reached},
        monitor::RemoteMonitor,
        remote::Remote,
    },
    failure::Failure,
    history::{self, Writer, past::Source, store::HistoryError},
    lookout::Here,
    names::Resolver,
    rules::keeper::{Keeper, RuleFiles},
    run::{self, Ended, Host, Keeping, RunOptions},
    sys::{
        capability::{self, CHOWN, DAC_OVERRIDE, FOWNER, NET_ADMIN, SYS_ADMIN},
        cgroup::CgroupRoot,
        signals::Signals,
        spawn::status_of_signal,
    },
};

/// What the configuration says; the keys that it wants are those of the program from here on.
///
/// # Errors
/// When it cannot be read, or says something wrong.
pub fn configured(files: &Files) -> anyhow::Result<Config> {
    let mut config = Config::load(files)?;
    if let Some(keys) = config.keys.take() {
        keys.choose();
    }
    Ok(config)
}

/// Who records what is used, where that is wanted and nobody else does already.
pub(super) fn recorded(settings: &HistorySettings) -> Option<Writer> {
    let path = settings.recorded_to()?;
    match Writer::new(&path) {
        Ok(writer) => Some(writer),
        Err(error @ HistoryError::Busy(_)) => {
            log::info!("{error}");
            None
        }
        Err(error) => {
            log::warn!("nothing is recorded: {error}");
            None
        }
    }
}

/// Opens the screen, and returns the exit status once it is closed.
///
/// # Errors
/// When no backend works here, or there is no terminal.
pub fn run(
    backends: &Backends,
    wanted: &Wanted,
    options: RunOptions,
    config: Config,
    files: Files,
    place: &Place,
) -> anyhow::Result<u8> {
    let signals = Signals::hold_for_screen()?;
    let reached = place.reach()?;
    let is_closed = matches!(reached, Reached::Closed);
    // Two connections: what is set does not hang on how fast figures are taken.
    if let Reached::Daemon(limits) = reached
        && limits.daemon.monitor.is_some()
        && let Reached::Daemon(figures) = place.reach()?
    {
        return over_daemon(backends, wanted, options, (*limits, *figures), signals);
    }
    // Whatever can be told without changing the kernel is refused before the terminal is taken over.
    let mut monitor = backends.select_monitor_backend(wanted.monitor.as_deref())?;
    let (upload, download) = super::select_throttles(backends, wanted, Limits::default())?;
    run::require_terminal().map_err(|error| Failure::Usage(error.to_string()))?;
    // Whatever backend is chosen later. Rules are saved where the user keeps them who has become root for this, connections
    // are asked for where their process is, and what programs cost is told to nobody with less.
    super::give_up_others(&[], &[SYS_ADMIN, CHOWN, DAC_OVERRIDE, FOWNER]);
    let limits_udp = upload.capabilities().udp;
    let names = BackendNames {
        monitor: monitor.name(),
        upload: upload.name(),
        download: download.as_ref().map(|download| download.name()),
    };
    let is_partial = !(monitor.capabilities().udp && limits_udp);
    let notice = if is_closed { Some(CLOSED) } else { is_partial.then(what_is_missing) };
    let options = RunOptions { notice, ..options };
    let root = CgroupRoot::open(backends.options().cgroup_root.as_deref()).ok();
    let keeper = Keeper::new(config.rules, root, TimeZone::system());
    let history = recorded(&config.history);
    let source = Source::own(config.history.file(), config.history.recorded_to().is_some());
    let host = Host {
        lookout: Box::new(Here::new(backends.clone(), wanted.clone(), source)),
        names: Box::new(Resolver),
        supply: Box::new(backends.clone()),
        rules: Some(Keeping::Here(Box::new(RuleFiles { files, keeper, history }))),
    };
    let start = move || {
        // The monitor first: it finds out whose sockets are before anything is counted.
        monitor.init()?;
        Ok((monitor, ThrottleManager::new(upload, download)?.announced()))
    };
    status(run::run(names, start, host, options, signals)?)
}

fn status(ended: Ended) -> anyhow::Result<u8> {
    match ended {
        Ended::ByUser => Ok(0),
        Ended::BySignal(signal) => Ok(u8::try_from(status_of_signal(signal))?),
    }
}

/// What is to be known where a daemon runs that this user may not ask.
const CLOSED: &str =
    "A daemon runs that you may not ask: its limits are not shown, and hold beside yours (docs/DAEMON.md).";

/// The screen of a daemon's figures and limits.
fn over_daemon(
    backends: &Backends,
    wanted: &Wanted,
    options: RunOptions,
    (limits, figures): (Client, Client),
    signals: Signals,
) -> anyhow::Result<u8> {
    run::require_terminal().map_err(|error| Failure::Usage(error.to_string()))?;
    let notice = if limits.daemon.may_change {
        "The daemon counts and limits here: what others set is shown, too, and what you set ends with this screen."
    } else {
        "The daemon counts and limits here. You may look, and not set limits (docs/DAEMON.md)."
    };
    let options = RunOptions { notice: Some(notice), ..options };
    let source = Source::of_daemon(limits.daemon.history.as_deref(), history::SYSTEM.into());
    let (remote, monitor) = (Remote::new(limits), RemoteMonitor::new(figures));
    let (upload, download) = remote.names();
    let names = BackendNames { monitor: monitor.name(), upload, download };
    let host = Host {
        lookout: Box::new(Here::new(backends.clone(), wanted.clone(), source)),
        names: Box::new(Resolver),
        supply: Box::new(remote.clone()),
        rules: Some(Keeping::Daemon(remote.clone())),
    };
    let start = move || {
        let monitor: Box<dyn MonitorBackend> = Box::new(monitor);
        Ok((monitor, remote.manager()?))
    };
    status(run::run(names, start, host, options, signals)?)
}

/// What backends leave out that know TCP alone.
fn what_is_missing() -> &'static str {
    if capability::first_missing(&[NET_ADMIN]).is_some() {
        "Without privilege: your own processes and TCP alone. sudo shows and limits everybody's, and UDP (QUIC, DNS)."
    } else {
        "TCP alone, no UDP (QUIC, DNS): --list-backends tells which backends do more."
    }
}
