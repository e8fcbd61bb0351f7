//! From text to pieces and tokens. Pure.

use super::TemplateError;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Word(String),
    Field {
        name: String,
        /// No space before it: it belongs to the value on its left. `index .A .B` has two values, `.A.B` one.
        glued: bool,
    },
    Variable(String),
    Text(String),
    Number(serde_json::Number),
    Open,
    Close,
    Pipe,
    Assign,
    /// `=`: of a variable that is there.
    Set,
    Comma,
}

pub enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// Cuts the text at `{{` and `}}`; a dash next to a brace eats the white space on its side.
pub fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some(at) = rest.find("{{") {
        let (before, after) = rest.split_at(at);
        let mut before = if trim_next {
            before.trim_start()
        } else {
            before
        };
        let mut inner = &after[2..];
        if let Some(trimmed) = inner.strip_prefix("- ") {
            before = before.trim_end();
            inner = trimmed;
        }
        pieces.push(Piece::Text(before.to_owned()));
        let (tokens, remaining) = if let Some(comment) = inner.trim_start().strip_prefix("/*") {
            let end = comment
                .find("*/")
                .ok_or_else(|| error("unclosed comment"))?;
            (None, comment[end + 2..].trim_start())
        } else {
            let (tokens, remaining) = tokens(inner)?;
            (Some(tokens), remaining)
        };
        let (closed, trim) = match remaining.strip_prefix("-}}") {
            Some(closed) => (Some(closed), true),
            None => (remaining.strip_prefix("}}"), false),
        };
        rest = closed.ok_or_else(|| error("unclosed action"))?;
        trim_next = trim;
        pieces.extend(tokens.map(Piece::Action));
    }
    let rest = if trim_next { rest.trim_start() } else { rest };
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

/// The tokens of one action, and the text from its closing braces on.
fn tokens(text: &str) -> Result<(Vec<Token>, &str), TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let glued = !rest.starts_with(char::is_whitespace);
        rest = rest.trim_start();
        if rest.is_empty() {
            return Err(error("unclosed action"));
        }
        if rest.starts_with("}}") || rest.starts_with("-}}") {
            return Ok((tokens, rest));
        }
        let (token, length) = token(rest, glued)?;
        tokens.push(token);
        rest = &rest[length..];
    }
}

fn token(rest: &str, glued: bool) -> Result<(Token, usize), TemplateError> {
    let name_length = |text: &str| {
        text.find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    let first = rest.chars().next().unwrap_or(' ');
    Ok(match first {
        '(' => (Token::Open, 1),
        ')' => (Token::Close, 1),
        '|' => (Token::Pipe, 1),
        ',' => (Token::Comma, 1),
        ':' if rest.starts_with(":=") => (Token::Assign, 2),
        '=' => (Token::Set, 1),
        '\'' => character(rest)?,
        '"' | '`' => quoted(rest, first)?,
        '.' => {
            let length = name_length(&rest[1..]);
            let name = rest[1..1 + length].to_owned();
            (Token::Field { name, glued }, 1 + length)
        }
        '$' => {
            let length = name_length(&rest[1..]);
            (Token::Variable(rest[1..1 + length].to_owned()), 1 + length)
        }
        '0'..='9' | '-' => number(rest)?,
        c if c.is_alphabetic() || c == '_' => {
            let length = name_length(rest);
            (Token::Word(rest[..length].to_owned()), length)
        }
        c => return Err(error(format!("unexpected {c:?} in command"))),
    })
}

/// Decimal, hexadecimal, or with a fraction or an exponent.
fn number(rest: &str) -> Result<(Token, usize), TemplateError> {
    let length = rest[1..]
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .map_or(rest.len(), |at| at + 1);
    let text = &rest[..length];
    let hexadecimal = text
        .strip_prefix("0x")
        .and_then(|t| i64::from_str_radix(t, 16).ok());
    let whole = text.parse::<i64>().ok().or(hexadecimal);
    let float = || text.parse().ok().and_then(serde_json::Number::from_f64);
    whole
        .map(serde_json::Number::from)
        .or_else(float)
        .map(|number| (Token::Number(number), length))
        .ok_or_else(|| error(format!("bad number syntax: {text:?}")))
}

/// `'a'` is a number to Go.
fn character(rest: &str) -> Result<(Token, usize), TemplateError> {
    let mut chars = rest[1..].chars();
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) => Ok((Token::Number(u32::from(c).into()), c.len_utf8() + 2)),
        _ => Err(error("unterminated character constant")),
    }
}

fn quoted(rest: &str, quote: char) -> Result<(Token, usize), TemplateError> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((Token::Text(text), at + 1)),
            '\\' if quote == '"' => match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(c @ ('"' | '\\')) => text.push(c),
                _ => return Err(error("invalid escape in a quoted string")),
            },
            c => text.push(c),
        }
    }
    Err(error("unterminated quoted string"))
}

pub fn error(text: impl Into<String>) -> TemplateError {
    TemplateError::Parse(format!("template: :1: {}", text.into()))
}
