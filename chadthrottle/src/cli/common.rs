//! Options that every form takes.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::uploads::UploadOptions;
use crate::{
    backends::{BackendOptions, TaggerChoice, registry::Wanted},
    config::Files,
    daemon::client::Place,
    failure::Failure,
    scope::Prefix,
};

/// Options that every form takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options for every form")]
pub struct Common {
    /// Who holds upload limits; --list-backends tells which there are.
    #[arg(long, global = true, value_name = "NAME", default_value = "auto")]
    pub upload_backend: String,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the help shows the flattened options, not this line")]
    pub uploads: UploadOptions,

    /// Who holds download limits; `none` does without.
    #[arg(long, global = true, value_name = "NAME", default_value = "auto")]
    pub download_backend: String,

    /// Who counts.
    #[arg(long, global = true, value_name = "NAME", default_value = "auto")]
    pub monitor_backend: String,

    /// Only this interface's traffic is shown and limited; may be given several times.
    #[arg(long = "interface", global = true, value_name = "NAME")]
    pub interfaces: Vec<String>,

    /// A network that is local too, beside private ones and those that this host is in: 203.0.113.0/24; may be given
    /// several times.
    #[arg(long = "local-prefix", global = true, value_name = "NETWORK")]
    pub local_prefixes: Vec<Prefix>,

    /// Loopback traffic counts too.
    #[arg(long, global = true)]
    pub include_loopback: bool,

    /// Where in the cgroup v2 tree programs are attached: only processes below are seen and limited.
    #[arg(long, global = true, value_name = "PATH")]
    pub cgroup_root: Option<PathBuf>,

    /// Where the daemon listens, and where it is asked: `auto` for the usual place, `none` to do without.
    #[arg(long, global = true, value_name = "PATH", default_value = "auto")]
    pub socket: String,

    /// Set a limit although it may cut off the session that one is typing in.
    #[arg(long, global = true)]
    pub force: bool,

    /// The configuration file, instead of the user's and the system's.
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "no_config")]
    pub config: Option<PathBuf>,

    /// Read no configuration file.
    #[arg(long, global = true)]
    pub no_config: bool,

    /// Tell more on stderr; -vv with messages of the programs in the kernel, -vvv with one for every packet dropped.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Write the log to this file. The screen is never written to: with it open there is a log only here.
    #[arg(long, global = true, value_name = "PATH")]
    pub log_file: Option<PathBuf>,
}

/// The interface by which a host talks to itself.
const LOOPBACK: &str = "lo";

impl Common {
    /// How much to log.
    #[must_use]
    pub const fn log_level(&self) -> log::LevelFilter {
        match self.verbose {
            0 => log::LevelFilter::Warn,
            1 => log::LevelFilter::Info,
            2 => log::LevelFilter::Debug,
            _ => log::LevelFilter::Trace,
        }
    }

    /// Which configuration files count.
    #[must_use]
    pub fn config_files(&self) -> Files {
        match &self.config {
            _ if self.no_config => Files::none(),
            Some(path) => Files::only(path),
            None => Files::usual(),
        }
    }

    /// Where a daemon listens.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::named(&self.socket)
    }

    /// Where a daemon is to be asked. Who says how something is to be done has it done by this process, unless a daemon is
    /// named, too: then that is a contradiction.
    ///
    /// # Errors
    /// With the option that only the daemon could have been given.
    pub fn place_to_ask(&self) -> Result<Place, Failure> {
        let place = self.place();
        let own = [
            (self.upload_backend != "auto", "--upload-backend"),
            (self.download_backend != "auto", "--download-backend"),
            (self.monitor_backend != "auto", "--monitor-backend"),
            (!self.interfaces.is_empty(), "--interface"),
            (!self.local_prefixes.is_empty(), "--local-prefix"),
            (self.include_loopback, "--include-loopback"),
            (self.uploads.use_existing_htb, "--use-existing-htb"),
            (self.uploads.tagger != TaggerChoice::default(), "--tagger"),
        ];
        let own = own.into_iter().find_map(|(is_given, option)| is_given.then_some(option));
        match (own, place) {
            (Some(option), Place::At(_)) => Err(Failure::Usage(format!(
                "{option} is for the daemon to be started with; with --socket it is asked as it runs"
            ))),
            (None, Place::Usual) if self.cgroup_root.is_none() => Ok(Place::Usual),
            (_, Place::Usual) => Ok(Place::None),
            (_, place) => Ok(place),
        }
    }

    /// What every backend is told.
    #[must_use]
    pub fn backend_options(&self) -> BackendOptions {
        BackendOptions {
            cgroup_root: self.cgroup_root.clone(),
            // Who names it wants it.
            include_loopback: self.include_loopback || self.interfaces.iter().any(|name| name == LOOPBACK),
            use_existing_htb: self.uploads.use_existing_htb,
            interfaces: self.interfaces.clone(),
            local_prefixes: self.local_prefixes.clone(),
            tagger: self.uploads.tagger,
            kernel_messages: if self.verbose < 2 { log::LevelFilter::Off } else { self.log_level() },
        }
    }

    /// Which backends were asked for by name.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let named = |name: &str| (name != "auto").then(|| name.to_owned());
        Wanted {
            monitor: named(&self.monitor_backend),
            upload: named(&self.upload_backend),
            download: named(&self.download_backend),
        }
    }
}
