//! Which interfaces are taken, and how they are given back.

use std::io;

use nix::{
    errno::Errno,
    sys::socket::{SockFlag, SockProtocol},
};

use super::{
    super::interfaces::{OURS, Root, number, other_user, root_of, why_not},
    NOTICES, State, both,
};
use crate::{
    backends::throttle::{
        carrying::carrying,
        htb::{Classes, Device, HtbError, Limited, failed, stats_of, unnoted},
        journal::{Entry, restore},
    },
    sys::{
        links::{self, Link},
        netlink::Channel,
        tc::{self, Handle, Qdisc},
    },
};

impl State {
    /// Gives every interface back where there is no limit.
    pub(super) fn release_if_unused(&mut self) -> Result<(), HtbError> {
        if !self.targets.is_empty() {
            return Ok(());
        }
        let mut result = self.remove_left_classes();
        let (number, signature) = (self.classes.root(), self.journal.signature());
        // Of our own number there is no queue of somebody else's, of another one there may be by now.
        let qdiscs = if number == OURS { None } else { Some(self.qdiscs()?) };
        for (index, device) in std::mem::take(&mut self.devices) {
            if qdiscs.as_ref().is_some_and(|qdiscs| !is_as_taken(&device, number, signature, qdiscs)) {
                result = both(result, self.forget(index));
                continue;
            }
            let entry = Entry { is_shared: device.is_shared, ..Entry::new(&device.link, number) };
            match restore(&mut self.netlink, &entry) {
                // With its entry it is found which classes of ours are still in somebody's queue.
                Ok(()) if self.has_left_class(index) => {}
                Ok(()) => result = both(result, self.forget(index)),
                // What is not there any more has nothing to be restored.
                Err(refusal) if refusal.errno == Errno::ENODEV => result = both(result, self.forget(index)),
                Err(cause) => result = both(result, Err(failed("restore the queue", &device.link, cause))),
            }
        }
        self.notices = None;
        self.told.clear();
        result
    }

    fn forget(&mut self, index: u32) -> Result<(), HtbError> {
        self.journal.forget(index).map_err(|cause| HtbError::Io { step: "write down what is left", cause })
    }

    /// Takes the classes of a target away. One that stays in somebody else's queue is kept in mind.
    pub(super) fn leave(&mut self, limited: &mut Limited) -> Result<(), HtbError> {
        let left = limited.leave(&self.devices, &mut self.netlink);
        if left.is_err() {
            let shared = self.devices.iter().filter(|(_, device)| device.is_shared);
            let is_there = |index: &u32| match tc::classes(&mut self.netlink, *index) {
                Ok(classes) => stats_of(&classes, limited.class).is_some(),
                Err(refusal) => refusal.errno != Errno::ENODEV,
            };
            let those = shared.map(|(index, _)| *index).filter(is_there);
            self.left_classes.extend(those.map(|index| (index, limited.class)));
        }
        left
    }

    /// Takes those away that could not be before: what was in the way may be gone, such as a filter of somebody's that
    /// leads to them.
    pub(super) fn remove_left_classes(&mut self) -> Result<(), HtbError> {
        let before = std::mem::take(&mut self.left_classes);
        if before.is_empty() {
            return Ok(());
        }
        let signature = self.journal.signature();
        let mut stays = |(index, class): &(u32, Handle)| match tc::classes(&mut self.netlink, *index) {
            // By now it may be somebody else's.
            Ok(all) if !all.iter().any(|one| one.handle == *class && one.is_signed(signature)) => false,
            Ok(_) => tc::delete_class(&mut self.netlink, *index, *class).is_err(),
            Err(refusal) => refusal.errno != Errno::ENODEV,
        };
        let (left, gone): (Vec<_>, Vec<_>) = before.into_iter().partition(&mut stays);
        self.left_classes = left;
        if gone.is_empty() {
            return Ok(());
        }
        let mut result = self.note_classes(None);
        for (index, _) in gone {
            // Kept for the class alone.
            if !self.devices.contains_key(&index) && !self.has_left_class(index) {
                result = both(result, self.forget(index));
            }
        }
        result
    }

    fn has_left_class(&self, interface: u32) -> bool {
        self.left_classes.iter().any(|(index, _)| *index == interface)
    }

    /// Notes the classes of all targets, those that are left of former ones, and one that is about to be made.
    pub(super) fn note_classes(&mut self, new: Option<Handle>) -> Result<(), HtbError> {
        if self.classes.root() == OURS {
            return Ok(());
        }
        let left = self.left_classes.iter().map(|(_, class)| *class);
        let all = self.targets.values().map(|limited| limited.class).chain(left).chain(new);
        self.journal.note_classes(all).map_err(|cause| unnoted(&cause))
    }

    /// The number of a class that no target has, and nobody else where queues are shared.
    pub(super) fn free_class(&mut self) -> Result<Handle, HtbError> {
        let mut taken: Vec<Handle> = self.targets.values().map(|limited| limited.class).collect();
        let qdiscs = if self.classes.root() == OURS { Vec::new() } else { self.qdiscs()? };
        for device in self.devices.values().filter(|device| device.is_shared) {
            let classes = tc::classes(&mut self.netlink, device.link.index);
            let classes = classes.map_err(|cause| failed("list the classes", &device.link, cause))?;
            taken.extend(classes.iter().map(|class| class.handle));
            // One that is not there takes nothing; ours would.
            if let Root::Htb { default_class, .. } = root_of(&device.link, &qdiscs) {
                taken.push(default_class);
            }
        }
        self.classes.free(|class| taken.contains(&class))
    }

    fn qdiscs(&mut self) -> Result<Vec<Qdisc>, HtbError> {
        tc::qdiscs(&mut self.netlink)
            .map_err(|cause| HtbError::Kernel { step: "list the queues".into(), cause })
    }

    /// Takes every interface that is not taken yet: gives it our queue, or has the HTB queue used that somebody gave it,
    /// where that is allowed. Where one is somebody else's, that is an error, or else told once.
    pub(super) fn claim_all(&mut self, strictly: bool) -> Result<(), HtbError> {
        // From before we look on, so that nothing that comes is missed.
        if self.notices.is_none() {
            let groups = NOTICES.cast_unsigned();
            let notices = Channel::open(SockProtocol::NetlinkRoute, groups, SockFlag::SOCK_NONBLOCK);
            self.notices =
                notices.inspect_err(|error| log::warn!("tc_htb: new interfaces are not seen: {error}")).ok();
        }
        let unseen = |cause: io::Error| HtbError::Io { step: "list the interfaces", cause };
        let links = carrying(&mut self.netlink, &self.options).map_err(unseen)?;
        let qdiscs = self.qdiscs()?;
        if self.targets.is_empty() && self.devices.is_empty() {
            let number =
                number(&links, &qdiscs, self.options.use_existing_htb).map_err(HtbError::Obstacle)?;
            if number != self.classes.root() {
                self.classes = if number == OURS { Classes::of(OURS) } else { Classes::among_others(number) };
            }
        }
        for link in links {
            if let Some(device) = self.devices.get_mut(&link.index)
                && is_as_taken(device, self.classes.root(), self.journal.signature(), &qdiscs)
            {
                // It may have another name by now.
                device.link.name.clone_from(&link.name);
                continue;
            }
            match root_of(&link, &qdiscs) {
                Root::Default => self.claim(&link, false)?,
                root if self.may_share(&link, &root) => self.claim(&link, true)?,
                root if strictly => return Err(HtbError::Obstacle(why_not(&link, &root))),
                root => self.tell(&link, &root),
            }
        }
        Ok(())
    }

    /// Whether classes of ours may be in the queue of an interface.
    fn may_share(&self, link: &Link, root: &Root) -> bool {
        matches!(root, Root::Htb { handle, .. } if *handle == self.classes.root())
            && self.options.use_existing_htb
            && other_user(link).is_none()
    }

    /// Says once that an interface is not limited.
    fn tell(&mut self, link: &Link, root: &Root) {
        if self.told.contains(&link.index) {
            return;
        }
        let why = match root {
            Root::Htb { handle, .. } if self.options.use_existing_htb => format!(
                "it has the queue htb {handle}, and the classes of running limits are of {}",
                self.classes.root()
            ),
            root => why_not(link, root),
        };
        log::warn!("what leaves by {} is not limited: {why}", link.name);
        self.told.push(link.index);
    }

    fn claim(&mut self, link: &Link, is_shared: bool) -> Result<(), HtbError> {
        let (number, signature) = (self.classes.root(), self.journal.signature());
        self.journal
            .note(Entry { is_shared, ..Entry::new(link, number) })
            .map_err(|cause| unnoted(&cause))?;
        if is_shared {
            log::info!("classes are added to the queue htb {number} of {}, which is not ours", link.name);
            self.devices.insert(link.index, Device::share(link, signature));
            return Ok(());
        }
        match Device::claim(&mut self.netlink, link, number, signature) {
            Ok(device) => {
                self.devices.insert(link.index, device);
                Ok(())
            }
            Err(cause) => {
                self.forget(link.index)?;
                // Gone meanwhile.
                if cause.errno == Errno::ENODEV {
                    return Ok(());
                }
                Err(failed("make a queue", link, cause))
            }
        }
    }

    /// Forgets interfaces that are gone, or whose queue somebody else has replaced.
    pub(super) fn forget_gone(&mut self) -> Result<(), HtbError> {
        let unseen = |cause: io::Error| HtbError::Io { step: "list the interfaces", cause };
        let links = links::all(&mut self.netlink).map_err(unseen)?;
        let qdiscs = self.qdiscs()?;
        let (number, signature) = (self.classes.root(), self.journal.signature());
        let is_there = |index: &u32| links.iter().any(|link| link.index == *index);
        let is_gone = |(index, device): &(&u32, &Device)| {
            !is_there(index) || !is_as_taken(device, number, signature, &qdiscs)
        };
        let gone: Vec<u32> = self.devices.iter().filter(is_gone).map(|(index, _)| *index).collect();
        for index in gone {
            for limited in self.targets.values_mut() {
                limited.lose(index, self.devices.get(&index));
            }
            self.devices.remove(&index);
            self.forget(index)?;
        }
        self.told.retain(is_there);
        Ok(())
    }
}

/// Whether the queue of an interface is still the one that was taken: ours, or somebody's of that number.
fn is_as_taken(device: &Device, number: Handle, signature: u32, qdiscs: &[Qdisc]) -> bool {
    let root = qdiscs.iter().find(|qdisc| qdisc.interface == device.link.index && qdisc.is_root);
    root.is_some_and(|root| {
        let is_ours = root.htb.is_some_and(|htb| htb.signature == signature);
        root.handle == number && root.kind == "htb" && is_ours != device.is_shared
    })
}
