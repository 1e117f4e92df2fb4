//! The program at the entrance of interfaces (`entrance`, chadthrottle-ebpf): where it is attached.

use std::collections::BTreeMap;

use anyhow::Context;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, TcError,
    tc::{SchedClassifierLinkId, TcAttachOptions},
};

use super::{Availability, BackendOptions, Engine, Obstacle, object::program, probe};
use crate::sys::links::Link;

const PROGRAM: &str = "packet_enters";

/// The first kernel with links of programs to entrances.
const FIRST_KERNEL: (u32, u32) = (6, 6);

/// Whether programs can see what arrives by interfaces here. Changes nothing.
#[must_use]
pub fn probe_entrances(options: &BackendOptions) -> Availability {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(|character: char| !character.is_ascii_digit());
    let mut number = || parts.next()?.parse().ok();
    let version = number().zip(number());
    if probe(options) == Availability::Available && version.is_some_and(|version| version < FIRST_KERNEL) {
        return Availability::Unavailable(Obstacle::Host {
            cause: "this kernel has no links of programs to interfaces (tcx)".into(),
            remedy: "use Linux 6.6 or later, or another backend".into(),
        });
    }
    probe(options)
}

/// Where it is attached.
#[derive(Debug, Default)]
pub(super) struct Entrance {
    is_loaded: bool,
    /// By number of the interface.
    links: BTreeMap<u32, SchedClassifierLinkId>,
}

impl Engine {
    /// Has what arrives by these interfaces, and by no others, seen before its sockets are: by links behind those of
    /// others, which go with us (Linux 6.6).
    ///
    /// # Errors
    /// When the kernel refuses the program, or one of the interfaces that are there; the others have it.
    pub fn watch_entrances(&mut self, interfaces: &[Link]) -> anyhow::Result<()> {
        // How long their headers are.
        self.refresh_network()?;
        let classifier: &mut SchedClassifier = program(&mut self.programs, PROGRAM)?;
        if !self.entrance.is_loaded {
            classifier.load().with_context(|| format!("loading {PROGRAM}"))?;
            self.entrance.is_loaded = true;
        }
        let is_left = |index: &u32| interfaces.iter().any(|link| link.index == *index);
        let gone: Vec<u32> = self.entrance.links.keys().copied().filter(|index| !is_left(index)).collect();
        for link in gone.into_iter().filter_map(|index| self.entrance.links.remove(&index)) {
            // With an interface its links are gone.
            let _ = classifier.detach(link);
        }
        let mut result = Ok(());
        for interface in interfaces {
            if self.entrance.links.contains_key(&interface.index) {
                continue;
            }
            let order = TcAttachOptions::TcxOrder(LinkOrder::last());
            match classifier.attach_with_options(&interface.name, TcAttachType::Ingress, order) {
                Ok(link) => drop(self.entrance.links.insert(interface.index, link)),
                // Gone since it was listed, or renamed, of which there is a notice.
                Err(ProgramError::TcError(TcError::IoError(error)))
                    if error.raw_os_error() == Some(nix::libc::ENODEV) => {}
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    result = Err(error.context(format!("attaching {PROGRAM} to {}", interface.name)));
                }
            }
        }
        result
    }

    /// Has nothing seen at entrances any more.
    pub fn leave_entrances(&mut self) {
        let links = std::mem::take(&mut self.entrance.links);
        let Ok(classifier) = program::<SchedClassifier>(&mut self.programs, PROGRAM) else { return };
        for link in links.into_values() {
            // Gone already is as good.
            let _ = classifier.detach(link);
        }
    }
}
