//! Which kernel runs.

use std::fs;

/// Its version and patch level, as in `uname -r`: (6, 12). None where it does not tell.
#[must_use]
pub fn kernel_version() -> Option<(u32, u32)> {
    parse(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|character: char| !character.is_ascii_digit());
    let mut number = || parts.next()?.parse().ok();
    number().zip(number())
}

/// Of any text.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(text: &str) {
    if let Some((major, minor)) = parse(text) {
        assert_eq!(parse(&format!("{major}.{minor}.0-generic\n")), Some((major, minor)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_of_what_distributions_call_them() {
        assert_eq!(parse("6.12.117+deb12-cloud-amd64\n"), Some((6, 12)));
        assert_eq!(parse("6.5-rc1\n"), Some((6, 5)));
        assert_eq!(parse("5.15.0-91-generic\n"), Some((5, 15)));
        assert_eq!(parse("mine\n"), None);
        assert!(kernel_version().is_some());
    }
}
