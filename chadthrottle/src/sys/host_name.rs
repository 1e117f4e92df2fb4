//! What the system's resolver calls an address: /etc/hosts, DNS, and whatever else nsswitch.conf(5) names.

use std::{ffi::CStr, net::IpAddr};

use nix::libc;

/// `NI_MAXHOST` of glibc (netdb.h); musl's is smaller.
const LONGEST: usize = 1025;

/// The name of an address. None where it has none, or the resolver does not answer: it may take its time over that, many
/// seconds where a name server is gone. What is no UTF-8 is replaced, and nothing else is looked at: whoever owns the
/// address chooses the name.
#[must_use]
pub fn host_name(address: IpAddr) -> Option<String> {
    match address {
        IpAddr::V4(address) => called(&libc::sockaddr_in {
            sin_family: family(libc::AF_INET),
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
            sin_zero: [0; 8],
        }),
        IpAddr::V6(address) => called(&libc::sockaddr_in6 {
            sin6_family: family(libc::AF_INET6),
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: address.octets() },
            sin6_scope_id: 0,
        }),
    }
}

fn family(number: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or_default()
}

/// Asks, with a socket address of either family.
fn called<A>(address: &A) -> Option<String> {
    let mut name = [0_u8; LONGEST];
    let room = libc::socklen_t::try_from(name.len()).ok()?;
    let length = libc::socklen_t::try_from(size_of::<A>()).ok()?;
    // SAFETY: the address is `length` bytes long, the library writes at most `room` bytes, a terminating zero among
    // them, and no service is asked for. The function may be called from any thread (getnameinfo(3)).
    let result = unsafe {
        libc::getnameinfo(
            std::ptr::from_ref(address).cast(),
            length,
            name.as_mut_ptr().cast(),
            room,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if result != 0 {
        return None;
    }
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    Some(name.to_string_lossy().into_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn our_own_addresses_have_the_names_that_the_hosts_file_gives_them() {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let named = |address: IpAddr| {
            let words = hosts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            words.into_iter().any(|words| words.len() > 1 && words[0].parse() == Ok(address))
        };
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let name = host_name(address);
            assert!(name.is_some() || !named(address), "{address}");
            assert!(name.is_none_or(|name| name.parse::<IpAddr>().is_err()));
        }
    }
}
