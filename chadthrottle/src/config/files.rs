//! Which files there are.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid, User};

/// The system's file.
pub const SYSTEM: &str = "/etc/chadthrottle/config.toml";
/// The user's one, below the directory for configurations.
const USERS: &str = "chadthrottle/config.toml";

/// Which files count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The invoking user's, or the one that was asked for.
    pub own: Option<PathBuf>,
    /// The system's.
    pub system: Option<PathBuf>,
    /// Whose new files are to be, where that is not the user that we run as.
    pub owner: Option<(Uid, Gid)>,
    /// Whether the own one was asked for by name, and so is to be there.
    pub is_named: bool,
}

impl Files {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// This one alone.
    #[must_use]
    pub fn only(path: &Path) -> Self {
        Self { own: Some(path.to_owned()), is_named: true, ..Self::default() }
    }

    /// The system's, and that of whoever invoked the program, under sudo too.
    #[must_use]
    pub fn usual() -> Self {
        let invoker =
            invoker(Uid::effective(), |name| env::var_os(name).and_then(|text| text.into_string().ok()));
        let home = match &invoker {
            Some(user) => Some(user.dir.clone()),
            None => env::var_os("HOME").map(PathBuf::from),
        };
        let own = user_file(env::var_os("XDG_CONFIG_HOME").as_deref(), home.as_deref());
        let owner = invoker.map(|user| (user.uid, user.gid));
        Self { own, system: Some(SYSTEM.into()), owner, is_named: false }
    }

    /// In the order in which they count.
    pub fn to_read(&self) -> impl Iterator<Item = &PathBuf> {
        let system = self.system.iter().filter(|system| Some(*system) != self.own.as_ref());
        self.own.iter().chain(system)
    }
}

/// Who called sudo, where we are root by it.
fn invoker(effective: Uid, variable: impl Fn(&str) -> Option<String>) -> Option<User> {
    if !effective.is_root() {
        return None;
    }
    let uid = Uid::from_raw(variable("SUDO_UID")?.parse().ok()?);
    if uid.is_root() {
        return None;
    }
    // Whoever has no entry has no home either.
    User::from_uid(uid).ok().flatten()
}

/// A path that is not absolute is to be ignored (XDG Base Directory Specification).
fn user_file(config_home: Option<&OsStr>, home: Option<&Path>) -> Option<PathBuf> {
    let absolute = |path: &Path| path.is_absolute().then(|| path.to_owned());
    let base = config_home.map(Path::new).and_then(absolute);
    let base = base.or_else(|| Some(absolute(home?)?.join(".config")))?;
    Some(base.join(USERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_file_is_below_the_directory_for_configurations() {
        let file = |config_home: &str, home: &str| {
            user_file(Some(OsStr::new(config_home)), Some(Path::new(home)))
                .map(|path| path.to_string_lossy().into_owned())
        };
        assert_eq!(file("/c", "/h").as_deref(), Some("/c/chadthrottle/config.toml"));
        assert_eq!(file("c", "/h").as_deref(), Some("/h/.config/chadthrottle/config.toml"));
        assert_eq!(file("", "h"), None);
        assert_eq!(user_file(None, None), None);
    }

    #[test]
    fn under_sudo_it_is_the_invokers() {
        let variable = |uid: &'static str| move |name: &str| (name == "SUDO_UID").then(|| uid.to_owned());
        let root = Uid::from_raw(0);
        let Some(daemon) = User::from_uid(Uid::from_raw(1)).expect("users can be looked up") else { return };
        assert_eq!(invoker(root, variable("1")).map(|user| user.dir), Some(daemon.dir));
        assert_eq!(invoker(Uid::from_raw(5), variable("1")), None, "who is no root has not called sudo");
        assert_eq!(invoker(root, variable("0")), None);
        assert_eq!(invoker(root, variable("4294967000")), None, "nobody");
        assert_eq!(invoker(root, variable("x")), None);
    }

    #[test]
    fn a_file_is_read_once() {
        let same = Files { own: Some(SYSTEM.into()), system: Some(SYSTEM.into()), ..Files::none() };
        assert_eq!(same.to_read().count(), 1);
        assert_eq!(Files::none().to_read().count(), 0);
    }
}
