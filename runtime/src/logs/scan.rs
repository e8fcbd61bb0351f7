//! Finding bytes, sixteen at a time: the only loops over every byte of a log, which may be gigabytes, and which stay fast in a
//! debug build too.

const ONES: u128 = u128::MAX / 0xff;
const HIGH: u128 = ONES << 7;

/// The place of the first newline from `from` on; the length where there is none.
pub(super) fn newline(bytes: &[u8], from: usize) -> usize {
    find(
        bytes,
        from,
        |word| zero(word ^ (ONES * 0x0a)),
        |byte| byte == b'\n',
    )
}

/// Likewise of the first byte that cannot stand in a JSON string as it is.
pub(super) fn special(bytes: &[u8], from: usize) -> usize {
    let in_word = |word: u128| {
        // Below 0x20 (and, for the borrow, not from 0x80 on).
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        (control & HIGH) | zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c))
    };
    find(bytes, from, in_word, |byte| {
        byte < 0x20 || byte == b'"' || byte == b'\\'
    })
}

/// Not 0 if a byte of the word is 0.
fn zero(word: u128) -> u128 {
    word.wrapping_sub(ONES) & !word & HIGH
}

/// Words that may have it are looked at byte by byte: the sums above can carry into a byte that is innocent.
fn find(
    bytes: &[u8],
    from: usize,
    in_word: impl Fn(u128) -> u128,
    is_it: impl Fn(u8) -> bool,
) -> usize {
    let rest = &bytes[from..];
    let (words, _) = rest.as_chunks::<16>();
    let mut word = 0;
    while word < words.len() {
        if in_word(u128::from_ne_bytes(words[word])) != 0 {
            let mut at = word * 16;
            let end = at + 16;
            while at < end {
                if is_it(rest[at]) {
                    return from + at;
                }
                at += 1;
            }
        }
        word += 1;
    }
    let mut at = words.len() * 16;
    while at < rest.len() && !is_it(rest[at]) {
        at += 1;
    }
    from + at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_found_wherever_it_stands() {
        for byte in 0..=255u8 {
            for at in 0..40 {
                for filling in [b'x', 0x80, 0xff, 0x21] {
                    let mut bytes = [filling; 40];
                    bytes[at] = byte;
                    let is_special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    assert_eq!(special(&bytes, 3.min(at)), if is_special { at } else { 40 });
                    assert_eq!(newline(&bytes, 0), if byte == b'\n' { at } else { 40 });
                }
            }
        }
    }
}
