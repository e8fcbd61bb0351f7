//! `printf` with Go's verbs, flags, widths and precisions, as far as JSON values have types for them. Pure.

use serde_json::Value;

use super::functions::words;

/// One `%...`: its flags and sizes.
#[derive(Default)]
struct Spec {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// A bound keeps a typing error from filling the memory.
const WIDEST: usize = 10_000;

/// As in Go, a format that does not fit its values is no error: the text says what is wrong.
pub fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut next = 0;
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                '#' => spec.sharp = true,
                _ => break,
            }
            chars.next();
        }
        spec.width = size(&mut chars, values, &mut next);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(size(&mut chars, values, &mut next).unwrap_or(0));
        }
        if chars.next_if_eq(&'[').is_some() {
            let digits: String =
                std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
            chars.next_if_eq(&']');
            next = digits
                .parse::<usize>()
                .map_or(values.len(), |n| n.saturating_sub(1));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => {
                match values.get(next) {
                    Some(value) => out.push_str(&spec.pad(&spec.text(verb, value))),
                    None => out.push_str(&format!("%!{verb}(MISSING)")),
                }
                next += 1;
            }
        }
    }
    if next < values.len() && !format.contains("%[") {
        let rest: Vec<String> = values[next..]
            .iter()
            .map(|value| format!("{}={}", kind(value), words(value)))
            .collect();
        out.push_str(&format!("%!(EXTRA {})", rest.join(", ")));
    }
    out
}

/// Digits, or `*`: the next value.
fn size(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    values: &[Value],
    next: &mut usize,
) -> Option<usize> {
    let number = if chars.next_if_eq(&'*').is_some() {
        let value = values.get(*next).and_then(Value::as_u64);
        *next += 1;
        usize::try_from(value?).ok()
    } else {
        let digits: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
        digits.parse().ok()
    };
    number.map(|number| number.min(WIDEST))
}

impl Spec {
    fn text(&self, verb: char, value: &Value) -> String {
        let wrong = || format!("%!{verb}({}={})", kind(value), words(value));
        match (verb, value) {
            ('v', Value::Number(number)) => self.signed(number.to_string()),
            ('v', _) => words(value),
            ('T', _) => kind(value).to_owned(),
            ('t', Value::Bool(truth)) => truth.to_string(),
            ('s', Value::String(text)) => self.cut(text),
            ('s', Value::Array(_) | Value::Object(_)) => words(value),
            ('q', Value::String(text)) => crate::output::words::quote(&self.cut(text)),
            ('q', Value::Array(list)) => {
                let all: Vec<String> = list.iter().map(|one| self.text('q', one)).collect();
                format!("[{}]", all.join(" "))
            }
            ('x', Value::String(text)) => text.bytes().map(|b| format!("{b:02x}")).collect(),
            ('X', Value::String(text)) => text.bytes().map(|b| format!("{b:02X}")).collect(),
            ('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 'U', Value::Number(number)) => {
                match number.as_i64() {
                    Some(number) => self.integer(verb, number),
                    None => wrong(),
                }
            }
            ('f' | 'F' | 'e' | 'g', Value::Number(number)) if number.is_f64() => {
                self.float(verb, number.as_f64().unwrap_or_default())
            }
            _ => wrong(),
        }
    }

    fn integer(&self, verb: char, number: i64) -> String {
        let (sign, size) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
        let before = |prefix: &'static str| if self.sharp { prefix } else { "" };
        let digits = match verb {
            'b' => format!("{}{size:b}", before("0b")),
            'o' => format!("{}{size:o}", before("0")),
            'x' => format!("{}{size:x}", before("0x")),
            'X' => format!("{}{size:X}", before("0X")),
            'c' => {
                let c = u32::try_from(size).ok().and_then(char::from_u32);
                return c.unwrap_or(char::REPLACEMENT_CHARACTER).to_string();
            }
            'U' => return format!("U+{size:04X}"),
            _ => size.to_string(),
        };
        self.signed(format!("{sign}{digits}"))
    }

    fn float(&self, verb: char, number: f64) -> String {
        let text = match verb {
            'e' => {
                let text = format!("{:.*e}", self.precision.unwrap_or(6), number);
                // Go writes the sign of an exponent and two digits of it.
                match text.split_once('e') {
                    Some((digits, exponent)) => {
                        let exponent: i32 = exponent.parse().unwrap_or(0);
                        let sign = if exponent < 0 { '-' } else { '+' };
                        format!("{digits}e{sign}{:02}", exponent.abs())
                    }
                    None => text,
                }
            }
            'g' => number.to_string(),
            _ => format!("{number:.*}", self.precision.unwrap_or(6)),
        };
        self.signed(text)
    }

    fn signed(&self, text: String) -> String {
        match (text.starts_with('-'), self.plus, self.space) {
            (false, true, _) => format!("+{text}"),
            (false, false, true) => format!(" {text}"),
            _ => text,
        }
    }

    fn cut(&self, text: &str) -> String {
        text.chars()
            .take(self.precision.unwrap_or(usize::MAX))
            .collect()
    }

    fn pad(&self, text: &str) -> String {
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        match (self.minus, self.zero) {
            (true, _) => format!("{text}{}", " ".repeat(missing)),
            (false, true) => {
                let digits = text.trim_start_matches(['-', '+']);
                let sign = &text[..text.len() - digits.len()];
                format!("{sign}{}{digits}", "0".repeat(missing))
            }
            (false, false) => format!("{}{text}", " ".repeat(missing)),
        }
    }
}

/// As Go would call its type.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each answer is Docker 20.10's.
    #[test]
    fn formats_give_what_go_gives() {
        for (format, values, expected) in [
            (
                "%s-%d-%v-%q",
                json!(["/f1", 7, true, "q"]),
                "/f1-7-true-\"q\"",
            ),
            (
                "%5s|%-5s|%05d|%x|%t|%%",
                json!(["a", "b", 42, 255, true]),
                "    a|b    |00042|ff|true|%",
            ),
            ("%8.3f|%e", json!([3.1421, 1000.0]), "   3.142|1.000000e+03"),
            ("%c %U", json!([65, 65]), "A U+0041"),
            (
                "%+d % d %o %b %X",
                json!([5, 5, 8, 5, 255]),
                "+5  5 10 101 FF",
            ),
            ("%*d", json!([5, 42]), "   42"),
            ("%[2]s %[1]s", json!(["a", "b"]), "b a"),
            ("%d", json!(["x"]), "%!d(string=x)"),
            ("%s", json!([]), "%!s(MISSING)"),
            ("%T", json!(["x"]), "string"),
            ("x", json!([1]), "x%!(EXTRA int=1)"),
            ("%.2s|%v", json!(["abc", ["a", 1]]), "ab|[a 1]"),
        ] {
            let values = values.as_array().unwrap();
            assert_eq!(printf(format, values), expected, "{format}");
        }
    }
}
