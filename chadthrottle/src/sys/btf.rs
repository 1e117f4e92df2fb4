//! Offsets of structure members in the running kernel, from its BTF.
//!
//! Rust emits no CO-RE relocations, so the programs are told offsets as constants when they are loaded. The format
//! is the kernel's Documentation/bpf/btf.rst. (aya parses BTF too but hands out no members; the other crates are
//! LGPL or unmaintained.)

use std::{fs, io, path::Path};

/// Where the kernel shows its own BTF.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Why an offset could not be found.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel shows no BTF.
    #[error("cannot read {VMLINUX}: {0} (the kernel needs CONFIG_DEBUG_INFO_BTF)")]
    Unreadable(#[from] io::Error),
    /// What it shows is not BTF as we know it.
    #[error("{VMLINUX} is malformed at byte {0}")]
    Malformed(usize),
    /// There is no such member.
    #[error("this kernel has no {0}")]
    Absent(String),
}

/// The kernel's types, as bytes: parsed anew for every question, because few are asked, at the start alone, and a
/// parsed copy would be many megabytes for the rest of the run.
#[derive(Debug)]
pub struct KernelTypes {
    data: Vec<u8>,
    types: (usize, usize),
    strings: usize,
}

/// How deep anonymous structures and chains of names go at most: malformed ones may go in circles.
const MOST_NESTED: u32 = 16;

struct Member {
    /// In bits.
    offset: u32,
    type_id: u32,
}

struct Type {
    name: u32,
    kind: u32,
    /// The type that it is another name or qualifier of, for kinds that are.
    target: u32,
    vlen: usize,
    kind_flag: bool,
    /// Where its extra data starts.
    extra: usize,
}

impl KernelTypes {
    /// Whether the running kernel shows its BTF. Does not read it, which takes tens of milliseconds.
    ///
    /// # Errors
    /// When it does not.
    pub fn are_there() -> Result<(), BtfError> {
        fs::File::open(VMLINUX)?;
        Ok(())
    }

    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// When there is none or it is malformed.
    pub fn running() -> Result<Self, BtfError> {
        Self::parse(fs::read(Path::new(VMLINUX))?)
    }

    fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let mut parsed = Self { data, types: (0, 0), strings: 0 };
        if parsed.u32(0)? & 0xffff != u32::from(MAGIC) {
            return Err(BtfError::Malformed(0));
        }
        let header = parsed.u32(4)? as usize;
        let types = header.saturating_add(parsed.u32(8)? as usize);
        let end = types.saturating_add(parsed.u32(12)? as usize);
        let strings = header.saturating_add(parsed.u32(16)? as usize);
        if end > parsed.data.len() || strings > parsed.data.len() {
            return Err(BtfError::Malformed(8));
        }
        parsed.types = (types, end);
        parsed.strings = strings;
        Ok(parsed)
    }

    /// What they were read from.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Offset of a member in bytes, in `structure` or in an anonymous structure or union inside it. A path with dots
    /// goes on into the member's own structure.
    ///
    /// # Errors
    /// When there is no such structure or member.
    pub fn offset(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        Ok(self.bit_offset(structure, path)? / 8)
    }

    /// Offset of a member in bits, for bit fields. In a byte, bits are counted from the least significant one on machines
    /// with the least significant byte first, and from the other end on others.
    ///
    /// # Errors
    /// When there is no such structure or member.
    pub fn bit_offset(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        let absent = || BtfError::Absent(format!("{structure}.{path}"));
        let is_wanted = |this: &Self, ty: &Type| ty.kind == KIND_STRUCT && this.name_is(ty.name, structure);
        let mut ty = self.find(is_wanted)?.ok_or_else(absent)?;
        let mut offset = 0;
        let mut members = path.split('.').peekable();
        while let Some(name) = members.next() {
            let member = self.member(&ty, name, MOST_NESTED)?.ok_or_else(absent)?;
            offset += member.offset;
            if members.peek().is_some() {
                ty = self.structure(member.type_id)?.ok_or_else(absent)?;
            }
        }
        Ok(offset)
    }

    /// The number of a function of the kernel's.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn function(&self, name: &str) -> Result<u32, BtfError> {
        let mut id = 0;
        let found = self.find(|this, ty| {
            // Type 0 is void and not in the section.
            id += 1;
            ty.kind == KIND_FUNC && this.name_is(ty.name, name)
        })?;
        found.map(|_| id).ok_or_else(|| BtfError::Absent(name.to_owned()))
    }

    /// The structure or union that a type is, behind its other names and qualifiers.
    fn structure(&self, mut id: u32) -> Result<Option<Type>, BtfError> {
        for _ in 0..MOST_NESTED {
            let Some(ty) = self.by_id(id)? else { return Ok(None) };
            match ty.kind {
                KIND_STRUCT | KIND_UNION => return Ok(Some(ty)),
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST => id = ty.target,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn member(&self, ty: &Type, wanted: &str, depth: u32) -> Result<Option<Member>, BtfError> {
        for index in 0..ty.vlen {
            let at = ty.extra + index * 12;
            let name = self.u32(at)?;
            let type_id = self.u32(at + 4)?;
            let raw = self.u32(at + 8)?;
            // With the kind flag the upper 8 bits are the width of a bit field.
            let bits = if ty.kind_flag { raw & 0x00ff_ffff } else { raw };
            if self.name_is(name, wanted) {
                return Ok(Some(Member { offset: bits, type_id }));
            }
            if depth > 0
                && self.name_is(name, "")
                && let Some(inner) = self.structure(type_id)?
                && let Some(member) = self.member(&inner, wanted, depth - 1)?
            {
                return Ok(Some(Member { offset: bits + member.offset, ..member }));
            }
        }
        Ok(None)
    }

    fn by_id(&self, id: u32) -> Result<Option<Type>, BtfError> {
        let mut at = 0;
        self.find(|_, _| {
            // Type 0 is void and not in the section.
            at += 1;
            at == id
        })
    }

    fn find(&self, mut wanted: impl FnMut(&Self, &Type) -> bool) -> Result<Option<Type>, BtfError> {
        let (mut at, end) = self.types;
        while at < end {
            let info = self.u32(at + 4)?;
            let ty = Type {
                name: self.u32(at)?,
                target: self.u32(at + 8)?,
                kind: info >> 24 & 0x1f,
                vlen: (info & 0xffff) as usize,
                kind_flag: info >> 31 == 1,
                extra: at + 12,
            };
            let extra = match ty.kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => ty.vlen * 12,
                KIND_ENUM | KIND_FUNC_PROTO => ty.vlen * 8,
                // Pointers, typedefs, qualifiers, functions, forward declarations, floats, type tags.
                2 | 7..=12 | 16 | 18 => 0,
                // Without its size the rest cannot be read.
                _ => return Err(BtfError::Malformed(at)),
            };
            at = ty.extra + extra;
            if wanted(self, &ty) {
                return Ok(Some(ty));
            }
        }
        Ok(None)
    }

    fn name_is(&self, offset: u32, name: &str) -> bool {
        let start = self.strings.saturating_add(offset as usize);
        self.data
            .get(start..)
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn u32(&self, at: usize) -> Result<u32, BtfError> {
        let bytes = self.data.get(at..).and_then(<[u8]>::first_chunk).ok_or(BtfError::Malformed(at))?;
        Ok(u32::from_ne_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_members_of_the_running_kernel() {
        let types = KernelTypes::running().expect("kernel with BTF");
        let tgid = types.offset("task_struct", "tgid").expect("task_struct.tgid");
        let pid = types.offset("task_struct", "pid").expect("task_struct.pid");
        // `pid_t pid; pid_t tgid;` stand side by side in include/linux/sched.h.
        assert_eq!(tgid, pid + 4);
        // In an anonymous structure since 6.x, directly in the structure before: both are found.
        types.offset("sock", "sk_protocol").expect("sock.sk_protocol");
        assert!(matches!(types.offset("task_struct", "no_such_member"), Err(BtfError::Absent(_))));
        let lock = types.offset("sock", "sk_lock").expect("sock.sk_lock");
        // `spinlock_t slock; int owned;` (include/net/sock.h), behind a typedef.
        assert!(types.offset("sock", "sk_lock.owned").expect("sock.sk_lock.owned") > lock);
        assert!(matches!(types.offset("no_such_struct", "x"), Err(BtfError::Absent(_))));
        assert!(types.function("tcp_v4_rcv").is_ok_and(|id| id > 0));
        assert!(matches!(types.function("no_such_function"), Err(BtfError::Absent(_))));
    }

    proptest! {
        #[test]
        fn malformed_bytes_are_an_error(mut data in proptest::collection::vec(any::<u8>(), 0..400)) {
            if data.len() > 24 {
                data[..2].copy_from_slice(&MAGIC.to_ne_bytes());
                data[4..8].copy_from_slice(&24_u32.to_ne_bytes());
                data[8..12].copy_from_slice(&0_u32.to_ne_bytes());
                let length = u32::try_from(data.len() - 24)?;
                data[12..16].copy_from_slice(&length.to_ne_bytes());
                data[16..20].copy_from_slice(&0_u32.to_ne_bytes());
            }
            if let Ok(types) = KernelTypes::parse(data) {
                let _ = types.offset("task_struct", "pid");
            }
        }
    }
}
