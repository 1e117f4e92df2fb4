//! The program at the entrance of interfaces (`entrance`, chadthrottle-ebpf): where it is attached.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::Context;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, TcError,
    tc::{SchedClassifierLinkId, TcAttachOptions},
};

use super::{Engine, object::program};
use crate::sys::{kernel_version::kernel_version, links::Link};

const PROGRAM: &str = "packet_enters";

/// The first kernel with links of programs to entrances.
const FIRST_KERNEL: (u32, u32) = (6, 6);

/// Whether this kernel has links of programs to entrances, which go with us.
#[must_use]
pub fn has_links() -> bool {
    kernel_version().is_none_or(|version| version >= FIRST_KERNEL)
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
        self.load_entrance()?;
        let classifier: &mut SchedClassifier = program(&mut self.programs, PROGRAM)?;
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

    /// The program, to be attached as a filter: it sees what arrives by the interfaces that there are now.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn entrance_program(&mut self) -> anyhow::Result<BorrowedFd<'_>> {
        self.load_entrance()?;
        let classifier: &mut SchedClassifier = program(&mut self.programs, PROGRAM)?;
        Ok(classifier.fd()?.as_fd())
    }

    fn load_entrance(&mut self) -> anyhow::Result<()> {
        // How long the headers of interfaces are.
        self.refresh_network()?;
        if !self.entrance.is_loaded {
            let classifier: &mut SchedClassifier = program(&mut self.programs, PROGRAM)?;
            classifier.load().with_context(|| format!("loading {PROGRAM}"))?;
            self.entrance.is_loaded = true;
        }
        Ok(())
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
