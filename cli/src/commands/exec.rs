//! `exec`: another program in a running container.

use clap::{ArgAction, Args};
use runtime::ExecRequest;

use super::streams::{self, Detaching, Join, Keys, Signals};
use super::{Answer, Context};
use crate::args::container::own_env;
use crate::args::logging::Attached;
use crate::args::values;
use crate::failure::Failure;

const USAGE: &str = "coracle exec [OPTIONS] CONTAINER COMMAND [ARG...]";

/// Execute a command in a running container
#[derive(Debug, Args)]
#[command(override_usage = USAGE, disable_help_flag = true)]
pub struct Exec {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Keys that detach from the program, such as ctrl-a,x
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; a bare NAME is passed on
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = values::parse_env)]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// User (and group) inside the container: NAME|UID[:GROUP|GID]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// All capabilities, no seccomp
    #[arg(long)]
    privileged: bool,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Container, then command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARG...]", hide = true)]
    words: Vec<String>,
}

pub fn run(context: &Context, options: Exec) -> Answer {
    let request = request(&options)?;
    if !options.detach {
        streams::check_terminal(options.interactive, options.tty)?;
    }
    let keys = streams::detach_keys(context, options.detach_keys.as_deref(), Keys::Escape)?;
    let mut engine = context.engine()?;
    let attached = Attached {
        stdin: options.interactive,
        stdout: true,
        stderr: true,
    };
    let join = Join::new(attached, Signals::ToUs, keys)?;
    match engine.exec(&request)? {
        Some(session) => streams::relay(&mut engine, session, join, Detaching::Told),
        None => Ok(0),
    }
}

fn request(options: &Exec) -> Result<ExecRequest, Failure> {
    let container = &options.words[0];
    Ok(ExecRequest {
        container: container.clone(),
        command: options.words[1..].to_vec(),
        env: values::resolve_env(&options.env_file, &options.env, &own_env())
            .map_err(Failure::Refused)?,
        workdir: options.workdir.clone().filter(|dir| !dir.is_empty()),
        user: options.user.clone().filter(|user| !user.is_empty()),
        tty: options.tty,
        open_stdin: options.interactive,
        detach: options.detach,
        privileged: options.privileged,
        tty_size: streams::terminal_size(options.tty),
    })
}
