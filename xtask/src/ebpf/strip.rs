//! Takes out of an eBPF object what neither the kernel nor the loader reads.
//!
//! Done here and not by `llvm-objcopy`, so that both toolchains strip alike and none has to be installed for it.

use anyhow::{Context, Result, ensure};
use object::{
    build::elf::{Builder, Section, SectionData, SectionId, SymbolId},
    elf::{EM_BPF, SHT_STRTAB, STB_LOCAL, STT_FUNC},
};

/// The object without DWARF and without the symbols that nothing refers to.
///
/// `.BTF` and `.BTF.ext` stay, but not the relocations against them: loaders take both from symbols and instruction
/// offsets, which BTF holds already. Local functions keep their symbols, because a loader finds the callee of a call
/// between programs by them.
pub(crate) fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("not an ELF object")?;
    ensure!(
        elf.header.e_machine == EM_BPF,
        "an ELF object, but not for BPF (machine {})",
        elf.header.e_machine
    );

    let named = |wanted: fn(&[u8]) -> bool| -> Vec<SectionId> {
        elf.sections.iter().filter(|section| wanted(&section.name)).map(Section::id).collect()
    };
    let (unwanted, btf) = (named(is_debug), named(is_btf));
    ensure!(!btf.is_empty(), "the object has no .BTF section: was it linked with --btf and -Cdebuginfo=2?");
    for section in &mut elf.sections {
        let about_unwanted = matches!(section.data, SectionData::Relocation(_))
            && section.sh_info_section.is_some_and(|of| unwanted.contains(&of) || btf.contains(&of));
        section.delete = unwanted.contains(&section.id()) || about_unwanted;
    }
    elf.delete_orphan_symbols();

    let referenced: Vec<SymbolId> = elf
        .sections
        .iter()
        .filter(|section| !section.delete)
        .filter_map(|section| match &section.data {
            SectionData::Relocation(relocations) => Some(relocations),
            _ => None,
        })
        .flatten()
        .filter_map(|relocation| relocation.symbol)
        .collect();
    for symbol in &mut elf.symbols {
        let local_data = symbol.st_bind() == STB_LOCAL && symbol.st_type() != STT_FUNC;
        symbol.delete |= local_data && !referenced.contains(&symbol.id());
    }
    ensure!(
        referenced.iter().all(|&id| !elf.symbols.get(id).delete),
        "a program refers to a symbol in a section that is stripped"
    );

    // LLVM keeps the names of sections among those of symbols; the writer wants them apart.
    if !elf.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let section_names = elf.sections.add();
        section_names.name = b".shstrtab".as_slice().into();
        section_names.sh_type = SHT_STRTAB;
        section_names.sh_addralign = 1;
        section_names.data = SectionData::SectionString;
    }
    elf.set_section_sizes();
    let mut stripped = Vec::new();
    elf.write(&mut stripped).context("cannot write the stripped object")?;
    Ok(stripped)
}

fn is_debug(name: &[u8]) -> bool {
    name.starts_with(b".debug_")
}

fn is_btf(name: &[u8]) -> bool {
    name == b".BTF" || name == b".BTF.ext"
}

/// Objects to test with.
#[cfg(test)]
pub(super) mod fixture {
    use object::{
        Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
        SymbolScope,
        elf::R_BPF_64_64,
        write::{Object, Relocation, SectionId, StandardSection, Symbol, SymbolId, SymbolSection},
    };

    /// What a compiler leaves: a program that refers to a map, BTF, DWARF, relocations against all of them.
    pub(crate) fn object(program: &[u8]) -> Vec<u8> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let section = |object: &mut Object<'_>, name: &str, kind, data: &[u8]| {
            let id = object.add_section(Vec::new(), name.into(), kind);
            object.append_section_data(id, data, 8);
            id
        };
        let text = object.section_id(StandardSection::Text);
        object.append_section_data(text, &[0; 16], 8);
        let egress = section(&mut object, "cgroup_skb/egress", SectionKind::Text, program);
        let maps = section(&mut object, ".maps", SectionKind::Data, &[0; 40]);
        section(&mut object, "license", SectionKind::Data, b"GPL\0");
        let info = section(&mut object, ".debug_info", SectionKind::Debug, &[0; 64]);
        let btf = section(&mut object, ".BTF", SectionKind::Other, &[0x9f; 24]);
        let ext = section(&mut object, ".BTF.ext", SectionKind::Other, &[0x9f; 32]);

        let map = symbol(&mut object, "CHAD_LIMITS", maps, SymbolKind::Data, SymbolScope::Linkage);
        symbol(&mut object, "packet_leaves", egress, SymbolKind::Text, SymbolScope::Linkage);
        symbol(&mut object, "callee", text, SymbolKind::Text, SymbolScope::Compilation);
        let used = symbol(&mut object, "anon.used", maps, SymbolKind::Data, SymbolScope::Compilation);
        symbol(&mut object, "anon.unused", maps, SymbolKind::Data, SymbolScope::Compilation);
        let dwarf = symbol(&mut object, "anon.dwarf", info, SymbolKind::Data, SymbolScope::Compilation);
        for (section, symbol) in
            [(egress, map), (egress, used), (info, dwarf), (info, map), (btf, map), (ext, used)]
        {
            let flags = RelocationFlags::Elf { r_type: R_BPF_64_64 };
            let relocation = Relocation { offset: 0, symbol, addend: 0, flags };
            object.add_relocation(section, relocation).expect("a relocation");
        }
        object.write().expect("an object")
    }

    fn symbol(
        object: &mut Object<'_>,
        name: &str,
        section: SectionId,
        kind: SymbolKind,
        scope: SymbolScope,
    ) -> SymbolId {
        object.add_symbol(Symbol {
            name: name.into(),
            value: 0,
            size: 8,
            kind,
            scope,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use object::{File, Object, ObjectSection, ObjectSymbol};

    use super::*;
    use crate::ebpf::byte_order::ByteOrder;

    fn sections<'a>(object: &'a File<'a>) -> Vec<&'a str> {
        object.sections().map(|section| section.name().expect("a name")).collect()
    }

    #[test]
    fn dwarf_goes_and_programs_maps_and_types_stay() {
        let whole = fixture::object(b"a program.......");
        let stripped = strip(&whole).expect("it can be stripped");
        let (whole, stripped) = (File::parse(&*whole).expect("ELF"), File::parse(&*stripped).expect("ELF"));
        for name in [".text", "cgroup_skb/egress", ".maps", "license", ".BTF", ".BTF.ext"] {
            let data = |object: &File<'_>| {
                object.section_by_name(name).map(|section| section.data().expect("data").to_vec())
            };
            assert_eq!(data(&stripped), data(&whole), "{name}");
        }
        let left = sections(&stripped);
        assert!(left.iter().all(|name| !name.contains("debug") && !name.starts_with(".rel.BTF")), "{left:?}");
    }

    #[test]
    fn programs_keep_their_relocations_and_only_the_symbols_that_matter_are_left() {
        let stripped = strip(&fixture::object(b"a program.......")).expect("it can be stripped");
        let object = File::parse(&*stripped).expect("ELF");
        let program = object.section_by_name("cgroup_skb/egress").expect("the program");
        let targets: Vec<_> = program
            .relocations()
            .map(|(_, relocation)| match relocation.target() {
                object::RelocationTarget::Symbol(index) => {
                    object.symbol_by_index(index).expect("a symbol").name().expect("a name")
                }
                other => panic!("a relocation against {other:?}"),
            })
            .collect();
        assert_eq!(targets, ["CHAD_LIMITS", "anon.used"]);
        let mut names: Vec<_> = object.symbols().map(|symbol| symbol.name().expect("a name")).collect();
        names.sort_unstable();
        assert_eq!(names, ["CHAD_LIMITS", "anon.used", "callee", "packet_leaves"]);
    }

    #[test]
    fn the_committed_objects_are_stripped_already() {
        for order in ByteOrder::ALL {
            let file = crate::process::root().expect("a checkout").join(order.object());
            let committed = fs::read(&file).expect("the committed object");
            assert!(strip(&committed).expect("it can be stripped") == committed, "{}", file.display());
        }
    }

    #[test]
    fn what_is_not_a_bpf_object_is_refused() {
        strip(b"#!/bin/sh").expect_err("not ELF");
        let own = fs::read("/proc/self/exe").expect("this program");
        let error = strip(&own).expect_err("not BPF");
        assert!(error.to_string().contains("not for BPF"), "{error:#}");
    }
}
