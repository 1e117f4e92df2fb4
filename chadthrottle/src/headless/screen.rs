//! Without a command: the screen.

use jiff::tz::TimeZone;

use crate::{
    app::BackendNames,
    backends::{
        registry::{Backends, Wanted},
        throttle::{ThrottleManager, manager::Limits},
    },
    config::{Config, Files, HistorySettings},
    failure::Failure,
    history::{Writer, store::HistoryError},
    lookout::Here,
    names::Resolver,
    rules::keeper::{Keeper, RuleFiles},
    run::{self, Ended, Host, RunOptions},
    sys::{
        capability::{self, NET_ADMIN},
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
) -> anyhow::Result<u8> {
    let signals = Signals::hold_for_screen()?;
    // Whatever can be told without changing the kernel is refused before the terminal is taken over.
    let mut monitor = backends.select_monitor_backend(wanted.monitor.as_deref())?;
    let (upload, download) = super::select_throttles(backends, wanted, Limits::default())?;
    run::require_terminal().map_err(|error| Failure::Usage(error.to_string()))?;
    let limits_udp = upload.capabilities().udp;
    let names = BackendNames {
        monitor: monitor.name(),
        upload: upload.name(),
        download: download.as_ref().map(|download| download.name()),
    };
    let is_partial = !(monitor.capabilities().udp && limits_udp);
    let options = RunOptions { notice: is_partial.then(what_is_missing), ..options };
    let root = CgroupRoot::open(backends.options().cgroup_root.as_deref()).ok();
    let keeper = Keeper::new(config.rules, root, TimeZone::system());
    let history = recorded(&config.history);
    let host = Host {
        lookout: Box::new(Here::new(backends.clone(), wanted.clone())),
        names: Box::new(Resolver),
        supply: Box::new(backends.clone()),
        rules: Some(RuleFiles { files, keeper, history }),
    };
    let start = move || {
        // The monitor first: it finds out whose sockets are before anything is counted.
        monitor.init()?;
        Ok((monitor, ThrottleManager::new(upload, download)?.announced()))
    };
    match run::run(names, start, host, options, signals)? {
        Ended::ByUser => Ok(0),
        Ended::BySignal(signal) => Ok(u8::try_from(status_of_signal(signal))?),
    }
}

/// What backends leave out that know TCP alone.
fn what_is_missing() -> &'static str {
    if capability::first_missing(&[NET_ADMIN]).is_some() {
        "Without privilege: your own processes and TCP alone. sudo shows and limits everybody's, and UDP (QUIC, DNS)."
    } else {
        "TCP alone, no UDP (QUIC, DNS): --list-backends tells which backends do more."
    }
}
