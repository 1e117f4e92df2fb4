//! Names of the hosts at the other ends of connections, for who has switched them on. Whoever is asked may take many
//! seconds, so that nobody waits for it, and whatever a name is, the owner of the address chose it.

use std::net::IpAddr;

use crate::sys::host_name::host_name;

/// More than this of a name nobody reads; DNS has none that is longer.
const LONGEST: usize = 255;

/// Knows names of hosts.
pub trait Names: Send + Sync {
    /// What a host is called, where that is known.
    fn name(&self, address: IpAddr) -> Option<String>;
}

/// The system's resolver.
pub struct Resolver;

impl Names for Resolver {
    fn name(&self, address: IpAddr) -> Option<String> {
        host_name(address)
    }
}

/// A name that may be shown in the place of an address: not too long, and not made to look like another address.
#[must_use]
pub fn presentable(name: String) -> Option<String> {
    let is_address = name.trim_matches(['[', ']', '.', ' ']).parse::<IpAddr>().is_ok();
    (!is_address && !name.is_empty() && name.len() <= LONGEST).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_passes_for_an_address() {
        for name in ["192.0.2.1", "[2001:db8::1]", "192.0.2.1.", "", &"a.".repeat(200)] {
            assert_eq!(presentable(name.to_owned()), None, "{name}");
        }
        assert_eq!(presentable("mail.example.org".into()).as_deref(), Some("mail.example.org"));
    }
}
