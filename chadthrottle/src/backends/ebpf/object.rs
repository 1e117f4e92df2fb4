//! Programs and maps of the loaded object, by name and type.

use anyhow::{Context, anyhow};
use aya::{Ebpf, maps::MapError};

/// Takes a map out of the loaded object, by its type.
pub(super) fn take<M>(programs: &mut Ebpf, name: &'static str) -> anyhow::Result<M>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = programs.take_map(name).ok_or_else(|| anyhow!("the object has no map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name}"))
}

pub(super) fn program<'a, P>(programs: &'a mut Ebpf, name: &'static str) -> anyhow::Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = programs.program_mut(name).ok_or_else(|| anyhow!("the object has no program {name}"))?;
    program.try_into().with_context(|| format!("program {name}"))
}
