//! The keys that detach, found in what is typed. Pure.

/// Held back as far as they may turn out to be the keys, until that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    held: usize,
}

impl Default for DetachKeys {
    /// ctrl-p ctrl-q.
    fn default() -> DetachKeys {
        DetachKeys::of(vec![0x10, 0x11])
    }
}

impl DetachKeys {
    fn of(keys: Vec<u8>) -> DetachKeys {
        DetachKeys { keys, held: 0 }
    }

    /// As Docker's `--detach-keys`: single characters, `ctrl-` with a small letter or one of `@[\]^_`, or `DEL`, with commas
    /// between them. `None` for anything else.
    pub fn parse(text: &str) -> Option<DetachKeys> {
        let key = |name: &str| match name.as_bytes() {
            [key] => Some(*key),
            b"DEL" => Some(0x7f),
            [
                b'c',
                b't',
                b'r',
                b'l',
                b'-',
                key @ (b'a'..=b'z' | b'@' | b'['..=b'_'),
            ] => Some(key & 0x1f),
            _ => None,
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        keys.map(DetachKeys::of)
    }

    /// What goes on to the program, and whether the user detaches here.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + self.held);
        for byte in typed {
            let mut seen = self.keys[..self.held].to_vec();
            seen.push(*byte);
            // The longest end of what was seen that the keys begin with stays held; what is before it goes on.
            let from = (0..=seen.len())
                .find(|from| self.keys.starts_with(&seen[*from..]))
                .unwrap_or(seen.len());
            passed.extend_from_slice(&seen[..from]);
            self.held = seen.len() - from;
            if self.held == self.keys.len() {
                self.held = 0;
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_found_across_reads_and_others_pass() {
        let (p, q) = (0x10, 0x11);
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(keys.filter(&[b'a', p]), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"x"), (vec![p, b'x'], false));
        assert_eq!(keys.filter(&[p]), (vec![], false));
        assert_eq!(keys.filter(&[p]), (vec![p], false));
        assert_eq!(keys.filter(&[q, b'z']), (vec![], true));
    }

    #[test]
    fn a_beginning_within_a_beginning_is_not_missed() {
        let mut keys = DetachKeys::parse("a,a,b").unwrap();
        assert_eq!(keys.filter(b"aaab"), (b"a".to_vec(), true));
    }

    #[test]
    fn keys_are_written_as_docker_has_them() {
        for (text, keys) in [
            ("a", vec![b'a']),
            ("ctrl-@,x", vec![0, b'x']),
            ("ctrl-a,ctrl-z", vec![1, 26]),
            (
                "ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_",
                vec![27, 28, 29, 30, 31],
            ),
            ("DEL", vec![127]),
        ] {
            assert_eq!(
                DetachKeys::parse(text),
                Some(DetachKeys::of(keys)),
                "{text}"
            );
        }
        for text in ["", "ctrl-A", "ctrl-", "ab", "a,", ",", "ctrl-1", "del", "é"] {
            assert_eq!(DetachKeys::parse(text), None, "{text}");
        }
    }
}
