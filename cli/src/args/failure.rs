//! Clap's errors in the shape that people who script against Docker know: text, usage, pointer to `--help`, exit code.
//! Must not print.

use std::error::Error as _;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A command line that was not understood, or that asked for help.
#[derive(Debug)]
pub struct ArgsFailure {
    pub text: String,
    pub stream: Stream,
    pub code: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl fmt::Display for ArgsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What was typed, as far as an error does not tell it.
pub struct Typed<'a> {
    /// The command whose options were parsed.
    pub command: &'a clap::Command,
    pub last: &'a str,
}

impl Typed<'_> {
    /// `-e, --env`: every name of an option that clap calls by one of them.
    fn names(&self, invalid: &str) -> String {
        let name = flag(invalid);
        let long = name.strip_prefix("--");
        let found = self
            .command
            .get_arguments()
            .find(|arg| long.is_some() && arg.get_long() == long);
        match found.and_then(clap::Arg::get_short) {
            Some(letter) => format!("-{letter}, {name}"),
            None => name.to_owned(),
        }
    }

    /// The option that ended the line without its value, as it was typed.
    fn without_value(&self, invalid: &str) -> String {
        match self
            .last
            .strip_prefix('-')
            .and_then(|rest| rest.chars().last())
        {
            Some(letter) if !self.last.starts_with("--") => format!("'{letter}' in -{letter}"),
            _ => flag(invalid).to_owned(),
        }
    }
}

impl ArgsFailure {
    /// Half a command, such as `network` alone: its help, on stderr, and success.
    pub fn half(help: String) -> ArgsFailure {
        stderr(0, help.trim_end())
    }

    /// Docker 28: 125 for a flag that is wrong, 1 for too few or too many words, 0
    /// where help was asked for.
    /// `usage` is that of the command.
    pub fn from_clap(error: &clap::Error, usage: &str, typed: &Typed<'_>) -> ArgsFailure {
        let invalid = context(error, ContextKind::InvalidArg);
        let value = context(error, ContextKind::InvalidValue);
        let usage = Usage::parse(usage);
        let path = &usage.path;
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ArgsFailure {
                text: error.to_string().trim_end().to_owned(),
                stream: Stream::Stdout,
                code: 0,
            },
            ErrorKind::InvalidSubcommand => {
                let word = context(error, ContextKind::InvalidSubcommand);
                stderr(
                    1,
                    &format!(
                        "coracle: unknown command: {path} {word}\n\nRun '{path} --help' for more information"
                    ),
                )
            }
            ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues => {
                let text = usage.with(&format!(
                    "coracle: '{path}' requires {}",
                    usage.required_words()
                ));
                stderr(1, &text)
            }
            ErrorKind::UnknownArgument if !invalid.starts_with('-') => stderr(
                1,
                &usage.with(&format!("coracle: '{path}' {}", usage.accepted_words())),
            ),
            ErrorKind::UnknownArgument => stderr(125, &usage.with(&unknown_flag(&invalid))),
            ErrorKind::InvalidValue if value.is_empty() => stderr(
                125,
                &usage.with(&format!(
                    "flag needs an argument: {}",
                    typed.without_value(&invalid)
                )),
            ),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
                let why = match error.source() {
                    Some(source) => source.to_string(),
                    None => format!("must be one of {}", context(error, ContextKind::ValidValue)),
                };
                let flag = typed.names(&invalid);
                stderr(
                    125,
                    &usage.with(&format!(
                        "invalid argument {value:?} for {flag:?} flag: {why}"
                    )),
                )
            }
            _ => {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                stderr(125, &usage.with(line.trim_start_matches("error: ")))
            }
        }
    }
}

fn unknown_flag(word: &str) -> String {
    if word.starts_with("--") {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        return format!("unknown flag: {name}");
    }
    let letter = word.trim_start_matches('-').chars().next().unwrap_or('-');
    format!("unknown shorthand flag: '{letter}' in {word}")
}

fn stderr(code: i32, text: &str) -> ArgsFailure {
    ArgsFailure {
        text: text.to_owned(),
        stream: Stream::Stderr,
        code,
    }
}

/// `--stop-timeout <SECONDS>` without the value's name.
fn flag(argument: &str) -> &str {
    argument.split([' ', '=', '[']).next().unwrap_or(argument)
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// `coracle run [OPTIONS] IMAGE [COMMAND] [ARG...]`: the command's own words, then its arguments.
struct Usage {
    line: String,
    path: String,
    arguments: String,
}

impl Usage {
    fn parse(text: &str) -> Usage {
        let line = text.trim().trim_start_matches("Usage:").trim();
        let is_command = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase());
        let path: Vec<&str> = line.split(' ').take_while(is_command).collect();
        let path = match path.is_empty() {
            true => "coracle".to_owned(),
            false => path.join(" "),
        };
        // A second form of the same command stands on a line of its own.
        let first = line.lines().next().unwrap_or_default();
        let arguments = first[path.len().min(first.len())..]
            .replace("[OPTIONS]", "")
            // Docker's words for any number of them.
            .replace("[ps OPTIONS]", "[OPTION...]")
            .trim()
            .to_owned();
        Usage {
            line: line.to_owned(),
            path,
            arguments,
        }
    }

    fn with(&self, message: &str) -> String {
        format!(
            "{message}\n\nUsage:  {}\n\nRun '{} --help' for more information",
            self.line, self.path
        )
    }

    fn has_optional_words(&self) -> bool {
        self.arguments.split(' ').any(|word| word.starts_with('['))
    }

    /// How many words are required: those outside brackets.
    fn required_words(&self) -> String {
        let required = self
            .arguments
            .split(' ')
            .filter(|word| !word.starts_with('['));
        let count = required.filter(|word| !word.is_empty()).count();
        let plural = if count == 1 { "" } else { "s" };
        let most = self.arguments.split(' ').count();
        match self.has_optional_words() {
            true if !self.arguments.contains("...") => {
                format!("at least {count} and at most {most} arguments")
            }
            true => format!("at least {count} argument{plural}"),
            false => format!("{count} argument{plural}"),
        }
    }

    fn accepted_words(&self) -> String {
        let count = self
            .arguments
            .split(' ')
            .filter(|word| !word.is_empty())
            .count();
        let plural = if count == 1 { "" } else { "s" };
        match count {
            0 => "accepts no arguments".to_owned(),
            _ if self.has_optional_words() => {
                format!("requires at most {count} argument{plural}")
            }
            _ => format!("requires {count} argument{plural}"),
        }
    }
}
