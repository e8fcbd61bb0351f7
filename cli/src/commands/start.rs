//! `start`: starts stopped containers, or one of them in the foreground.

use clap::Args;
use runtime::engine::StartMode;

use super::streams::{self, Detaching, Join, Keys, Signals};
use super::{Answer, Context, each};
use crate::args::logging::Attached;
use crate::failure::Failure;
use crate::output;

/// Start one or more stopped containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle start [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Start {
    /// Attach stdout and stderr and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Attach the container's stdin
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach from the container, such as ctrl-a,x
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Start) -> Answer {
    if options.attach || options.interactive {
        return attached(context, &options);
    }
    let mut engine = context.engine()?;
    let mut failed = Vec::new();
    let code = each(&options.containers, |name| {
        match engine.start(name, StartMode::Detached) {
            Ok(_) => Ok(output::print(name)?),
            Err(error) => {
                failed.push(name.to_owned());
                Err(error.into())
            }
        }
    })?;
    if !failed.is_empty() {
        eprintln!("Error: failed to start containers: {}", failed.join(", "));
    }
    Ok(code)
}

fn attached(context: &Context, options: &Start) -> Answer {
    let [name] = &options.containers[..] else {
        return Err(Failure::Plain {
            text: "you cannot start and attach multiple containers at once".to_owned(),
            code: 1,
        });
    };
    let keys = streams::detach_keys(context, options.detach_keys.as_deref(), Keys::Detach)?;
    let mut engine = context.engine()?;
    let request = engine.find(name)?.request;
    // As with Docker, `-i` for a container that was made without it attaches nothing.
    let interactive = options.interactive && request.open_stdin;
    streams::check_terminal(interactive, request.tty)?;
    let attached = Attached {
        stdin: interactive,
        stdout: true,
        stderr: true,
    };
    let signals = match request.tty {
        true => Signals::ToUs,
        false => Signals::ToProgram,
    };
    let join = Join::new(attached, signals, keys)?;
    let session = match engine.start(name, StartMode::Attached)? {
        Some(session) => session,
        // It runs already.
        None => engine.attach(name)?,
    };
    streams::relay(&mut engine, session, join, Detaching::Quiet)
}
