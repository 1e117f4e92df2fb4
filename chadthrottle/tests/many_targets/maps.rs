//! The tables of limits, by the descriptors that this process has of them.

use std::{collections::HashMap, fs};

use anyhow::Context;
use aya::{
    Pod,
    maps::{Array, HashMap as Table, Map, MapData, MapInfo},
};
use chadthrottle_common::{
    CgroupPath, ControlFlags, DIRECTION_DOWNLOAD, DIRECTION_UPLOAD, FileId, LIMIT_IN_FORCE, LimitSettings,
    Membership, ProcessKey, ProgramPlace, TARGETS, limit_index,
};

/// The maps of the only engine in this process.
pub(crate) struct Maps(HashMap<String, u32>);

impl Maps {
    pub(crate) fn of_this_process() -> anyhow::Result<Self> {
        let mut found = HashMap::new();
        for entry in fs::read_dir("/proc/self/fdinfo")? {
            // The one that reads the directory has gone.
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
            let Some(id) = id.and_then(|id| id.trim().parse().ok()) else { continue };
            let name = MapInfo::from_id(id)?.name_as_str().unwrap_or_default().to_owned();
            found.insert(name, id);
        }
        Ok(Self(found))
    }

    fn open(&self, name: &str) -> anyhow::Result<MapData> {
        // The kernel keeps 15 characters of a name.
        let id =
            self.0.get(&name[..name.len().min(15)]).with_context(|| format!("there is no map {name}"))?;
        Ok(MapData::from_id(*id)?)
    }

    fn entries<K: Pod, V: Pod>(&self, name: &str) -> anyhow::Result<Vec<(K, V)>> {
        let table: Table<_, K, V> = Table::try_from(Map::HashMap(self.open(name)?))?;
        Ok(table.iter().collect::<Result<_, _>>()?)
    }

    /// How many there are of programs, programs by place, cgroups, cgroups by path, users.
    pub(crate) fn places(&self) -> anyhow::Result<[usize; 5]> {
        Ok([
            self.entries::<FileId, u32>("CHAD_LIM_PROG")?.len(),
            self.entries::<ProgramPlace, u32>("CHAD_LIM_PLACE")?.len(),
            self.entries::<u64, u32>("CHAD_LIM_CGROUP")?.len(),
            self.entries::<CgroupPath, u32>("CHAD_LIM_PATH")?.len(),
            self.entries::<u32, u32>("CHAD_LIM_USER")?.len(),
        ])
    }

    /// The targets of programs, cgroups and users.
    pub(crate) fn targets_of_places(&self) -> anyhow::Result<Vec<u32>> {
        let mut targets: Vec<u32> =
            self.entries::<FileId, u32>("CHAD_LIM_PROG")?.into_iter().map(|(_, target)| target).collect();
        targets.extend(self.entries::<u64, u32>("CHAD_LIM_CGROUP")?.into_iter().map(|(_, target)| target));
        targets.extend(self.entries::<u32, u32>("CHAD_LIM_USER")?.into_iter().map(|(_, target)| target));
        Ok(targets)
    }

    /// Members, by pid and start.
    pub(crate) fn members(&self) -> anyhow::Result<Vec<((u32, u64), Membership)>> {
        let members = self.entries::<ProcessKey, Membership>("CHAD_MEMBERS")?;
        Ok(members.into_iter().map(|(key, member)| ((key.tgid(), key.start_time()), member)).collect())
    }

    pub(crate) fn control(&self) -> anyhow::Result<ControlFlags> {
        let control: Array<_, ControlFlags> = Array::try_from(Map::Array(self.open("CHAD_CONTROL")?))?;
        Ok(control.get(&0, 0)?)
    }

    /// The limits in force of a target, up and down.
    pub(crate) fn rates(&self, target: u32) -> anyhow::Result<[Option<u64>; 2]> {
        let limits: Array<_, LimitSettings> = Array::try_from(Map::Array(self.open("CHAD_LIMITS")?))?;
        let rate = |direction| {
            let settings = limits.get(&limit_index(target, direction), 0)?;
            anyhow::Ok((settings.flags & LIMIT_IN_FORCE != 0).then_some(settings.config.rate_bps))
        };
        Ok([rate(DIRECTION_UPLOAD)?, rate(DIRECTION_DOWNLOAD)?])
    }

    /// That no target has a limit.
    pub(crate) fn check_no_limits(&self) -> anyhow::Result<()> {
        for target in 0..TARGETS {
            anyhow::ensure!(self.rates(target)? == [None, None], "target {target} still has a limit");
        }
        Ok(())
    }
}
