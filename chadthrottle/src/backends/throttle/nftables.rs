//! Upload limits by a firewall table of our own: what is over the limit is dropped.
//!
//! - A packet's target is known by its priority, which a [tagger] sets on the sockets of the target. Not by
//!   its mark: routing rules read that, and some programs (VPNs) set one of their own that must stay.
//! - The table belongs to our netlink socket (the `owner` flag): nobody else changes it, and it is gone with us, whatever
//!   ends us.
//! - Who sends a datagram that is dropped gets `EPERM`, and TCP may wait for its retry timer. [Flow](super::flow) control
//!   in front keeps TCP from coming to that.

use std::{collections::BTreeMap, fs, path::Path};

use chadthrottle_common::ThrottleStats;
use nix::errno::Errno;

use super::{
    Subject, Target, UploadThrottleBackend,
    flow::{self, Direction, SharedFlow},
    tagger::{self, Tag, Tagger, Tagging, can_be_held, untaggable},
};
use crate::{
    backends::{Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, Obstacle},
    sys::{
        capability::{self, NET_ADMIN},
        netlink::Refusal,
        nft::{Chain, Expression, NewRule, Rule, Table, Verdict},
    },
};

/// Name on the command line.
pub const NAME: &str = "nftables";
/// It drops, and a second's worth may come at once.
pub const PRIORITY: BackendPriority = BackendPriority::Fallback;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities = BackendCapabilities::ALL_TRAFFIC;

/// Where all that is sent goes through, and the rules of targets.
const ALL: Chain<'_> = Chain { name: "sent", hooked_at: Some(i32::MAX) };
const LIMITS: Chain<'_> = Chain { name: "limits", hooked_at: None };
/// The upper half of our priorities: below those that the kernel gives to queues by itself, and not that of `tc_htb`.
const MAJOR: u32 = 0x7cae_0000;
/// The lower half counts in steps of this, because of the lowest four bits queues take their own meaning (`pfifo_fast`,
/// `fq`, VLANs), and 0 there is what packets have by themselves.
const STEP: u32 = 16;
const MINORS: u32 = 0xffff / STEP;
/// A packet longer than the bucket would never pass: a super-packet with headers, in bytes. A second of the limit is in
/// the bucket in any case (`nft_limit_init`).
const LONGEST: u64 = 72_000;
/// Upload limits.
pub struct NftablesUpload {
    options: BackendOptions,
    flow: SharedFlow,
    /// Once there has been a limit.
    tagger: Option<Box<dyn Tagger>>,
    /// As long as there are limits.
    table: Option<Table>,
    targets: BTreeMap<Subject, Limited>,
    next: u32,
}

/// A limit.
#[derive(Clone, Debug)]
struct Limited {
    priority: u32,
    limit: u64,
    comment: String,
}

impl NftablesUpload {
    /// A limiter with flow control (guarded) in front.
    #[must_use]
    pub fn new(options: &BackendOptions, flow: &SharedFlow) -> Self {
        Self {
            options: options.clone(),
            flow: flow.clone(),
            tagger: None,
            table: None,
            targets: BTreeMap::new(),
            next: 0,
        }
    }

    fn set(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        let known = self.targets.get(&target.subject).cloned();
        let limited = Limited {
            limit,
            ..known.clone().unwrap_or_else(|| {
                let priority = self.free_priority();
                let comment = format!("{priority:x}: {target}");
                Limited { priority, limit, comment }
            })
        };
        let refused = |cause: Refusal| kernel("set a rule", cause);
        if self.table.is_none() {
            self.table = Some(self.make_table()?);
        }
        let before = self.rule(&limited.comment)?;
        let handle = before.as_ref().map(|rule| rule.handle);
        let counters = before.map(|rule| rule.counters).unwrap_or_default();
        let expressions = limited.expressions(&counters);
        let rule = NewRule { chain: LIMITS.name, comment: &limited.comment, expressions: &expressions };
        if let Some(table) = &mut self.table {
            table.set_rule(rule, handle).map_err(refused)?;
        }
        let priority = limited.priority;
        self.targets.insert(target.subject.clone(), limited);
        if known.is_some() {
            return Ok(());
        }
        let tag = Tag { priority: Some(priority), mark: None };
        let tagged = self.tagger().and_then(|tagger| {
            tagger.tag(target, tag).map_err(|error| untaggable(NAME, &target.subject, error))
        });
        if tagged.is_err() {
            self.remove(&target.subject)?;
        }
        tagged
    }

    fn tagger(&mut self) -> Result<&mut Box<dyn Tagger>, BackendError> {
        let tagger = match self.tagger.take() {
            Some(tagger) => tagger,
            None => Tagging::before_programs(&self.options)
                .make(NAME)
                .map_err(|error| kernel("know whose a packet is", error))?,
        };
        Ok(self.tagger.insert(tagger))
    }

    fn remove(&mut self, subject: &Subject) -> Result<(), BackendError> {
        let Some(limited) = self.targets.remove(subject) else { return Ok(()) };
        let untagged = self.tagger.as_mut().map_or(Ok(()), |tagger| tagger.untag(subject));
        let untagged = untagged.map_err(|error| kernel("put back what packets were known by", error));
        // With all that is in it.
        if self.targets.is_empty() {
            self.table = None;
        }
        BackendError::all_of([untagged, self.remove_rule(&limited.comment)])
    }

    fn remove_rule(&mut self, comment: &str) -> Result<(), BackendError> {
        let rule = self.rule(comment)?;
        match (rule, &mut self.table) {
            (Some(rule), Some(table)) => {
                table.delete_rule(LIMITS.name, rule.handle).map_err(|cause| kernel("remove a rule", cause))
            }
            _ => Ok(()),
        }
    }

    /// The next one that nobody has: as late as possible one that sockets may have that were lost to us.
    fn free_priority(&mut self) -> u32 {
        loop {
            self.next = self.next % MINORS + 1;
            let priority = MAJOR | (self.next * STEP);
            if self.targets.values().all(|limited| limited.priority != priority) {
                return priority;
            }
        }
    }

    /// A table in which nothing is limited yet.
    fn make_table(&self) -> Result<Table, BackendError> {
        let jump = Expression::Verdict(Verdict::Jump(LIMITS.name));
        let by = |name, does| Expression::Leaves { by: name, does };
        let mut ways: Vec<Vec<Expression<'_>>> =
            self.options.interfaces.iter().map(|name| vec![by(name, true), jump]).collect();
        if ways.is_empty() && self.options.include_loopback {
            ways.push(vec![jump]);
        } else if ways.is_empty() {
            ways.push(vec![by("lo", false), jump]);
        }
        let rules: Vec<NewRule<'_>> =
            ways.iter().map(|way| NewRule { chain: ALL.name, comment: "", expressions: way }).collect();
        let name = format!("chadthrottle_{}", std::process::id());
        // First what is jumped to.
        Table::create(&name, &[LIMITS, ALL], &rules).map_err(|cause| kernel("make a table", cause))
    }

    fn rule(&mut self, comment: &str) -> Result<Option<Rule>, BackendError> {
        let Some(table) = &mut self.table else { return Ok(None) };
        let rules = table.rules(LIMITS.name).map_err(|error| kernel("list the rules", error))?;
        Ok(rules.into_iter().find(|rule| rule.comment == comment))
    }

    /// Asks TCP sockets to keep to a limit by themselves.
    fn slow_down(&self, target: &Target, limit: u64) {
        let covers_open = || self.capabilities().open_connections;
        flow::slow_down(&self.flow, target, Direction::Upload, limit, &self.options, covers_open);
    }
}

impl Limited {
    /// What is in the rule: what passes it is counted, and what is over the limit is counted and dropped.
    fn expressions(&self, before: &[(u64, u64)]) -> Vec<Expression<'static>> {
        let counter = |index: usize| {
            let (bytes, packets) = before.get(index).copied().unwrap_or_default();
            Expression::Counter { bytes, packets }
        };
        let burst = u32::try_from(LONGEST.saturating_sub(self.limit)).unwrap_or_default();
        let over = (self.limit > 0).then_some(Expression::Over { rate: self.limit, burst });
        let head = [Expression::Priority(self.priority), counter(0)];
        let tail = [counter(1), Expression::Verdict(Verdict::Drop)];
        head.into_iter().chain(over).chain(tail).collect()
    }
}

impl UploadThrottleBackend for NftablesUpload {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        obstacle(options).map_or(Availability::Available, Availability::Unavailable)
    }

    fn capabilities(&self) -> BackendCapabilities {
        tagger::capabilities(CAPABILITIES, tagger::name(&self.options, false))
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn throttle_upload(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        let subject = &target.subject;
        can_be_held(NAME, target)?;
        // Pacing is the lower one at any moment: TCP that is dropped waits for long.
        let before = self.get_upload_throttle(subject);
        let is_lower = before.is_none_or(|before| limit <= before);
        if is_lower {
            self.slow_down(target, limit);
        }
        if let Err(error) = self.set(target, limit) {
            match before {
                Some(before) => self.slow_down(target, before),
                None => self.flow.release(subject, Direction::Upload),
            }
            if self.targets.is_empty() {
                self.table = None;
            }
            return Err(error);
        }
        if !is_lower {
            self.slow_down(target, limit);
        }
        Ok(())
    }

    fn remove_upload_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        let removed = self.remove(subject);
        self.flow.release(subject, Direction::Upload);
        removed
    }

    fn get_upload_throttle(&self, subject: &Subject) -> Option<u64> {
        self.targets.get(subject).map(|limited| limited.limit)
    }

    fn held_back(&self, subject: &Subject) -> Option<u64> {
        self.flow.held_back(subject)
    }

    fn upload_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        let (Some(limited), Some(table)) = (self.targets.get(subject), &self.table) else {
            return Ok(ThrottleStats::default());
        };
        let rules = table.rules(LIMITS.name).map_err(|error| kernel("list the rules", error))?;
        let rule = rules.into_iter().find(|rule| rule.comment == limited.comment);
        let counters = rule.map(|rule| rule.counters).unwrap_or_default();
        let counter = |index: usize| counters.get(index).copied().unwrap_or_default();
        let ((bytes_total, packets_total), (bytes_dropped, packets_dropped)) = (counter(0), counter(1));
        let offered = ThrottleStats { bytes_total, packets_total, ..ThrottleStats::default() };
        Ok(ThrottleStats { bytes_dropped, packets_dropped, ..offered })
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.tagger.as_mut().map_or(Ok(()), |tagger| tagger.maintain())
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        let all: Vec<Subject> = self.targets.keys().cloned().collect();
        let removed: Vec<_> = all.iter().map(|subject| self.remove(subject)).collect();
        self.flow.release_all(Direction::Upload);
        BackendError::all_of(removed)
    }
}

impl Drop for NftablesUpload {
    /// Also where nobody cleans up. The table goes by itself.
    fn drop(&mut self) {
        self.flow.release_all(Direction::Upload);
    }
}

/// Why it cannot work here. Changes nothing: asking the kernel itself would load a module.
fn obstacle(options: &BackendOptions) -> Option<Obstacle> {
    if let Some(missing) = capability::first_missing(&[NET_ADMIN]) {
        return Some(Obstacle::Privilege { capability: missing.name });
    }
    if let Some(obstacle) = tagger::obstacle(options, false) {
        return Some(obstacle);
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if version(&release).is_some_and(|version| version < (5, 12)) {
        return Some(Obstacle::Host {
            cause: "this kernel has no nftables tables that end with their owner".into(),
            remedy: "use Linux 5.12 or later".into(),
        });
    }
    let modules = fs::read_to_string(format!("/lib/modules/{}/modules.dep", release.trim()));
    // Where there is no such list (in a container) it is tried.
    let is_absent = modules.is_ok_and(|modules| !modules.contains("/nf_tables.ko"))
        && !Path::new("/sys/module/nf_tables").exists()
        && !Path::new("/proc/sys/net/netfilter").exists();
    is_absent.then(|| Obstacle::Host {
        cause: "this kernel has no nftables".into(),
        remedy: "use one with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET".into(),
    })
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(step: &str, error: impl Into<anyhow::Error>) -> BackendError {
    let cause = error.into();
    let is_unknown = cause.downcast_ref::<Refusal>().is_some_and(|refusal| {
        matches!(refusal.errno, Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::ENOENT)
    });
    let cause = if is_unknown {
        cause.context(
            "the kernel lacks a part of nftables (CONFIG_NF_TABLES_INET, CONFIG_NFT_LIMIT, Linux 5.12)",
        )
    } else {
        cause
    };
    BackendError::Kernel { backend: NAME, step: step.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_room_for_a_super_packet() {
        let limited = |limit| Limited { priority: MAJOR | STEP, limit, comment: String::new() };
        let over = |limit| limited(limit).expressions(&[]).into_iter().nth(2);
        assert_eq!(over(64_000), Some(Expression::Over { rate: 64_000, burst: 8_000 }));
        assert_eq!(over(1_000_000), Some(Expression::Over { rate: 1_000_000, burst: 0 }));
        // A block has no rate, and counts go on where a limit is changed.
        assert_eq!(
            limited(0).expressions(&[(5, 1), (4, 2)])[2],
            Expression::Counter { bytes: 4, packets: 2 }
        );
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.18.44-fc\n"), Some((6, 18)));
        assert_eq!(version("nonsense"), None);
    }
}
