//! The host that is not there: how much everybody sends and receives, and what limits make of it.
//!
//! Pure: what has happened depends on the seed, on the time that has passed and on the limits set meanwhile.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chadthrottle_common::ThrottleStats;

use super::{
    books::books,
    members::{covers, kind_share},
    programs::{PROGRAMS, Program, Wish},
};
use crate::{
    backends::throttle::{Subject, Target, TrafficType},
    process::{ProcessId, ProcessInfo},
    stats::{Buckets, ProcessMap, ProcessTraffic, Sample, Traffic},
};

/// One of the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Up,
    Down,
}

/// What a limited direction did.
#[derive(Clone, Copy, Debug)]
struct Held {
    limit: u64,
    traffic: TrafficType,
    stats: ThrottleStats,
    /// Written, and not sent yet.
    waiting: u64,
}

/// The host.
#[derive(Debug)]
pub struct World {
    seed: u64,
    now: Duration,
    totals: BTreeMap<i32, Traffic>,
    held: BTreeMap<(Subject, Way), Held>,
    /// Programs that exist only to be many.
    crowd: Vec<Arc<ProcessInfo>>,
}

/// Longest time over which everybody's wishes stay as they are.
const STEP: Duration = Duration::from_secs(1);
/// What a socket takes of a program that writes faster than is sent, in bytes.
const BUFFER: u64 = 212_992;
/// The first pid of the crowd.
pub(super) const CROWD: i32 = 100_000;
/// How many of a crowd change each second.
const LIVELY: u64 = 300;

impl World {
    /// A host at its first instant, with `crowd` more processes than it needs.
    #[must_use]
    pub fn new(seed: u64, crowd: usize) -> Self {
        let crowd = i32::try_from(crowd).unwrap_or(i32::MAX - CROWD);
        let crowd = (0..crowd).map(|index| {
            let info = ProcessInfo {
                id: identity(CROWD + index),
                name: format!("worker-{}", index % 97),
                exe: Some(format!("/opt/crowd/worker-{}", index % 97).into()),
                user: Some(["ada", "ben", "root", "www-data"][(index % 4).unsigned_abs() as usize].into()),
                cgroup: Some(format!("/system.slice/crowd-{}.service", index % 40)),
                container: None,
            };
            Arc::new(info)
        });
        Self {
            seed,
            now: Duration::ZERO,
            totals: BTreeMap::new(),
            held: BTreeMap::new(),
            crowd: crowd.collect(),
        }
    }

    /// Lets time pass until `to` (since the first instant).
    pub fn advance(&mut self, to: Duration) {
        while self.now < to {
            let second = self.now.as_secs();
            let end = to.min(STEP * u32::try_from(second + 1).unwrap_or(u32::MAX)).max(self.now);
            if end == self.now {
                return;
            }
            self.pass(second, end.saturating_sub(self.now));
            self.now = end;
        }
    }

    fn pass(&mut self, second: u64, time: Duration) {
        let living: Vec<&Program> =
            PROGRAMS.iter().filter(|program| program.is_seen() && lives(program, second)).collect();
        let mut moved: Vec<[u64; 2]> = vec![[0; 2]; living.len()];
        for (index, way) in [Way::Up, Way::Down].into_iter().enumerate() {
            let wanted: Vec<u64> =
                living.iter().map(|program| scale(self.wanted(program, way, second), time)).collect();
            for (moved, passed) in moved.iter_mut().zip(self.through(&living, way, &wanted, time)) {
                moved[index] = passed;
            }
        }
        for (program, [upload, download]) in living.into_iter().zip(moved) {
            self.add(program.pid, Traffic { upload, download });
        }
        let crowd = self.crowd.len() as u64;
        for turn in 0..LIVELY.min(crowd) {
            let index = mixed(self.seed, second, turn) % crowd;
            let pid = CROWD + i32::try_from(index).unwrap_or_default();
            let bytes = 100 + mixed(self.seed, index, second) % 40_000;
            self.add(pid, Traffic { upload: scale(bytes / 7, time), download: scale(bytes, time) });
        }
    }

    fn add(&mut self, pid: i32, traffic: Traffic) {
        let total = self.totals.entry(pid).or_default();
        *total = total.plus(traffic);
    }

    /// The limit that holds a program: the most specific one, as subjects are ordered.
    fn holds(&self, program: &Program, way: Way) -> Option<(&Subject, &Held)> {
        let held = self.held.iter().filter(|((_, held_way), _)| *held_way == way);
        held.map(|((subject, _), held)| (subject, held)).find(|(subject, _)| covers(subject, program))
    }

    /// What gets through. Whoever is held by one limit shares it by what each wants.
    fn through(&mut self, programs: &[&Program], way: Way, wanted: &[u64], time: Duration) -> Vec<u64> {
        let holders: Vec<Option<Subject>> = programs
            .iter()
            .map(|program| self.holds(program, way).map(|(subject, _)| subject.clone()))
            .collect();
        let mut passed = wanted.to_vec();
        for ((subject, held_way), held) in &mut self.held {
            if *held_way != way {
                continue;
            }
            let members = || (0..programs.len()).filter(|&place| holders[place].as_ref() == Some(subject));
            let counted = |place: usize| wanted[place] * kind_share(held.traffic, programs[place]) / 1000;
            let all: u64 = members().map(counted).sum();
            let room = scale(held.limit, time).min(all);
            for place in members().filter(|_| all > 0) {
                let part = u128::from(counted(place)) * u128::from(room) / u128::from(all);
                passed[place] = wanted[place] - counted(place) + u64::try_from(part).unwrap_or_default();
            }
            // Flow control keeps most of it in the program: few packets come as far as to be dropped.
            let dropped = if room < all { room / 180 + u64::from(held.limit == 0) * 60 } else { 0 };
            // What is written fills the sockets' buffers, and no more is written then.
            let left = (held.waiting + all - room).min(BUFFER * members().count() as u64);
            held.waiting = if room < all { left } else { 0 };
            held.stats.bytes_total += room + dropped;
            held.stats.packets_total += (room + dropped).div_ceil(1400);
            held.stats.bytes_dropped += dropped;
            held.stats.packets_dropped += dropped.div_ceil(1400);
        }
        passed
    }

    fn wanted(&self, program: &Program, way: Way, second: u64) -> u64 {
        let pid = u64::from(program.pid.unsigned_abs());
        let (wish, other) = match way {
            Way::Up => (program.upload, program.download),
            Way::Down => (program.download, program.upload),
        };
        // Between 85 and 115 hundredths.
        let noisy = |bytes: u64| bytes * (85 + mixed(self.seed ^ way as u64, pid, second) % 31) / 100;
        match (wish, other) {
            (Wish::Nothing, _) | (Wish::Share(_), Wish::Share(_)) => 0,
            (Wish::Steady(bytes), _) => noisy(bytes),
            (Wish::Bursts { peak, period, length }, _) => {
                let phase = (second + mixed(self.seed, pid, 0)) % period;
                noisy(if phase < length { peak } else { peak / 100 })
            }
            (Wish::Share(thousandths), _) => {
                let other = if way == Way::Up { Way::Down } else { Way::Up };
                let mut wanted = self.wanted(program, other, second);
                // Who gets less has less to acknowledge.
                if let Some((_, held)) = self.holds(program, other) {
                    wanted = wanted.min(held.limit);
                }
                wanted * thousandths / 1000
            }
        }
    }

    /// Everything counted so far.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let mut processes = ProcessMap::new();
        for program in PROGRAMS {
            let Some(total) = self.totals.get(&program.pid).copied() else { continue };
            let local = portion(total, program.local);
            let mut interfaces = Vec::new();
            let containers = program.cgroup.contains("/docker-");
            for (name, traffic) in [
                ("docker0", if containers { local } else { Traffic::default() }),
                ("eth0", if containers { total.since(local) } else { total }),
            ] {
                if traffic != Traffic::default() {
                    interfaces.push((Arc::from(name), traffic));
                }
            }
            let alive = lives(program, self.now.as_secs());
            let info = Arc::new(info(program));
            let traffic = ProcessTraffic { info, total, local: Some(local), interfaces, alive };
            processes.insert(identity(program.pid), traffic);
        }
        let outside: Arc<str> = Arc::from("eth0");
        for info in &self.crowd {
            let total = self.totals.get(&info.id.pid).copied().unwrap_or_default();
            let local = Some(Traffic::default());
            let interfaces = vec![(Arc::clone(&outside), total)];
            let traffic = ProcessTraffic { info: Arc::clone(info), total, local, interfaces, alive: true };
            processes.insert(info.id, traffic);
        }
        let buckets = self.buckets();
        let interfaces = books(&processes, buckets, self.now);
        Sample { processes, buckets, interfaces, lost_events: 0 }
    }

    fn buckets(&self) -> Buckets {
        let seconds = self.now.as_secs();
        let both =
            |upload: u64, download: u64| Traffic { upload: upload * seconds, download: download * seconds };
        Buckets {
            kernel: both(900, 4_200),
            replies: both(60, 40),
            unknown: both(0, 110),
            ended: Traffic::default(),
            forwarded: both(31_000, 31_000),
        }
    }

    /// Sets a limit, in bytes a second.
    pub(super) fn hold(&mut self, target: &Target, way: Way, limit: u64) {
        let held = self.held.entry((target.subject.clone(), way));
        let held = held.or_insert(Held {
            limit,
            traffic: target.traffic,
            stats: ThrottleStats::default(),
            waiting: 0,
        });
        (held.limit, held.traffic) = (limit, target.traffic);
    }

    /// Takes a limit away.
    pub(super) fn free(&mut self, subject: &Subject, way: Way) {
        self.held.remove(&(subject.clone(), way));
    }

    pub(super) fn limit(&self, subject: &Subject, way: Way) -> Option<u64> {
        self.held.get(&(subject.clone(), way)).map(|held| held.limit)
    }

    /// What waits for an upload limit.
    pub(super) fn held_back(&self, subject: &Subject) -> Option<u64> {
        self.held.get(&(subject.clone(), Way::Up)).map(|held| held.waiting)
    }

    pub(super) fn held(&self, subject: &Subject, way: Way) -> ThrottleStats {
        self.held.get(&(subject.clone(), way)).map(|held| held.stats).unwrap_or_default()
    }

    /// Whether it is one of this host's.
    pub(super) fn is_there(&self, process: ProcessId) -> bool {
        let second = self.now.as_secs();
        PROGRAMS.iter().any(|program| program.pid == process.pid && lives(program, second))
            || self.crowd.iter().any(|info| info.id == process)
    }

    /// How much time has passed, and what somebody has counted.
    pub(super) fn so_far(&self, process: ProcessId) -> (Duration, Traffic) {
        (self.now, self.totals.get(&process.pid).copied().unwrap_or_default())
    }
}

/// Whether a program runs in that second.
pub(super) fn lives(program: &Program, second: u64) -> bool {
    (program.life.0..program.life.1).contains(&second)
}

/// Its pid, and a start that follows from it.
pub(super) fn identity(pid: i32) -> ProcessId {
    ProcessId { pid, start_time: 1_000 + u64::from(pid.unsigned_abs()) * 11 }
}

/// What a monitor knows of it.
pub(super) fn info(program: &Program) -> ProcessInfo {
    ProcessInfo {
        id: identity(program.pid),
        name: program.name.into(),
        exe: Some(program.exe.into()),
        user: Some(program.user.into()),
        cgroup: Some(program.cgroup.into()),
        container: None,
    }
}

/// So many thousandths of it.
pub(super) const fn portion(traffic: Traffic, thousandths: u64) -> Traffic {
    Traffic { upload: traffic.upload * thousandths / 1000, download: traffic.download * thousandths / 1000 }
}

/// What so many bytes a second make in that time.
fn scale(bytes: u64, time: Duration) -> u64 {
    let bytes = u128::from(bytes) * time.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A number that looks like any other, and is the same for the same arguments: the finaliser of splitmix64.
pub(super) const fn mixed(seed: u64, a: u64, b: u64) -> u64 {
    let mut z = seed
        .wrapping_add(a.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(b.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seed: u64, seconds: u64) -> Sample {
        let mut world = World::new(seed, 0);
        world.advance(Duration::from_secs(seconds));
        world.sample()
    }

    #[test]
    fn the_same_seed_and_time_make_the_same_host() {
        assert_eq!(at(1, 90), at(1, 90));
        assert_ne!(at(1, 90), at(2, 90));
        let mut slowly = World::new(1, 0);
        for second in 1..=90 {
            slowly.advance(Duration::from_secs(second));
        }
        assert_eq!(slowly.sample(), at(1, 90));
    }

    #[test]
    fn a_limit_holds_from_then_on_and_is_counted() {
        let curl = identity(39_998);
        let mut world = World::new(1, 0);
        world.advance(Duration::from_secs(10));
        let before = world.sample().processes[&curl].total;
        world.hold(&Target::process(curl, "curl"), Way::Down, 500_000);
        world.advance(Duration::from_secs(20));
        let after = world.sample().processes[&curl].total;
        assert_eq!(after.since(before).download, 5_000_000);
        assert!(after.since(before).upload > 0, "who receives acknowledges");
        let stats = world.held(&Subject::Process(curl), Way::Down);
        assert_eq!(stats.bytes_total - stats.bytes_dropped, 5_000_000);
        assert!(stats.bytes_dropped > 0);
        world.free(&Subject::Process(curl), Way::Down);
        assert_eq!(world.limit(&Subject::Process(curl), Way::Down), None);
    }

    #[test]
    fn who_is_held_together_shares_one_limit() {
        let both = [identity(1205), identity(1206)];
        let mut world = World::new(1, 0);
        let subject = Subject::Program("/usr/sbin/nginx".into());
        let target = Target { subject, name: "nginx".into(), traffic: TrafficType::All };
        world.hold(&target, Way::Up, 50_000);
        world.advance(Duration::from_secs(40));
        let sample = world.sample();
        let sent: u64 = both.iter().map(|id| sample.processes[id].total.upload).sum();
        assert!((1_000_000..=2_000_000).contains(&sent), "{sent}");
        let ada = Target { subject: Subject::User(1000), name: "ada".into(), traffic: TrafficType::Local };
        let before = sample.processes[&identity(39_998)].total;
        world.hold(&ada, Way::Down, 0);
        world.advance(Duration::from_secs(41));
        let after = world.sample().processes[&identity(39_998)].total;
        assert!(after.since(before).download > 3_000_000, "curl has nothing local");
    }

    #[test]
    fn programs_come_and_go_and_their_bytes_stay() {
        let git = identity(40_112);
        assert!(!at(1, 10).processes.contains_key(&git));
        assert!(at(1, 60).processes[&git].alive);
        let (ended, later) = (at(1, 90), at(1, 120));
        assert!(!ended.processes[&git].alive);
        assert_eq!(ended.processes[&git].total, later.processes[&git].total);
    }

    #[test]
    fn the_books_close() {
        let sample = at(3, 200);
        let all = sample.processes.values().fold(Traffic::default(), |sum, one| sum.plus(one.total));
        let booked = sample.interfaces.iter().fold(Traffic::default(), |sum, one| sum.plus(one.processes));
        assert_eq!(all, booked);
        for process in sample.processes.values() {
            let parts = process.interfaces.iter().fold(Traffic::default(), |sum, (_, part)| sum.plus(*part));
            assert_eq!(parts, process.total, "{}", process.info.name);
        }
    }
}
