//! Who may do what.

use nix::unistd::{Gid, Group, geteuid};

use crate::{config::DaemonSettings, sys::peer::Peer};

/// The group whose members may look, where nothing else is configured.
pub const GROUP: &str = "chadthrottle";

/// Who may look, and who may change. Root and the daemon's own user may both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    own: u32,
    /// Its members may look.
    pub view: Option<Gid>,
    /// Those of them who are in this one too may change.
    change: Option<Gid>,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Nothing.
    None,
    /// See figures and limits.
    View,
    /// And set limits.
    Change,
}

impl Rights {
    /// As configured. What cannot be had of it is told, in sentences: then fewer may.
    #[must_use]
    pub fn configured(settings: &DaemonSettings) -> (Self, Vec<String>) {
        let mut missing = Vec::new();
        let view = group(settings.view_group.as_deref().unwrap_or(GROUP)).unwrap_or_else(|error| {
            missing.push(format!("{error}; only root may look at this daemon"));
            None
        });
        let change = settings.change_group.as_deref().and_then(|name| {
            group(name).unwrap_or_else(|error| {
                missing.push(format!("{error}; only root may change limits"));
                None
            })
        });
        (Self { own: geteuid().as_raw(), view, change }, missing)
    }

    /// What whoever has connected may do.
    #[must_use]
    pub fn of(&self, peer: &Peer) -> Right {
        let is_in = |group: Option<Gid>| group.is_some_and(|group| peer.groups.contains(&group.as_raw()));
        if peer.uid == 0 || peer.uid == self.own {
            Right::Change
        } else if !is_in(self.view) {
            Right::None
        } else if is_in(self.change) {
            Right::Change
        } else {
            Right::View
        }
    }
}

/// The group of this name or number.
fn group(name: &str) -> Result<Option<Gid>, String> {
    if let Ok(number) = name.parse() {
        return Ok(Some(Gid::from_raw(number)));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid)),
        Ok(None) => Err(format!("there is no group {name:?} (`groupadd --system {name}` makes it)")),
        Err(error) => Err(format!("the group {name:?} cannot be looked up: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(rights: &Rights, uid: u32, groups: &[u32]) -> Right {
        rights.of(&Peer { pid: 7, uid, groups: groups.to_vec() })
    }

    #[test]
    fn looking_and_changing_are_apart() {
        let rights = Rights { own: 50, view: Some(Gid::from_raw(10)), change: Some(Gid::from_raw(20)) };
        assert_eq!(right(&rights, 0, &[0]), Right::Change);
        assert_eq!(right(&rights, 50, &[50]), Right::Change);
        assert_eq!(right(&rights, 1000, &[1000]), Right::None);
        assert_eq!(right(&rights, 1000, &[1000, 10]), Right::View);
        assert_eq!(right(&rights, 1000, &[20, 10]), Right::Change);
        assert_eq!(right(&rights, 1000, &[20]), Right::None, "who may not look may not change");
        let closed = Rights { view: None, change: None, ..rights };
        assert_eq!(right(&closed, 1000, &[10, 20]), Right::None);
    }

    #[test]
    fn groups_that_are_not_there_let_nobody_in() {
        let settings =
            DaemonSettings { view_group: Some("4711".into()), change_group: Some("no such".into()) };
        let (rights, missing) = Rights::configured(&settings);
        assert_eq!((rights.view, rights.change), (Some(Gid::from_raw(4711)), None));
        assert!(missing.len() == 1 && missing[0].contains("\"no such\""), "{missing:?}");
    }
}
