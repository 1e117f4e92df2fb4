//! Patterns of names and paths.

use std::fmt;

/// A pattern: `*` stands for anything within one part of a path, `**` for anything at all, `?` for one character,
/// `[abc]`, `[a-z]` and `[!a-z]` for one of these. A backslash takes the meaning of what follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
    /// What every text that matches begins with.
    prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    One(char),
    AnyOne,
    Of {
        ranges: Vec<(char, char)>,
        not: bool,
    },
    /// Anything without a slash.
    Within,
    /// Anything.
    Across,
}

impl Pattern {
    /// Reads one.
    ///
    /// # Errors
    /// In words, when a bracket is not closed or nothing is in it, a backslash ends it, or it is empty.
    pub fn new(text: &str) -> Result<Self, String> {
        Self::read(text, true)
    }

    /// One in which `*` stands for slashes as well: of what is no path.
    ///
    /// # Errors
    /// Likewise.
    pub fn of_text(text: &str) -> Result<Self, String> {
        Self::read(text, false)
    }

    /// A pattern for a text and nothing else.
    #[must_use]
    pub fn escaped(text: &str) -> String {
        let needs_it = |character: char| ['*', '?', '[', '\\'].contains(&character);
        text.chars().flat_map(|one| needs_it(one).then_some('\\').into_iter().chain([one])).collect()
    }

    fn read(text: &str, is_path: bool) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty, and would be nobody".into());
        }
        let mut parts = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            parts.push(match character {
                '*' if rest.next_if_eq(&'*').is_some() => Part::Across,
                '*' if is_path => Part::Within,
                '*' => Part::Across,
                '?' => Part::AnyOne,
                '[' => set(&mut rest).ok_or_else(|| format!("{text:?}: a [ that is not closed"))?,
                '\\' => Part::One(rest.next().ok_or_else(|| format!("{text:?} ends with a backslash"))?),
                character => Part::One(character),
            });
        }
        let one = |part: &Part| if let Part::One(one) = part { Some(*one) } else { None };
        let prefix = parts.iter().map_while(one).collect();
        Ok(Self { text: text.to_owned(), parts, prefix })
    }

    /// The text that is the only one that matches, where there is just one.
    #[must_use]
    pub fn literal(&self) -> Option<String> {
        self.parts.iter().map(|part| if let Part::One(one) = part { Some(*one) } else { None }).collect()
    }

    /// Whether all of the text is what the pattern says. Takes time in proportion to the product of both lengths at most.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        // Most texts are told by their beginning, and there may be a thousand patterns.
        if !text.starts_with(&self.prefix) {
            return false;
        }
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut in_text) = (0, 0);
        // The last star, and how far it reaches: what follows is tried one character further on each time.
        let mut star: Option<(usize, usize)> = None;
        let mut wide = None;
        loop {
            let here = text.get(in_text).copied();
            match (self.parts.get(at), here) {
                (None, None) => return true,
                (Some(Part::Across), _) => {
                    wide = Some((at + 1, in_text));
                    star = None;
                    at += 1;
                    continue;
                }
                (Some(Part::Within), _) => {
                    star = Some((at + 1, in_text));
                    at += 1;
                    continue;
                }
                (Some(part), Some(here)) if part.is(here) => {
                    (at, in_text) = (at + 1, in_text + 1);
                    continue;
                }
                _ => {}
            }
            let next = match star {
                Some((after, reach)) if text.get(reach).is_some_and(|swallowed| *swallowed != '/') => {
                    star = Some((after, reach + 1));
                    Some((after, reach + 1))
                }
                _ => match wide {
                    Some((after, reach)) if reach < text.len() => {
                        wide = Some((after, reach + 1));
                        star = None;
                        Some((after, reach + 1))
                    }
                    _ => None,
                },
            };
            let Some(next) = next else { return false };
            (at, in_text) = next;
        }
    }
}

impl Part {
    fn is(&self, character: char) -> bool {
        match self {
            Self::One(one) => *one == character,
            Self::AnyOne => character != '/',
            Self::Of { ranges, not } => {
                character != '/' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&character)) != *not
            }
            Self::Within | Self::Across => false,
        }
    }
}

/// What is between brackets, the first of which has been read.
fn set(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Part> {
    let not = rest.next_if(|character| ['!', '^'].contains(character)).is_some();
    let mut ranges = Vec::new();
    loop {
        let from = rest.next()?;
        // Right at the beginning it is a member.
        if from == ']' && !ranges.is_empty() {
            return Some(Part::Of { ranges, not });
        }
        let mut to = from;
        let mut ahead = rest.clone();
        if ahead.next() == Some('-')
            && let Some(end) = ahead.next().filter(|end| *end != ']')
        {
            to = end;
            *rest = ahead;
        }
        ranges.push((from, to));
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What holds of any pattern and any text.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(text: &str, other: &str) {
    if !text.is_empty() {
        let only = Pattern::new(&Pattern::escaped(text)).expect("what is escaped is a pattern");
        assert_eq!(only.literal().as_deref(), Some(text));
        assert_eq!(only.matches(other), text == other, "{text:?} and {other:?}");
    }
    for pattern in [Pattern::new(text), Pattern::of_text(text)].into_iter().flatten() {
        assert_eq!(pattern.to_string(), text);
        let is_one = pattern.matches(other);
        assert!(!is_one || other.starts_with(&pattern.prefix), "{text:?} and {other:?}");
        if let Some(literal) = pattern.literal() {
            assert_eq!(is_one, literal == other, "{text:?} and {other:?}");
        }
        assert_eq!(is_one, pattern.matches_slowly(other), "{text:?} and {other:?}");
    }
}

#[cfg(feature = "fuzzing")]
impl Pattern {
    /// The same as [`Self::matches`], part by part.
    fn matches_slowly(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // Where in the text what has been read of the pattern may end.
        let mut ends = vec![false; text.len() + 1];
        ends[0] = true;
        for part in &self.parts {
            let mut next = vec![false; text.len() + 1];
            for at in 0..=text.len() {
                next[at] = match part {
                    Part::Within | Part::Across => {
                        let swallows = |character: char| *part == Part::Across || character != '/';
                        ends[at] || at > 0 && next[at - 1] && swallows(text[at - 1])
                    }
                    part => at > 0 && ends[at - 1] && part.is(text[at - 1]),
                };
            }
            ends = next;
        }
        ends[text.len()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).expect(pattern).matches(text)
    }

    #[test]
    fn stars_stay_within_a_part_of_a_path_and_two_do_not() {
        for (pattern, text, expected) in [
            ("/usr/bin/curl", "/usr/bin/curl", true),
            ("/usr/bin/curl", "/usr/bin/curl2", false),
            ("/usr/bin/*", "/usr/bin/curl", true),
            ("/usr/*", "/usr/bin/curl", false),
            ("/usr/**", "/usr/bin/curl", true),
            ("/usr/**/curl", "/usr/local/bin/curl", true),
            ("/**/py*", "/opt/x/python3", true),
            ("/**/py*", "/opt/py/bash", false),
            ("/opt/*/bin/*/x", "/opt/a/bin/b/x", true),
            ("/opt/*b", "/opt/abab", true),
            ("python3.?", "python3.9", true),
            ("python3.?", "python3.11", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "aab", false),
            ("*", "", true),
            ("?", "/", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        assert!(Pattern::of_text("*rsync*--daemon*").expect("one").matches("/usr/bin/rsync --x /a --daemon"));
    }

    #[test]
    fn what_is_no_pattern_says_so() {
        for text in ["", "[", "[]", "[a", "a\\"] {
            assert!(Pattern::new(text).is_err(), "{text:?}");
        }
        assert_eq!(Pattern::new("a\\*").expect("one").literal().as_deref(), Some("a*"));
        assert_eq!(Pattern::new("a*").expect("one").literal(), None);
    }

    /// The same by trying everything.
    fn by_trying(parts: &[Part], text: &[char]) -> bool {
        match (parts, text) {
            ([], []) => true,
            ([Part::Across, rest @ ..], text) => {
                (0..=text.len()).any(|skipped| by_trying(rest, &text[skipped..]))
            }
            ([Part::Within, rest @ ..], text) => (0..=text.len())
                .take_while(|skipped| !text[..*skipped].contains(&'/'))
                .any(|skipped| by_trying(rest, &text[skipped..])),
            ([part, rest @ ..], [here, text @ ..]) => part.is(*here) && by_trying(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_trying_everything_does(pattern in "[ab/*?]{1,8}", text in "[ab/]{0,8}") {
            let pattern = Pattern::new(&pattern).expect("no brackets");
            let expected = by_trying(&pattern.parts, &text.chars().collect::<Vec<_>>());
            prop_assert_eq!(pattern.matches(&text), expected);
        }

        #[test]
        fn a_literal_matches_itself_alone(text in "[a-z/]{1,10}", other in "[a-z/]{1,10}") {
            let pattern = Pattern::new(&text).expect("plain");
            prop_assert!(pattern.matches(&text));
            prop_assert_eq!(pattern.matches(&other), text == other);
        }

        #[test]
        fn what_is_escaped_is_itself(text in ".{1,10}") {
            let pattern = Pattern::new(&Pattern::escaped(&text)).expect("escaped");
            prop_assert_eq!(pattern.literal(), Some(text));
        }

        #[test]
        fn nothing_typed_panics(pattern in ".{0,12}", text in ".{0,12}") {
            if let Ok(pattern) = Pattern::new(&pattern) {
                let _ = pattern.matches(&text);
            }
        }
    }
}
