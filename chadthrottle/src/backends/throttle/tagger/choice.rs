//! Which tagger a backend has that reads the priority of packets: the one that was asked for, or the best that works here.

#[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
use super::PacketTagger;
use super::{CgroupTagger, SocketTagger, Tagger, cgroup, why_no_sockets};
#[cfg(feature = "ebpf")]
use crate::backends::Availability;
use crate::backends::{BackendCapabilities, BackendOptions, Obstacle, TaggerChoice};

/// Makes the best tagger that works here: packets carry tags where the programs can be loaded, else sockets do; where
/// those cannot be taken hold of, membership says whose a packet is.
#[derive(Clone)]
pub struct Tagging {
    options: BackendOptions,
    /// Where what the programs say is heard by the backend.
    #[cfg(feature = "ebpf")]
    engine: Option<crate::backends::ebpf::SharedEngine>,
}

impl Tagging {
    /// For a backend that reads priorities where packets leave: by the programs that all eBPF backends share, or as below.
    #[cfg(feature = "throttle-tc-htb")]
    #[must_use]
    pub fn new(
        options: &BackendOptions,
        #[cfg(feature = "ebpf")] engine: &crate::backends::ebpf::SharedEngine,
    ) -> Self {
        Self {
            options: options.clone(),
            #[cfg(feature = "ebpf")]
            engine: Some(engine.clone()),
        }
    }

    /// For one that reads them before the programs see packets.
    #[must_use]
    pub fn before_programs(options: &BackendOptions) -> Self {
        Self {
            options: options.clone(),
            #[cfg(feature = "ebpf")]
            engine: None,
        }
    }

    /// Makes one for a backend. Where it is not the best one, the log says why.
    ///
    /// # Errors
    /// When none works, or not the one that was asked for.
    pub fn make(&self, backend: &'static str) -> anyhow::Result<Box<dyn Tagger>> {
        match choose(&self.options, self.hears_programs()) {
            #[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
            TaggerChoice::Ebpf if let Some(engine) = &self.engine => {
                match PacketTagger::load(backend, &self.options, engine) {
                    Ok(tagger) => return Ok(Box::new(tagger)),
                    Err(error) if self.options.tagger == TaggerChoice::Ebpf => return Err(error.into()),
                    Err(error) => log::info!("{backend} does not tag packets: {error}"),
                }
            }
            TaggerChoice::Cgroup => return membership(backend, self.options.tagger),
            _ => {}
        }
        match why_no_sockets() {
            Some(_) if self.options.tagger == TaggerChoice::Auto => membership(backend, TaggerChoice::Auto),
            _ => Ok(Box::<SocketTagger>::default()),
        }
    }

    fn hears_programs(&self) -> bool {
        #[cfg(feature = "ebpf")]
        return self.engine.is_some();
        #[cfg(not(feature = "ebpf"))]
        false
    }
}

/// The name of the tagger that a backend would have, which reads priorities where packets leave, or before. Loads nothing.
#[must_use]
pub fn name(options: &BackendOptions, hears_programs: bool) -> &'static str {
    match choose(options, hears_programs) {
        #[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
        TaggerChoice::Ebpf => PacketTagger::NAME,
        TaggerChoice::Cgroup => CgroupTagger::here().unwrap_or("cgroup membership"),
        _ => SocketTagger::NAME,
    }
}

/// What a backend covers, with that tagger.
#[must_use]
pub fn capabilities(all: BackendCapabilities, tagger: &str) -> BackendCapabilities {
    match CgroupTagger::covers_open(tagger) {
        Some(open_connections) => BackendCapabilities { open_connections, moves_process: true, ..all },
        None => all,
    }
}

/// Why the tagger that would be used cannot work. Changes nothing.
pub(in crate::backends::throttle) fn obstacle(
    options: &BackendOptions,
    hears_programs: bool,
) -> Option<Obstacle> {
    let host =
        |cause: &str, remedy: &str| Obstacle::Host { cause: cause.to_owned(), remedy: remedy.to_owned() };
    match choose(options, hears_programs) {
        TaggerChoice::Ebpf if !hears_programs => Some(host(
            "programs in the kernel tag packets after it has seen them",
            "choose --tagger sockets or cgroup",
        )),
        #[cfg(feature = "ebpf")]
        TaggerChoice::Ebpf => match crate::backends::ebpf::probe(options) {
            Availability::Available => None,
            Availability::Unavailable(obstacle) => Some(obstacle),
        },
        #[cfg(not(feature = "ebpf"))]
        TaggerChoice::Ebpf => Some(host("this program was built without eBPF", "choose another --tagger")),
        // Its note and its cgroups are root's alone.
        TaggerChoice::Cgroup if CgroupTagger::here().is_some() => {
            let denied = crate::backends::throttle::only_for_root("its cgroup", "--tagger sockets")?;
            // Whom nobody has asked to move processes is told what sockets take instead.
            if options.tagger == TaggerChoice::Auto { why_no_sockets() } else { Some(denied) }
        }
        // Whoever may take hold of sockets needs none of that.
        TaggerChoice::Cgroup if options.tagger == TaggerChoice::Auto => why_no_sockets(),
        TaggerChoice::Cgroup => Some(host(
            "neither cgroup v2 nor net_cls is mounted as a whole",
            "mount one, or choose another --tagger",
        )),
        _ => why_no_sockets(),
    }
}

/// Which tagger: the one that was asked for, or the best that works here, as far as can be told without loading anything.
fn choose(options: &BackendOptions, hears_programs: bool) -> TaggerChoice {
    match options.tagger {
        TaggerChoice::Auto if hears_programs && has_programs(options) => TaggerChoice::Ebpf,
        TaggerChoice::Auto if why_no_sockets().is_none() => TaggerChoice::Sockets,
        TaggerChoice::Auto => TaggerChoice::Cgroup,
        asked => asked,
    }
}

/// Whether packets can carry tags.
fn has_programs(options: &BackendOptions) -> bool {
    #[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
    return crate::backends::ebpf::probe(options) == Availability::Available;
    #[cfg(not(all(feature = "ebpf", feature = "throttle-tc-htb")))]
    {
        let _ = options;
        false
    }
}

/// The last resort. Where nobody has asked for it, that is told.
fn membership(backend: &'static str, asked: TaggerChoice) -> anyhow::Result<Box<dyn Tagger>> {
    for leftover in cgroup::leftovers()? {
        for line in leftover.describe() {
            log::info!("removing {line}");
        }
        leftover.remove()?;
    }
    let tagger = CgroupTagger::new()?;
    if asked == TaggerChoice::Auto {
        let missing = why_no_sockets().map(|obstacle| obstacle.to_string()).unwrap_or_default();
        log::warn!("{backend} knows packets by {}: {missing}", tagger.name());
    }
    Ok(Box::new(tagger))
}
