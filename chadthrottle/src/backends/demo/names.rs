//! What hosts are called where the simulated one is.

use std::net::IpAddr;

use crate::names::Names;

/// By address. Whoever is not here has no name, as many have not.
const HOSTS: [(&str, &str); 11] = [
    ("34.107.243.93", "93.243.107.34.bc.googleusercontent.com"),
    ("74.125.133.109", "wo-in-f109.1e100.net"),
    ("140.82.121.4", "lb-140-82-121-4-fra.github.com"),
    ("142.250.74.110", "arn09s22-in-f14.1e100.net"),
    ("172.17.0.3", "shop-postgres"),
    ("185.70.42.25", "imap.example.org"),
    ("185.199.108.133", "cdn-185-199-108-133.github.com"),
    ("192.168.1.1", "router.lan"),
    ("194.71.11.165", "laotzu.ftp.acc.umu.se"),
    ("198.51.100.20", "backup.example.org"),
    ("203.0.113.9", "host-9.pool.example.net"),
];

/// Knows them at once.
pub struct DemoNames;

impl Names for DemoNames {
    fn name(&self, address: IpAddr) -> Option<String> {
        let address = address.to_string();
        HOSTS.iter().find(|(known, _)| *known == address).map(|(_, name)| (*name).to_owned())
    }
}
