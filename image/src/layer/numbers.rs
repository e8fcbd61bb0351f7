//! The number fields of tar headers: octal, or GNU's base 256. Pure.

use super::LayerError;

/// Bytes as people can read them.
pub fn octets(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A number field; empty is 0, as in the headers of links and directories of several writers.
pub fn header_number(field: &[u8]) -> Result<i64, LayerError> {
    let bad = || LayerError::malformed(format!("{:?} is not a number", octets(field)));
    let Some((&first, rest)) = field.split_first() else {
        return Ok(0);
    };
    if first & 0x80 != 0 {
        // Two's complement, big-endian, without the marking bit.
        let negative = first & 0x40 != 0;
        let start = if negative {
            i128::from(first & 0x3f) - 0x40
        } else {
            i128::from(first & 0x3f)
        };
        let value = rest.iter().try_fold(start, |value, &b| {
            value.checked_mul(256).map(|value| value + i128::from(b))
        });
        return value.and_then(|v| i64::try_from(v).ok()).ok_or_else(bad);
    }
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, &b| {
        if !(b'0'..=b'7').contains(&b) {
            return Err(bad());
        }
        value
            .checked_mul(8)
            .map(|v| v + i64::from(b - b'0'))
            .ok_or_else(bad)
    })
}

/// A number field that counts bytes.
pub fn header_size(field: &[u8]) -> Result<u64, LayerError> {
    let size = header_number(field)?;
    u64::try_from(size).map_err(|_| LayerError::malformed(format!("a size of {size} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_base_256_fields_are_read() {
        let check = |field: &[u8], expect: i64| {
            assert_eq!(header_number(field).unwrap(), expect, "{field:?}");
        };
        check(b"0000644\0", 0o644);
        check(b"   644 \0", 0o644);
        check(b"\0\0\0\0\0\0\0\0", 0);
        check(b"77777777777 ", 0o77777777777);
        check(&[0x80, 0, 0, 0, 0, 0, 1, 0], 256);
        check(&[0xff; 12], -1);
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], -2);
    }

    #[test]
    fn absurd_numbers_are_refused() {
        for field in [
            &b"0000648\0"[..],
            b"-1",
            b"+1",
            b"0x1",
            &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(header_number(field).is_err(), "{field:?}");
        }
        assert!(header_size(&[0xff; 12]).is_err());
    }
}
