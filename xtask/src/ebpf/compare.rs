//! Where two objects differ, for a message.

use std::{collections::BTreeMap, fmt};

use object::{Object, ObjectSection};

/// That there is a difference, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    offset: usize,
    sections: Vec<String>,
    sizes: (usize, usize),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (committed, rebuilt) = self.sizes;
        write!(f, "committed {committed} bytes, rebuilt {rebuilt}, first difference at {:#x}", self.offset)?;
        match self.sections.as_slice() {
            [] => write!(f, ", outside of all sections"),
            sections => write!(f, ", sections that differ: {}", sections.join(" ")),
        }
    }
}

/// Compares the committed object with the rebuilt one.
pub(crate) fn difference(committed: &[u8], rebuilt: &[u8]) -> Option<Difference> {
    let sizes = (committed.len(), rebuilt.len());
    let within = committed.iter().zip(rebuilt).position(|(a, b)| a != b);
    let offset = within.or_else(|| (sizes.0 != sizes.1).then(|| sizes.0.min(sizes.1)))?;
    let (committed, rebuilt) = (sections(committed), sections(rebuilt));
    let names = committed.keys().chain(rebuilt.keys().filter(|&name| !committed.contains_key(name)));
    let sections = names.filter(|&name| committed.get(name) != rebuilt.get(name)).cloned().collect();
    Some(Difference { offset, sections, sizes })
}

/// The contents of an object by name, as far as it is one.
fn sections(object: &[u8]) -> BTreeMap<String, &[u8]> {
    let Ok(object) = object::File::parse(object) else { return BTreeMap::new() };
    object
        .sections()
        .filter_map(|section| Some((section.name().ok()?.to_owned(), section.data().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_do_not_differ() {
        assert_eq!(difference(b"same", b"same"), None);
    }

    #[test]
    fn a_longer_one_differs_where_the_shorter_one_ends() {
        let found = difference(b"same", b"same and more").expect("they differ");
        assert_eq!((found.offset, found.sizes), (4, (4, 13)));
        assert!(found.to_string().contains("outside of all sections"), "{found}");
    }

    #[test]
    fn the_section_that_differs_is_named() {
        let object = crate::ebpf::strip::fixture::object(b"a program.......");
        let other = crate::ebpf::strip::fixture::object(b"another program.");
        let found = difference(&object, &other).expect("they differ");
        assert_eq!(found.sections, ["cgroup_skb/egress"], "{found}");
        assert_eq!(object[..found.offset], other[..found.offset], "the first difference is not the first");
    }
}
