//! Amounts of bytes as people write them: `64m`, `1.5g`. Pure; the texts are Docker's.

/// Bytes; a unit is 1024 of the one below it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let end = text.find(|c| !is_digit(c)).unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| invalid())?;
    let suffix = text[end..].trim_start().to_ascii_lowercase();
    let (unit, rest) = match suffix.strip_prefix(['k', 'm', 'g', 't', 'p']) {
        Some(rest) => (&suffix[..1], rest),
        None => ("", suffix.as_str()),
    };
    let is_known = rest.is_empty() || rest == "b" || (rest == "ib" && !unit.is_empty());
    if !is_known {
        return Err(format!("invalid suffix: '{suffix}'"));
    }
    let power = "kmgtp".find(unit).filter(|_| !unit.is_empty());
    let factor = 1024_f64.powi(power.map_or(0, |at| at as i32 + 1));
    Ok((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4k", 4096),
            ("64M", 64 << 20),
            ("1.5m", 3 << 19),
            ("1gb", 1 << 30),
            ("2 GiB", 2 << 30),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn other_words_are_refused() {
        for text in ["x", "-1", "", ".", "1.2.3"] {
            assert_eq!(
                parse_size(text).unwrap_err(),
                format!("invalid size: '{text}'")
            );
        }
        assert_eq!(parse_size("1x").unwrap_err(), "invalid suffix: 'x'");
        assert_eq!(parse_size("1ib").unwrap_err(), "invalid suffix: 'ib'");
    }
}
