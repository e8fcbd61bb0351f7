//! Amounts of bytes as people write them: `64m`, `1.5g`. Pure; the texts are Docker's.

/// `512`, `64m`, `1.5 GiB`: powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '.' | ' ');
    let end = text.rfind(digits).ok_or_else(invalid)? + 1;
    let (number, suffix) = text.split_at(end);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    if number < 0.0 || !number.is_finite() {
        return Err(invalid());
    }
    let suffix = suffix.to_ascii_lowercase();
    let unit = suffix
        .strip_suffix("ib")
        .or_else(|| suffix.strip_suffix('b'))
        .unwrap_or(&suffix);
    let power = match unit {
        "" if suffix == "ib" => None,
        "" => Some(0),
        "k" => Some(1),
        "m" => Some(2),
        "g" => Some(3),
        "t" => Some(4),
        "p" => Some(5),
        _ => None,
    };
    let power = power.ok_or_else(|| format!("invalid suffix: '{suffix}'"))?;
    Ok((number * 1024f64.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_understood_as_docker_does() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("1 KiB", 1 << 10),
            ("2kb", 2 << 10),
            ("7b", 7),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, why) in [
            ("foo", "invalid size: 'foo'"),
            ("-1", "invalid size: '-1'"),
            (".", "invalid size: '.'"),
            ("1.2.3", "invalid size: '1.2.3'"),
            ("", "invalid size: ''"),
            ("5x", "invalid suffix: 'x'"),
            ("5 mx", "invalid suffix: 'mx'"),
            ("5ib", "invalid suffix: 'ib'"),
        ] {
            assert_eq!(parse_size(text), Err(why.into()), "{text}");
        }
    }
}
