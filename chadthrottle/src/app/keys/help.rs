//! What is told of keys: made from the tables that dispatch them, so that it cannot say anything else.

use super::{Binding, Key, Place};

/// The footer of a place, the most important first.
pub fn footer(place: Place) -> impl Iterator<Item = &'static Binding> {
    place.bindings().iter().filter(|binding| binding.footer.is_some())
}

/// The help: for every place, keys and what they do. What an earlier place tells already is left out.
#[must_use]
pub fn help() -> [(Place, Vec<(String, &'static str)>); Place::ALL.len()] {
    let mut told: Vec<(Key, &'static str)> = Vec::new();
    Place::ALL.map(|place| {
        let mut lines: Vec<(String, &'static str)> = Vec::new();
        for binding in place.bindings() {
            let new: Vec<Key> =
                binding.keys.iter().copied().filter(|key| !told.contains(&(*key, binding.help))).collect();
            if new.is_empty() {
                continue;
            }
            told.extend(new.iter().map(|key| (*key, binding.help)));
            let names = new.iter().map(|key| key.name()).collect::<Vec<_>>().join(" ");
            match lines.last_mut() {
                Some((keys, help)) if *help == binding.help => {
                    keys.push(' ');
                    keys.push_str(&names);
                }
                _ => lines.push((names, binding.help)),
            }
        }
        (place, lines)
    })
}
