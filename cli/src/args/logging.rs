//! Where what the container writes goes: its log, and this program's own streams.

use clap::Args;
use runtime::ContainerRequest;
use runtime::request::{Attach, LogDriver, LogRequest};

use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct LogArgs {
    /// Where the container's output is kept: json-file, local or none
    #[arg(
        long,
        value_name = "NAME",
        default_value = "json-file",
        hide_default_value = true
    )]
    pub log_driver: String,
    /// Option of the log: max-size=10m, max-file=3, compress=true, labels=A,B, env=A,B, tag={{.Name}}
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_option)]
    pub log_opt: Vec<(String, String)>,
    /// Attach only these of stdin, stdout and stderr
    #[arg(short, long, value_name = "STREAM", value_parser = parse_stream)]
    pub attach: Vec<StreamName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamName {
    Stdin,
    Stdout,
    Stderr,
}

/// Which of this program's streams a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl LogArgs {
    /// Enters the options in the request.
    pub fn apply(&self, request: &mut ContainerRequest) -> Result<(), Failure> {
        let driver = match self.log_driver.as_str() {
            "json-file" | "" => LogDriver::JsonFile,
            "local" => LogDriver::Local,
            "none" => LogDriver::None,
            other => {
                return Err(Failure::Refused(anyhow::anyhow!(
                    "error looking up logging plugin {other}: plugin \"{other}\" not found"
                )));
            }
        };
        let attached = self.attached(request.open_stdin);
        request.attach = Attach {
            stdin: attached.stdin,
            stdout: attached.stdout,
            stderr: attached.stderr,
        };
        request.log = LogRequest {
            driver,
            options: self.log_opt.clone(),
        };
        Ok(())
    }

    /// `-i` attaches stdin in any case; without `-a` both outputs are.
    pub fn attached(&self, interactive: bool) -> Attached {
        let named = |stream| self.attach.contains(&stream);
        Attached {
            stdin: interactive,
            stdout: self.attach.is_empty() || named(StreamName::Stdout),
            stderr: self.attach.is_empty() || named(StreamName::Stderr),
        }
    }
}

/// Without a value it is empty, which the engine judges.
fn parse_option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_stream(text: &str) -> Result<StreamName, String> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" => Ok(StreamName::Stdin),
        "stdout" => Ok(StreamName::Stdout),
        "stderr" => Ok(StreamName::Stderr),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}
