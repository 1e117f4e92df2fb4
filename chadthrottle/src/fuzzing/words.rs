//! Words on the command line, in dialogs and in files.

use std::time::Duration;

use super::text;
use crate::{
    app::{filter::Filter, keys::Key},
    rate::{Rate, parse_time},
    rules::{glob, quota::Amount, schedule::Span},
    scope::Prefix,
};

/// What anybody types: rates, times, networks, schedules, keys, filters; and patterns, with a second line to be matched.
///
/// # Panics
/// Where something is not read again as it is written, or is beyond what it may be.
pub fn words(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(rate) = text.parse::<Rate>() {
        assert_eq!(rate.written().parse(), Ok(rate), "{text:?}");
        assert!(rate.0 <= 999_000_000_000_000, "{text:?}");
    }
    if let Ok(time) = parse_time(text) {
        let most = Duration::from_hours(10 * 366 * 24);
        assert!(!time.is_zero() && time <= most, "{text:?} is {time:?}");
    }
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.to_string().parse(), Ok(prefix), "{text:?}");
        assert!(prefix.contains(prefix.address()), "{text:?}");
    }
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.name().parse(), Ok(key), "{text:?}");
    }
    let _ = (text.parse::<Amount>(), text.parse::<Span>());
    let mut filter = Filter::default();
    filter.retype(text.to_owned());
    assert_eq!(filter.error().is_none(), filter.in_force() == text, "{text:?}");
    let (pattern, other) = text.split_once('\n').unwrap_or((text, ""));
    glob::fuzz(pattern, other);
}
