//! Processes that belong together, on one line that unfolds.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use super::{
    row::Row,
    sort::{Figures, Sort},
    unit::unit,
};
use crate::{
    backends::throttle::{
        Subject, Target, TrafficType,
        manager::{LimitedTarget, Limits},
    },
    lookout::Ancestor,
    process::ProcessId,
    stats::Traffic,
};

/// What is put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// Nothing: each process by itself.
    #[default]
    None,
    /// The processes of one executable.
    Program,
    /// Those of one user.
    User,
    /// Those of one unit or container.
    Unit,
    /// Parents with their children.
    Tree,
}

impl Grouping {
    /// The next one, and the first after the last.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::None => Self::Program,
            Self::Program => Self::User,
            Self::User => Self::Unit,
            Self::Unit => Self::Tree,
            Self::Tree => Self::None,
        }
    }

    /// What it is, in a sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::None => "Each process by itself.",
            Self::Program => "Processes by program.",
            Self::User => "Processes by user.",
            Self::Unit => "Processes by unit or container.",
            Self::Tree => "Processes below their parents.",
        }
    }

    /// Its name on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "processes",
            Self::Program => "by program",
            Self::User => "by user",
            Self::Unit => "by unit",
            Self::Tree => "tree",
        }
    }
}

/// What makes a group one group, from one second to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GroupKey {
    /// An executable, or a name where that is not known.
    Program(String),
    /// A user.
    User(String),
    /// A cgroup.
    Unit(String),
    /// A process and all below it.
    Branch(ProcessId),
}

impl GroupKey {
    /// Whether a limit of that subject is for just this group, as far as its subject tells.
    #[must_use]
    pub fn is_for(&self, subject: &Subject) -> bool {
        self.is(&Target { subject: subject.clone(), name: String::new(), traffic: TrafficType::All })
    }

    /// Whether a limit is for just this group.
    fn is(&self, target: &Target) -> bool {
        match (self, &target.subject) {
            (Self::Program(program), Subject::Program(path)) => path == Path::new(program),
            (Self::Unit(unit), Subject::Cgroup(cgroup)) => unit == cgroup,
            // A user's limit is called by the user's name.
            (Self::User(user), Subject::User(uid)) => *user == target.name || *user == uid.to_string(),
            (Self::Branch(process), Subject::Descendants(id)) => process == id,
            _ => false,
        }
    }
}

/// What stands on a line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A process.
    Process(ProcessId),
    /// Several.
    Group(GroupKey),
}

/// A group's sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which.
    pub key: GroupKey,
    /// Its name on the screen.
    pub label: String,
    /// Its processes, as places in the rows.
    pub members: Vec<usize>,
    /// Bytes a second.
    pub rate: Traffic,
    /// Bytes since the monitor started.
    pub total: Traffic,
    /// Bytes dropped to hold limits.
    pub dropped: u64,
    /// Bytes that wait for upload limits, where that is known.
    pub held_back: Option<u64>,
    /// The limit that all of them share.
    pub limit: Option<LimitedTarget>,
    /// How many of its processes have a limit of their own.
    pub limited: usize,
    /// Whether any still runs.
    pub alive: bool,
    /// The user of all of them, where it is one.
    pub user: Option<String>,
    first: ProcessId,
}

impl Group {
    fn new(
        key: GroupKey,
        label: String,
        members: Vec<usize>,
        rows: &[Row],
        limits: &[LimitedTarget],
    ) -> Self {
        let of = || members.iter().filter_map(|&place| rows.get(place));
        let user = of().next().and_then(|row| row.info.user.clone());
        let limit = limits.iter().find(|limited| key.is(&limited.target)).cloned();
        let shared = limit.as_ref().map_or(0, |limit| {
            limit.upload_stats.bytes_dropped.saturating_add(limit.download_stats.bytes_dropped)
        });
        Self {
            rate: of().fold(Traffic::default(), |sum, row| sum.plus(row.rate)),
            total: of().fold(Traffic::default(), |sum, row| sum.plus(row.total)),
            dropped: of().fold(shared, |sum, row| sum.saturating_add(row.dropped())),
            held_back: of()
                .map(|row| row.held_back)
                .chain([limit.as_ref().and_then(|limit| limit.held_back)])
                .flatten()
                .reduce(u64::saturating_add),
            limited: of().filter(|row| !row.limits.is_empty() && !row.is_shared).count(),
            alive: of().any(|row| row.alive),
            first: of().map(Row::id).min().unwrap_or(ProcessId { pid: 0, start_time: 0 }),
            user: user.filter(|user| of().all(|row| row.info.user.as_ref() == Some(user))),
            limit,
            key,
            label,
            members,
        }
    }

    /// The limits that all of them share.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limit.as_ref().map(|limit| limit.limits).unwrap_or_default()
    }

    fn figures(&self) -> Figures<'_> {
        Figures {
            name: &self.label,
            id: self.first,
            user: self.user.as_deref(),
            rate: self.rate,
            total: self.total,
            limits: self.limits(),
            dropped: self.dropped,
            held_back: self.held_back,
        }
    }
}

/// A group with what is in it, or a process.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A place in the rows.
    Process(usize),
    Group(Box<Group>, Vec<Node>),
}

/// Who is above whom, as far as it is known.
pub type Kin = HashMap<ProcessId, Vec<Ancestor>>;

/// What groups are made of.
pub(super) struct Parts<'a> {
    pub(super) rows: &'a [Row],
    pub(super) limits: &'a [LimitedTarget],
    pub(super) kin: &'a Kin,
}

/// Puts the rows at these places together, sorted on every level.
pub(super) fn grouped(grouping: Grouping, parts: &Parts, places: Vec<usize>, sort: Sort) -> Vec<Node> {
    let mut nodes = match grouping {
        Grouping::None => places.into_iter().map(Node::Process).collect(),
        Grouping::Tree => tree(parts, &places),
        Grouping::Program | Grouping::User | Grouping::Unit => flat(grouping, parts, places),
    };
    arrange(&mut nodes, parts.rows, sort);
    nodes
}

fn flat(grouping: Grouping, parts: &Parts, places: Vec<usize>) -> Vec<Node> {
    let mut groups: BTreeMap<String, (String, Vec<usize>)> = BTreeMap::new();
    for place in places {
        let Some(row) = parts.rows.get(place) else { continue };
        let (key, label) = sorting_key(grouping, row);
        groups.entry(key).or_insert_with(|| (label, Vec::new())).1.push(place);
    }
    let node = |(key, (label, members)): (String, (String, Vec<usize>))| {
        // A program that runs once is itself.
        if let (Grouping::Program, [place]) = (grouping, members.as_slice()) {
            return Node::Process(*place);
        }
        let key = match grouping {
            Grouping::User => GroupKey::User(key),
            Grouping::Unit => GroupKey::Unit(key),
            _ => GroupKey::Program(key),
        };
        let children = members.iter().copied().map(Node::Process).collect();
        Node::Group(Box::new(Group::new(key, label, members, parts.rows, parts.limits)), children)
    };
    groups.into_iter().map(node).collect()
}

/// What makes rows belong together, and what that is called.
fn sorting_key(grouping: Grouping, row: &Row) -> (String, String) {
    let info = &row.info;
    match grouping {
        Grouping::User => {
            let user = info.user.clone().unwrap_or_else(|| "?".into());
            (user.clone(), user)
        }
        Grouping::Unit => {
            let cgroup = info.cgroup.clone().unwrap_or_default();
            let label = unit(info).unwrap_or_else(|| "no unit".into());
            (cgroup, label)
        }
        _ => match &info.exe {
            Some(exe) => (exe.to_string_lossy().into_owned(), info.name.clone()),
            None => (info.name.clone(), info.name.clone()),
        },
    }
}

/// Rows below those above them. An ancestor that is no row itself has a line where it brings several together: the
/// others would be a staircase that says nothing.
fn tree(parts: &Parts, places: &[usize]) -> Vec<Node> {
    let &Parts { rows, kin, .. } = parts;
    let own: HashMap<ProcessId, usize> =
        places.iter().filter_map(|&place| Some((rows.get(place)?.id(), place))).collect();
    let mut names: HashMap<ProcessId, &str> = HashMap::new();
    let mut children: BTreeMap<Option<ProcessId>, Vec<ProcessId>> = BTreeMap::new();
    let mut known: HashSet<ProcessId> = HashSet::new();
    for &place in places {
        let Some(row) = rows.get(place) else { continue };
        let mut below = row.id();
        if !known.insert(below) {
            continue;
        }
        // The first process of all has everybody below it, which says nothing.
        let above = kin.get(&below).into_iter().flatten().filter(|ancestor| ancestor.id.pid != 1);
        let mut is_joined = false;
        for ancestor in above {
            children.entry(Some(ancestor.id)).or_default().push(below);
            names.insert(ancestor.id, &ancestor.name);
            below = ancestor.id;
            if !known.insert(below) {
                is_joined = true;
                break;
            }
        }
        if !is_joined {
            children.entry(None).or_default().push(below);
        }
    }
    Tree { parts, own, names, children }.below(None, 0)
}

struct Tree<'a> {
    parts: &'a Parts<'a>,
    own: HashMap<ProcessId, usize>,
    names: HashMap<ProcessId, &'a str>,
    children: BTreeMap<Option<ProcessId>, Vec<ProcessId>>,
}

/// No tree of processes is deeper.
const DEEPEST: usize = 64;

impl Tree<'_> {
    fn below(&self, parent: Option<ProcessId>, depth: usize) -> Vec<Node> {
        let children = self.children.get(&parent).into_iter().flatten();
        children.filter_map(|&child| self.node(child, depth)).collect()
    }

    fn node(&self, process: ProcessId, depth: usize) -> Option<Node> {
        let mut nodes = if depth < DEEPEST { self.below(Some(process), depth + 1) } else { Vec::new() };
        let own = self.own.get(&process).copied();
        nodes.splice(..0, own.map(Node::Process));
        if nodes.len() < 2 {
            return nodes.pop();
        }
        let mut members = Vec::new();
        for node in &nodes {
            collect(node, &mut members);
        }
        let name = own.and_then(|place| Some(self.parts.rows.get(place)?.info.name.as_str()));
        let label = name.or_else(|| self.names.get(&process).copied()).unwrap_or("?").to_owned();
        let group = Group::new(GroupKey::Branch(process), label, members, self.parts.rows, self.parts.limits);
        Some(Node::Group(Box::new(group), nodes))
    }
}

fn collect(node: &Node, members: &mut Vec<usize>) {
    match node {
        Node::Process(place) => members.push(*place),
        Node::Group(group, _) => members.extend(&group.members),
    }
}

fn arrange(nodes: &mut Vec<Node>, rows: &[Row], sort: Sort) {
    let order = {
        // Looked up once, and not with every comparison.
        let figures: Vec<Option<Figures>> = nodes.iter().map(|node| figures_of(node, rows)).collect();
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_unstable_by(|&a, &b| match (&figures[a], &figures[b]) {
            (Some(a), Some(b)) => sort.compare(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        order
    };
    let mut unsorted: Vec<Option<Node>> = std::mem::take(nodes).into_iter().map(Some).collect();
    nodes.extend(order.into_iter().filter_map(|place| unsorted[place].take()));
    for node in nodes {
        if let Node::Group(_, children) = node {
            arrange(children, rows, sort);
        }
    }
}

fn figures_of<'a>(node: &'a Node, rows: &'a [Row]) -> Option<Figures<'a>> {
    match node {
        Node::Process(place) => rows.get(*place).map(Figures::of),
        Node::Group(group, _) => Some(group.figures()),
    }
}
