//! What the kernel keeps even from root (`kernel_lockdown(7)`).

use std::fs;

/// The level, as the kernel calls it: `none`, `integrity` or `confidentiality`. None where it does not tell: it has no such
/// thing, or securityfs is not mounted here, as in most containers.
#[must_use]
pub fn level() -> Option<String> {
    chosen(&fs::read_to_string("/sys/kernel/security/lockdown").ok()?)
}

/// Whether it keeps its memory from BPF programs, found out by a trial where it does not tell the level. False where that
/// cannot be found out.
#[cfg(feature = "ebpf")]
#[must_use]
pub fn keeps_memory_from_bpf() -> bool {
    use nix::libc;

    level().map_or_else(
        || super::bpf_trial::load_reader().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)),
        |level| level == CONFIDENTIALITY,
    )
}

/// The level at which no program may read the kernel's memory.
pub const CONFIDENTIALITY: &str = "confidentiality";

/// The one in brackets: `none [integrity] confidentiality`.
pub(crate) fn chosen(text: &str) -> Option<String> {
    text.split_ascii_whitespace().find_map(|word| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_one_in_brackets() {
        assert_eq!(chosen("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(chosen("none integrity [confidentiality]\n").as_deref(), Some(CONFIDENTIALITY));
        assert_eq!(chosen(""), None);
    }
}
