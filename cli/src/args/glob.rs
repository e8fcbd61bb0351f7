//! Patterns of names, as Go's `path.Match` has them: `*` and `?` stop at a slash, `[a-z]` and `[^a-z]` are one character,
//! `\` takes the next one as it is. Pure.

/// A pattern that has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    One(char),
    Any,
    Many,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// `None` where it is no pattern: a bracket that is not closed, a backslash at the end.
    pub fn parse(text: &str) -> Option<Glob> {
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => Part::Many,
                '?' => Part::Any,
                '\\' => Part::One(chars.next()?),
                '[' => {
                    let negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    while ranges.is_empty() || chars.peek() != Some(&']') {
                        let first = bound(&mut chars)?;
                        let last = match chars.next_if_eq(&'-') {
                            Some(_) => bound(&mut chars)?,
                            None => first,
                        };
                        ranges.push((first, last));
                    }
                    chars.next();
                    Part::Class { negated, ranges }
                }
                c => Part::One(c),
            });
        }
        Some(Glob(parts))
    }

    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // Which beginnings of the text the parts so far match: never more than the text is long.
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for part in &self.0 {
            let mut next = vec![false; text.len() + 1];
            for at in 0..=text.len() {
                next[at] = match part {
                    Part::Many => reached[at] || (at > 0 && next[at - 1] && text[at - 1] != '/'),
                    part => at > 0 && reached[at - 1] && part.is(text[at - 1]),
                };
            }
            reached = next;
        }
        reached[text.len()]
    }
}

impl Part {
    fn is(&self, c: char) -> bool {
        match self {
            Part::One(wanted) => c == *wanted,
            Part::Any => c != '/',
            Part::Class { negated, ranges } => {
                ranges
                    .iter()
                    .any(|(first, last)| (first..=last).contains(&&c))
                    != *negated
            }
            Part::Many => false,
        }
    }
}

/// One end of a range.
fn bound(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_gos_do() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("b*:1", "bb:1", true),
            ("", "a", false),
        ] {
            let glob = Glob::parse(pattern).unwrap_or_else(|| panic!("{pattern}"));
            assert_eq!(glob.matches(text), expected, "{pattern} {text}");
        }
        for pattern in ["[", "[]a]", "[-x]", "[x-]", "[a", "a[", "\\", "[^"] {
            assert_eq!(Glob::parse(pattern), None, "{pattern}");
        }
    }
}
