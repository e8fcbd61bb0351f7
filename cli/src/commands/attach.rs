//! `attach`: this terminal, or these streams, become those of a running container.

use clap::{ArgAction, Args};

use super::streams::{self, Join, Keys, Signals};
use super::{Answer, Context};
use crate::args::logging::Attached;
use crate::args::values;

/// Attach local standard input, output, and error streams to a running container
#[derive(Debug, Args)]
#[command(override_usage = "coracle attach [OPTIONS] CONTAINER")]
pub struct Attach {
    /// Keys that detach from the container, such as ctrl-a,x
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Leave the container's stdin alone
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the program
    #[arg(long, value_name = "BOOL", value_parser = values::parse_bool, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = ArgAction::Set, hide_default_value = true)]
    sig_proxy: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub fn run(context: &Context, options: Attach) -> Answer {
    let keys = streams::detach_keys(context, options.detach_keys.as_deref(), Keys::Detach)?;
    let mut engine = context.engine()?;
    let session = engine.attach(&options.container)?;
    let request = engine.find(&options.container)?.request;
    let attached = Attached {
        stdin: request.open_stdin && !options.no_stdin,
        stdout: true,
        stderr: true,
    };
    streams::check_terminal(attached.stdin, request.tty)?;
    let signals = match options.sig_proxy && !request.tty {
        true => Signals::ToProgram,
        false => Signals::ToUs,
    };
    let joined = Join::new(attached, signals, keys)?;
    streams::relay(&mut engine, session, joined, streams::Detaching::Told)
}
