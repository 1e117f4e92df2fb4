//! Who lives on the host that is not there.

/// How much somebody wants to send or receive, in bytes a second.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    /// Nothing at all.
    Nothing,
    /// About this much all the time.
    Steady(u64),
    /// So much for `length` of every `period` seconds, and a hundredth of it between.
    Bursts { peak: u64, period: u64, length: u64 },
    /// This share, in thousandths, of what it does in the other direction: acknowledgements and requests.
    Share(u64),
}

/// Whom somebody talks with: protocol, address, round-trip time in microseconds.
pub(super) type Peer = (&'static str, u64);

/// One program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) name: &'static str,
    pub(super) user: &'static str,
    pub(super) exe: &'static str,
    pub(super) arguments: &'static str,
    pub(super) cgroup: &'static str,
    pub(super) upload: Wish,
    pub(super) download: Wish,
    /// From which second to which it lives; the host is as old as the counting.
    pub(super) life: (u64, u64),
    /// How much of its traffic is local, in thousandths.
    pub(super) local: u64,
    pub(super) peers: &'static [Peer],
}

/// Lives before us and after us.
const ALWAYS: (u64, u64) = (0, u64::MAX);

const DESKTOP: &str = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-2114.scope";
const MAIL: &str = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-thunderbird-2391.scope";
const TERMINAL: &str = "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-5d1c.scope";
const LOGIN: &str = "/user.slice/user-1001.slice/session-7.scope";
const SHOP: &str =
    "/system.slice/docker-4c01db0b339c86e1a1f0a4d2b7c3e95d8f6a7b1c2d3e4f5061728394a5b6c7d8.scope";
const DATABASE: &str =
    "/system.slice/docker-9f3ca51e77d04b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9001122334.scope";

const fn program(pid: i32, parent: i32, name: &'static str, user: &'static str) -> Program {
    Program {
        pid,
        parent,
        name,
        user,
        exe: "",
        arguments: "",
        cgroup: "/init.scope",
        upload: Wish::Nothing,
        download: Wish::Nothing,
        life: ALWAYS,
        local: 0,
        peers: &[],
    }
}

impl Program {
    const fn file(self, exe: &'static str, arguments: &'static str) -> Self {
        Self { exe, arguments, ..self }
    }

    const fn within(self, cgroup: &'static str) -> Self {
        Self { cgroup, ..self }
    }

    const fn wants(self, upload: Wish, download: Wish) -> Self {
        Self { upload, download, ..self }
    }

    const fn talks(self, local: u64, peers: &'static [Peer]) -> Self {
        Self { local, peers, ..self }
    }

    const fn lives(self, from: u64, to: u64) -> Self {
        Self { life: (from, to), ..self }
    }

    /// Whether it uses the network at all, and so is seen by a monitor.
    pub(super) const fn is_seen(&self) -> bool {
        !matches!((self.upload, self.download), (Wish::Nothing, Wish::Nothing))
    }
}

use Wish::{Bursts, Share, Steady};

/// All of them.
pub(super) const PROGRAMS: &[Program] = &[
    program(1, 0, "systemd", "root").file("/usr/lib/systemd/systemd", "--system"),
    program(1890, 1, "gnome-shell", "ada").file("/usr/bin/gnome-shell", ""),
    program(2114, 1890, "firefox", "ada")
        .file("/usr/lib/firefox/firefox", "")
        .within(DESKTOP)
        .wants(Share(24), Bursts { peak: 9_400_000, period: 17, length: 9 })
        .talks(
            4,
            &[
                ("tcp 151.101.1.69:443", 11_200),
                ("tcp 151.101.193.69:443", 11_900),
                ("tcp 185.199.108.133:443", 14_100),
                ("udp 142.250.74.110:443", 0),
                ("tcp 34.107.243.93:443", 22_300),
                ("tcp 192.168.1.1:80", 700),
            ],
        ),
    program(2290, 2114, "Isolated Web Co", "ada")
        .file("/usr/lib/firefox/firefox", "-contentproc -childID 12")
        .within(DESKTOP)
        .wants(Steady(2_100), Steady(31_000))
        .talks(0, &[("tcp 104.16.132.229:443", 9_800)]),
    program(2391, 1890, "thunderbird", "ada")
        .file("/usr/lib/thunderbird/thunderbird", "")
        .within(MAIL)
        .wants(Share(90), Bursts { peak: 240_000, period: 60, length: 4 })
        .talks(0, &[("tcp 185.70.42.25:993", 31_000), ("tcp 74.125.133.109:993", 19_400)]),
    program(3102, 1890, "bash", "ada").file("/usr/bin/bash", "").within(TERMINAL),
    program(39_998, 3102, "curl", "ada")
        .file("/usr/bin/curl", "-LO https://cdimage.debian.org/debian-13.1.0-amd64-netinst.iso")
        .within(TERMINAL)
        .wants(Share(14), Steady(4_120_000))
        .talks(0, &[("tcp 194.71.11.165:443", 28_700)]),
    program(40_112, 3102, "git", "ada")
        .file("/usr/bin/git", "clone https://github.com/torvalds/linux")
        .within(TERMINAL)
        .wants(Share(11), Steady(6_800_000))
        .lives(14, 87)
        .talks(0, &[("tcp 140.82.121.4:443", 24_000)]),
    program(2502, 1, "syncthing", "ada")
        .file("/usr/bin/syncthing", "serve --no-browser")
        .within("/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service")
        .wants(Bursts { peak: 880_000, period: 29, length: 11 }, Steady(12_000))
        .talks(820, &[("tcp 192.168.1.23:22000", 1_900), ("udp 203.0.113.77:22067", 0)]),
    program(1022, 1, "sshd", "root")
        .file("/usr/sbin/sshd", "-D")
        .within("/system.slice/ssh.service")
        .wants(Steady(300), Steady(200))
        .talks(1000, &[("tcp 192.168.1.50:51022", 1_100)]),
    program(3811, 1022, "sshd-session", "root")
        .file("/usr/lib/openssh/sshd-session", "ben [priv]")
        .within(LOGIN)
        .wants(Steady(18_200), Steady(2_400))
        .talks(1000, &[("tcp 192.168.1.50:51344", 1_200)]),
    program(3830, 3811, "bash", "ben").file("/usr/bin/bash", "-l").within(LOGIN),
    program(3907, 3830, "rsync", "ben")
        .file("/usr/bin/rsync", "-az photos/ backup.example.org:photos/")
        .within(LOGIN),
    program(3908, 3907, "ssh", "ben")
        .file("/usr/bin/ssh", "backup.example.org rsync --server -logDtpre.iLsfxCIvu . photos/")
        .within(LOGIN)
        .wants(Steady(2_350_000), Share(19))
        .talks(0, &[("tcp 198.51.100.20:22", 41_000)]),
    program(1377, 1, "transmission-da", "debian-transmission")
        .file("/usr/bin/transmission-daemon", "-f --log-level=error")
        .within("/system.slice/transmission-daemon.service")
        .wants(Steady(1_180_000), Steady(92_000))
        .talks(
            0,
            &[
                ("tcp 203.0.113.9:51413", 88_000),
                ("tcp 203.0.113.201:6881", 143_000),
                ("tcp [2001:db8:7::19]:51413", 61_000),
                ("udp 198.51.100.77:51413", 0),
            ],
        ),
    program(1204, 1, "nginx", "root")
        .file("/usr/sbin/nginx", "-g daemon off;")
        .within("/system.slice/nginx.service"),
    program(1205, 1204, "nginx", "www-data")
        .file("/usr/sbin/nginx", "-g daemon off;")
        .within("/system.slice/nginx.service")
        .wants(Bursts { peak: 640_000, period: 13, length: 6 }, Share(70))
        .talks(350, &[("tcp 198.51.100.4:40112", 17_000), ("tcp 172.17.0.2:3000", 90)]),
    program(1206, 1204, "nginx", "www-data")
        .file("/usr/sbin/nginx", "-g daemon off;")
        .within("/system.slice/nginx.service")
        .wants(Bursts { peak: 510_000, period: 11, length: 5 }, Share(80))
        .talks(300, &[("tcp 203.0.113.61:55190", 23_000), ("tcp 172.17.0.2:3000", 80)]),
    program(1311, 1, "dockerd", "root")
        .file("/usr/bin/dockerd", "-H fd://")
        .within("/system.slice/docker.service"),
    program(1640, 1311, "node", "1000")
        .file("/usr/local/bin/node", "/srv/shop/server.js")
        .within(SHOP)
        .wants(Steady(210_000), Steady(96_000))
        .talks(1000, &[("tcp 172.17.0.1:38214", 70), ("tcp 172.17.0.3:5432", 60)]),
    program(1702, 1311, "postgres", "postgres")
        .file("/usr/lib/postgresql/17/bin/postgres", "-D /var/lib/postgresql/data")
        .within(DATABASE)
        .wants(Steady(61_000), Steady(22_000))
        .talks(1000, &[("tcp 172.17.0.2:51880", 60)]),
    program(871, 1, "systemd-resolve", "systemd-resolve")
        .file("/usr/lib/systemd/systemd-resolved", "")
        .within("/system.slice/systemd-resolved.service")
        .wants(Steady(110), Steady(340))
        .talks(900, &[("udp 192.168.1.1:53", 0)]),
    program(903, 1, "chronyd", "_chrony")
        .file("/usr/sbin/chronyd", "-F 1")
        .within("/system.slice/chrony.service")
        .wants(Bursts { peak: 90, period: 64, length: 1 }, Share(1000))
        .talks(0, &[("udp 193.182.111.12:123", 0)]),
    program(41_377, 1, "http", "_apt")
        .file("/usr/lib/apt/methods/http", "")
        .within("/system.slice/apt-daily.service")
        .wants(Share(16), Steady(2_900_000))
        .lives(96, 141)
        .talks(0, &[("tcp 151.101.86.132:80", 11_400)]),
];
