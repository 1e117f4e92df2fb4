//! The kernel runs programs whose numbers are in its own byte order, so that there is an object for each.

/// In which order a host has the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    /// Most of them
    Little,
    /// s390x, and some of PowerPC, MIPS and Arm
    Big,
}

impl ByteOrder {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Little, Self::Big];

    /// That of this machine.
    pub(crate) const HOST: Self = if cfg!(target_endian = "little") { Self::Little } else { Self::Big };

    /// The target triple of the programs.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Little => "bpfel-unknown-none",
            Self::Big => "bpfeb-unknown-none",
        }
    }

    /// Where the object is committed, from the root of the checkout. `chadthrottle/build.rs` chooses between them.
    pub(crate) const fn object(self) -> &'static str {
        match self {
            Self::Little => "chadthrottle/src/backends/ebpf/chadthrottle.bpf.o",
            Self::Big => "chadthrottle/src/backends/ebpf/chadthrottle.bpfeb.o",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use object::{
        Endianness, File, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind, SymbolScope,
    };

    use super::*;

    fn committed(order: ByteOrder) -> Vec<u8> {
        let file = crate::process::root().expect("a checkout").join(order.object());
        fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    #[test]
    fn each_object_is_of_its_byte_order() {
        // Of BTF, as the kernel recognises it (`BTF_MAGIC`, include/uapi/linux/btf.h).
        const MAGIC: u16 = 0xeb9f;
        for (order, endianness, magic) in [
            (ByteOrder::Little, Endianness::Little, MAGIC.to_le_bytes()),
            (ByteOrder::Big, Endianness::Big, MAGIC.to_be_bytes()),
        ] {
            let bytes = committed(order);
            let object = File::parse(&*bytes).expect("ELF");
            assert_eq!((object.endianness(), object.is_64()), (endianness, true), "{order:?}");
            let types = object.section_by_name(".BTF").expect("types").data().expect("data");
            assert_eq!(types[..2], magic, "{order:?}");
        }
    }

    #[test]
    fn both_objects_have_the_same_programs_maps_and_constants() {
        let [little, big] = ByteOrder::ALL.map(|order| {
            let bytes = committed(order);
            let object = File::parse(&*bytes).expect("ELF");
            object
                .symbols()
                .filter(|symbol| symbol.is_definition() && symbol.scope() == SymbolScope::Dynamic)
                .map(|symbol| {
                    let section = symbol.section_index().expect("it is defined");
                    let section = object.section_by_index(section).expect("a section");
                    // A number may take an instruction more or less to turn round.
                    let size = (symbol.kind() != SymbolKind::Text).then(|| symbol.size());
                    let name = symbol.name().expect("a name").to_owned();
                    (name, section.name().expect("a name").to_owned(), size)
                })
                .collect::<BTreeSet<_>>()
        });
        for name in ["packet_leaves", "CHAD_LIMITS", "SKB_SK"] {
            assert!(little.iter().any(|(found, ..)| found == name), "{name} is not in {little:?}");
        }
        assert_eq!(little, big);
    }
}
