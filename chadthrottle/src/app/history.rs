//! What rates were: the last minute by the second, the last ten minutes and the last hour more coarsely.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    backends::throttle::TrafficType,
    process::ProcessId,
    stats::{ProcessRow, Snapshot, Traffic},
};

/// How far back a graph goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// A minute, second by second.
    #[default]
    Minute,
    /// Ten minutes, in steps of 5 s.
    TenMinutes,
    /// An hour, in steps of 30 s.
    Hour,
}

impl Span {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::TenMinutes, Self::Hour];

    /// How far apart two points are.
    #[must_use]
    pub const fn step(self) -> Duration {
        match self {
            Self::Minute => Duration::from_secs(1),
            Self::TenMinutes => Duration::from_secs(5),
            Self::Hour => Duration::from_secs(30),
        }
    }

    /// How many points it has.
    #[must_use]
    pub const fn points(self) -> usize {
        match self {
            Self::Minute => 60,
            Self::TenMinutes | Self::Hour => 120,
        }
    }

    /// Its name on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "1 min",
            Self::TenMinutes => "10 min",
            Self::Hour => "1 h",
        }
    }

    /// The next longer or shorter one, as far as there is one.
    #[must_use]
    pub fn zoomed(self, longer: bool) -> Self {
        let place = Self::ALL.iter().position(|span| *span == self).unwrap_or_default();
        let place = if longer { place + 1 } else { place.saturating_sub(1) };
        Self::ALL.get(place).copied().unwrap_or(self)
    }
}

/// Bytes a second. Three digits are shown, and single precision has seven.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    upload: f32,
    download: f32,
    local_upload: f32,
    local_download: f32,
}

impl Point {
    #[expect(clippy::cast_precision_loss, reason = "seven digits are kept")]
    fn new(row: &ProcessRow) -> Self {
        let local = row.local_rate.unwrap_or_default();
        Self {
            upload: row.rate.upload as f32,
            download: row.rate.download as f32,
            local_upload: local.upload as f32,
            local_download: local.download as f32,
        }
    }

    /// This on top of a weighted other one.
    fn plus(self, other: Self, weight: f32) -> Self {
        Self {
            upload: self.upload + other.upload * weight,
            download: self.download + other.download * weight,
            local_upload: self.local_upload + other.local_upload * weight,
            local_download: self.local_download + other.local_download * weight,
        }
    }

    fn of(self, kind: TrafficType) -> (f32, f32) {
        match kind {
            TrafficType::All => (self.upload, self.download),
            TrafficType::Local => (self.local_upload, self.local_download),
            TrafficType::Internet => {
                let rest = |all: f32, local: f32| (all - local).max(0.0);
                (rest(self.upload, self.local_upload), rest(self.download, self.local_download))
            }
        }
    }
}

/// One resolution.
#[derive(Clone, Debug, Default)]
struct Track {
    points: VecDeque<Point>,
    /// The point that is not complete: a mean in the making, and for how much of it time has passed.
    open: Point,
    passed: Duration,
}

impl Track {
    fn push(&mut self, span: Span, rate: Point, interval: Duration) {
        let step = span.step();
        let mut left = interval.min(step * u32::try_from(span.points()).unwrap_or(u32::MAX));
        while !left.is_zero() {
            let part = left.min(step.saturating_sub(self.passed));
            self.open = self.open.plus(rate, part.as_secs_f32() / step.as_secs_f32());
            self.passed += part;
            left -= part;
            if self.passed >= step {
                if self.points.len() == span.points() {
                    self.points.pop_front();
                }
                self.points.push_back(std::mem::take(&mut self.open));
                self.passed = Duration::ZERO;
            }
        }
    }

    /// The latest `count` points, the oldest first; with the open one where most of it has passed.
    fn latest(&self, span: Span, count: usize) -> impl Iterator<Item = Point> {
        let share = self.passed.as_secs_f32() / span.step().as_secs_f32();
        let open = (share > 0.5).then(|| Point::default().plus(self.open, 1.0 / share));
        let skipped = (self.points.len() + usize::from(open.is_some())).saturating_sub(count);
        self.points.iter().copied().chain(open).skip(skipped)
    }
}

#[derive(Clone, Debug, Default)]
struct History {
    tracks: [Track; 3],
}

/// Of all processes that have had any traffic while we looked.
///
/// Each is shared until it changes, so that a display that is held costs no copy.
#[derive(Clone, Debug, Default)]
pub struct Histories(HashMap<ProcessId, Arc<History>>);

impl Histories {
    /// Takes in what happened, and forgets who is not listed any more.
    pub fn take_in(&mut self, snapshot: &Snapshot) {
        if snapshot.interval.is_zero() {
            return;
        }
        let mut known = 0;
        for row in &snapshot.processes {
            let history = match self.0.get_mut(&row.info.id) {
                Some(history) => history,
                // Most processes do nothing: only those that did have a history.
                None if row.rate == Traffic::default() => continue,
                None => self.0.entry(row.info.id).or_default(),
            };
            known += 1;
            let point = Point::new(row);
            for (track, span) in Arc::make_mut(history).tracks.iter_mut().zip(Span::ALL) {
                track.push(span, point, snapshot.interval);
            }
        }
        if known < self.0.len() {
            let listed: HashSet<ProcessId> = snapshot.processes.iter().map(|row| row.info.id).collect();
            self.0.retain(|id, _| listed.contains(id));
        }
    }

    /// The latest `count` rates of some processes together, bytes a second up and down, the oldest first. Of what was
    /// not recorded there is nothing: there may be fewer.
    pub fn latest(
        &self,
        processes: impl Iterator<Item = ProcessId>,
        kind: TrafficType,
        span: Span,
        count: usize,
    ) -> Vec<(f32, f32)> {
        let mut sum: Vec<(f32, f32)> = Vec::new();
        for history in processes.filter_map(|process| self.0.get(&process)) {
            let Some(place) = Span::ALL.iter().position(|known| *known == span) else { continue };
            let rates: Vec<_> =
                history.tracks[place].latest(span, count).map(|point| point.of(kind)).collect();
            if rates.len() > sum.len() {
                let new = rates.len() - sum.len();
                sum.splice(..0, std::iter::repeat_n((0.0, 0.0), new));
            }
            // Both end now.
            let offset = sum.len() - rates.len();
            for (total, rate) in sum.iter_mut().skip(offset).zip(rates) {
                *total = (total.0 + rate.0, total.1 + rate.1);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessInfo;

    fn id(pid: i32) -> ProcessId {
        ProcessId { pid, start_time: 1 }
    }

    fn snapshot(rates: &[(i32, u64)], milliseconds: u64) -> Snapshot {
        let row = |&(pid, upload): &(i32, u64)| {
            let info = ProcessInfo {
                id: id(pid),
                name: String::new(),
                exe: None,
                user: None,
                cgroup: None,
                container: None,
            };
            let rate = Traffic { upload, download: 1 };
            let row = ProcessRow::new(info.into(), rate, rate, true);
            ProcessRow { local_rate: Some(Traffic { upload: upload / 4, download: 0 }), ..row }
        };
        Snapshot {
            interval: Duration::from_millis(milliseconds),
            processes: rates.iter().map(row).collect(),
            ..Snapshot::default()
        }
    }

    fn upload(histories: &Histories, pids: &[i32], kind: TrafficType, span: Span) -> Vec<f32> {
        let latest = histories.latest(pids.iter().map(|&pid| id(pid)), kind, span, 4);
        latest.into_iter().map(|(upload, _)| upload).collect()
    }

    #[test]
    fn points_stand_at_their_times_whatever_the_interval() {
        let mut histories = Histories::default();
        histories.take_in(&snapshot(&[(1, 100)], 0));
        assert!(upload(&histories, &[1], TrafficType::All, Span::Minute).is_empty());
        histories.take_in(&snapshot(&[(1, 100)], 1000));
        histories.take_in(&snapshot(&[(1, 200)], 1500));
        histories.take_in(&snapshot(&[(1, 400)], 500));
        let close = |values: Vec<f32>, expected: &[f32]| {
            assert_eq!(values.len(), expected.len(), "{values:?}");
            assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.5), "{values:?}");
        };
        close(upload(&histories, &[1], TrafficType::All, Span::Minute), &[100.0, 200.0, 300.0]);
        close(upload(&histories, &[1], TrafficType::Internet, Span::Minute), &[75.0, 150.0, 225.0]);
        assert!(histories.0[&id(1)].tracks[1].points.is_empty(), "five seconds have not passed");
        histories.take_in(&snapshot(&[(1, 0)], 2000));
        close(upload(&histories, &[1], TrafficType::All, Span::TenMinutes), &[120.0]);
    }

    #[test]
    fn groups_are_sums_that_end_now_and_who_leaves_is_forgotten() {
        let mut histories = Histories::default();
        histories.take_in(&snapshot(&[(1, 100)], 1000));
        histories.take_in(&snapshot(&[(1, 100), (2, 50)], 1000));
        let sums = upload(&histories, &[1, 2, 3], TrafficType::All, Span::Minute);
        assert_eq!(sums, [100.0, 150.0]);
        histories.take_in(&snapshot(&[(2, 50)], 1000));
        assert!(upload(&histories, &[1], TrafficType::All, Span::Minute).is_empty());
    }

    #[test]
    fn no_more_is_kept_than_is_shown() {
        let mut histories = Histories::default();
        for _ in 0..200 {
            histories.take_in(&snapshot(&[(1, 100)], 1000));
        }
        assert_eq!(histories.0[&id(1)].tracks[0].points.len(), Span::Minute.points());
        histories.take_in(&snapshot(&[(1, 100)], 1_000_000_000));
        assert_eq!(histories.0[&id(1)].tracks[2].points.len(), Span::Hour.points());
    }

    #[test]
    fn zooming_ends_at_both_ends() {
        assert_eq!(Span::Minute.zoomed(false), Span::Minute);
        assert_eq!(Span::Minute.zoomed(true).zoomed(true).zoomed(true), Span::Hour);
    }
}
