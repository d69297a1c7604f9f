//! Patterns for names: `*` stands for any characters, `?` for one, and all others for themselves.

/// A pattern, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns whether a text is a pattern, and no name.
    pub fn is_one(text: &str) -> bool {
        text.contains(['*', '?'])
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the pattern before the first dot, and the one after it; none where it has no dot.
    pub fn around_dot(&self) -> Option<(Self, Self)> {
        let (before, after) = self.0.split_once('.')?;
        Some((Self::new(before), Self::new(after)))
    }

    /// Returns whether the pattern stands for the whole name. After a mismatch, it goes back to the last `*` alone: an earlier one need take no
    /// more, so that the time is bounded by the product of both lengths.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.chars().collect());
        let (mut at, mut read) = (0, 0);
        // Where the last `*` is, and what of the name it has taken.
        let mut star = None;
        while read < name.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(letter) if *letter == '?' || *letter == name[read] => {
                    at += 1;
                    read += 1;
                }
                _ => {
                    let Some((place, taken)) = star else { return false };
                    star = Some((place, taken + 1));
                    at = place + 1;
                    read = taken + 1;
                }
            }
        }
        pattern[at..].iter().all(|letter| *letter == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "anything\nat all", true),
            ("tenant_*", "tenant_7", true),
            ("tenant_*", "tenant_", true),
            ("tenant_*", "my_tenant_7", false),
            ("tenant_?", "tenant_7", true),
            ("tenant_?", "tenant_77", false),
            ("tenant_?", "tenant_ü", true),
            ("*_test", "a_test_test", true),
            ("*_test", "a_tests", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("app", "app", true),
            ("app", "apps", false),
            ("app", "App", false),
            ("[ab]", "a", false),
            ("[ab]", "[ab]", true),
            ("a.c", "abc", false),
            ("%", "x", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_long_time() {
        let started = std::time::Instant::now();
        assert!(!Pattern::new(&"*a".repeat(200)).matches(&"a".repeat(190)));
        assert!(!Pattern::new(&("*a".repeat(30) + "b")).matches(&"a".repeat(1000)));
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }
}
