//! Tags by the programs that see the packets of sockets: each packet of a target gets its tag as it leaves
//! (`cgroup_skb/egress`, which runs before the interface's queue), whoever has opened the socket, and when.
//!
//! Nothing is set on a socket, so that nothing is to be put back: with the programs the tags are gone.

use std::{collections::BTreeSet, io};

use super::{Tag, TagError, Tagger, is_here};
use crate::backends::{
    BackendError, BackendOptions,
    ebpf::{
        Engine, SharedEngine,
        limits::{Asked, Direction, Leniency, Means},
        targets::Targets,
    },
    throttle::{Subject, Target},
};

/// Tags on packets.
pub struct PacketTagger {
    backend: &'static str,
    options: BackendOptions,
    engine: SharedEngine,
    tagged: BTreeSet<Subject>,
}

impl PacketTagger {
    /// How it tags, in a word or two.
    pub const NAME: &str = "packet priority (eBPF)";

    /// Loads the programs, where no other backend has done so.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(
        backend: &'static str,
        options: &BackendOptions,
        engine: &SharedEngine,
    ) -> Result<Self, BackendError> {
        engine.with(backend, options, |_| Ok(()))?;
        let (options, engine) = (options.clone(), engine.clone());
        Ok(Self { backend, options, engine, tagged: BTreeSet::new() })
    }

    fn engine<T>(&self, work: impl FnOnce(&mut Engine) -> anyhow::Result<T>) -> Result<T, BackendError> {
        self.engine.with(self.backend, &self.options, work)
    }
}

impl Tagger for PacketTagger {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn check(&self, backend: &'static str, target: &Target) -> Result<(), BackendError> {
        is_here(backend, target)?;
        self.engine.check(backend, &self.options, target)
    }

    fn tag(&mut self, target: &Target, tag: Tag) -> Result<(), TagError> {
        // How fast is the queue's to say.
        let asked = Asked {
            rate_bps: 0,
            leniency: Leniency::default(),
            means: Means::Class(tag.priority.unwrap_or_default()),
        };
        let is_new = self.tagged.insert(target.subject.clone());
        let set = self.engine(|engine| {
            // Which interfaces were chosen, and what is local, the programs know by numbers and addresses.
            engine.refresh_network()?;
            engine.with_targets(|targets, engine| targets.set(engine, target, Direction::Upload, asked))
        });
        set.map_err(|error| {
            // One that had a tag may have it still.
            if is_new {
                self.tagged.remove(&target.subject);
            }
            TagError::Kernel(io::Error::other(error))
        })
    }

    fn untag(&mut self, subject: &Subject) -> io::Result<()> {
        if !self.tagged.contains(subject) {
            return Ok(());
        }
        let removed = self.engine(|engine| {
            engine.with_targets(|targets, engine| targets.remove(engine, subject, Direction::Upload))
        });
        match removed {
            Ok(()) => drop(self.tagged.remove(subject)),
            // Tried again where it is tagged anew or taken away again, and at the end. With the programs it goes in any case.
            Err(error) => log::error!("packets keep their tags: {error}"),
        }
        Ok(())
    }

    fn network_has_changed(&mut self) {
        if let Err(error) = self.engine(Engine::refresh_network) {
            log::warn!("{error}");
        }
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.engine(|engine| engine.with_targets(Targets::maintain))
    }
}

impl Drop for PacketTagger {
    fn drop(&mut self) {
        for subject in self.tagged.clone() {
            let _ = self.untag(&subject);
        }
    }
}
