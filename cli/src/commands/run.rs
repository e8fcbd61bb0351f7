//! `run`: pull if missing, create, start, relay.

use clap::{ArgAction, Args};
use image::pull::PullOptions;
use runtime::engine::StartMode;
use runtime::request::Attach;
use runtime::{ContainerRequest, Engine, NetworkMode};

use super::cid_file::CidFile;
use super::interrupt::Interruptible;
use super::network::care;
use super::streams::{self, Detaching, Join, Keys, Signals};
use super::{Answer, Context, pull};
use crate::args::container::{ContainerArgs, PullPolicy};
use crate::args::small::Platform;
use crate::args::values;
use crate::failure::Failure;
use crate::output;
use crate::output::progress::{Progress, Screen, Style};

const USAGE: &str = "coracle run [OPTIONS] IMAGE [COMMAND] [ARG...]";

/// Create and run a new container from an image
#[derive(Debug, Args)]
#[command(override_usage = USAGE, disable_help_flag = true)]
pub struct Run {
    /// Run in the background and print the container's ID
    #[arg(short, long)]
    pub detach: bool,
    /// Show what would be done to the networks and rules, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Keys that detach from the container, such as ctrl-a,x
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Pass signals on to the program
    #[arg(long, value_name = "BOOL", value_parser = values::parse_bool, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = ArgAction::Set, hide_default_value = true)]
    pub sig_proxy: bool,
    #[command(flatten)]
    pub container: ContainerArgs,
}

pub fn run(context: &Context, options: Run) -> Answer {
    let mut request = options.container.request(context.config.ip)?;
    let policy = options.container.pull_policy()?;
    request.tty_size = streams::terminal_size(request.tty);
    let keys = streams::detach_keys(context, options.detach_keys.as_deref(), Keys::Detach)?;
    if options.detach {
        if !options.container.logging.attach.is_empty() {
            return Err(Failure::Plain {
                text: "conflicting options: cannot specify both --attach and --detach".to_owned(),
                code: 1,
            });
        }
        request.stdin_once = false;
        request.attach = Attach::NOTHING;
    } else {
        streams::check_terminal(request.open_stdin, request.tty)?;
    }
    let cid_file = CidFile::make(request.cid_file.as_deref().filter(|_| !options.dry_run))?;
    let mut engine = context.engine()?;
    warn_of_ports_without_effect(&mut request);
    if options.dry_run {
        return care::show(&engine.preview_run(&request)?);
    }
    have_image(
        context,
        &mut engine,
        &request,
        policy,
        options.container.quiet,
    )?;
    super::warn(&engine, &request)?;
    if options.detach {
        let (container, _) = engine.run(&request, StartMode::Detached)?;
        cid_file.write(&container.id)?;
        output::print(&container.id)?;
        return Ok(0);
    }
    let attached = options.container.logging.attached(request.open_stdin);
    let signals = match options.sig_proxy {
        true => Signals::ToProgram,
        false => Signals::ToUs,
    };
    let join = Join::new(attached, signals, keys)?;
    let (container, session) = engine.run(&request, StartMode::Attached)?;
    cid_file.write(&container.id)?;
    match session {
        Some(session) => streams::relay(&mut engine, session, join, Detaching::Quiet),
        // What was just made, nobody else has started.
        None => Ok(0),
    }
}

/// Docker's text for the host's network; without any it says nothing. There is nothing to publish: the container's ports
/// are the host's own, or nobody's.
pub fn warn_of_ports_without_effect(request: &mut ContainerRequest) {
    let mode = match request.network {
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
        // The engine refuses them for another container's network.
        NetworkMode::Bridge | NetworkMode::Named(_) | NetworkMode::Container(_) => return,
    };
    if !request.ports.is_empty() || request.publish_all {
        eprintln!("WARNING: Published ports are discarded when using {mode} network mode");
        request.ports.clear();
        request.publish_all = false;
    }
}

/// Pulls the image where the policy asks for it. What remains missing then, the engine refuses.
pub fn have_image(
    context: &Context,
    engine: &mut Engine,
    request: &ContainerRequest,
    policy: PullPolicy,
    quiet: bool,
) -> Result<(), Failure> {
    let name = request.image.as_str();
    let found = match policy {
        PullPolicy::Always => None,
        PullPolicy::Missing | PullPolicy::Never => engine.find_image(name)?,
    };
    let mismatch = found
        .as_ref()
        .and_then(|image| platform_mismatch(image, request));
    let wanted = match policy {
        PullPolicy::Never => {
            if let Some(text) = mismatch {
                return Err(Failure::Own(anyhow::anyhow!(text)));
            }
            false
        }
        PullPolicy::Always => true,
        PullPolicy::Missing => found.is_none() || mismatch.is_some(),
    };
    if !wanted {
        return Ok(());
    }
    let reference = image::Reference::parse(name)?;
    if policy == PullPolicy::Missing {
        eprintln!("Unable to find image '{reference}' locally");
    }
    let style = match quiet {
        true => Style::Quiet,
        false => Style::of(Screen::Stderr),
    };
    let mut out = std::io::stderr();
    let mut progress = Progress::new(&mut out, style);
    let signals = Interruptible::begin()?;
    let pull = PullOptions {
        interrupt: signals.interrupt(),
        ..pull::options(context, request.platform.clone())
    };
    let result = engine.pull(&reference, &pull, &mut |event| progress.event(event));
    progress.finish();
    result.map_err(|error| signals.failure(error))?;
    if let Some(summary) = progress.summary() {
        eprintln!("{summary}");
    }
    Ok(())
}

/// Docker's text for an image that is not for the platform that was asked for; without `--platform` any is taken.
fn platform_mismatch(image: &image::Image, request: &ContainerRequest) -> Option<String> {
    let wanted = Platform::parse(request.platform.as_deref()?).ok()?;
    let (os, architecture) = (
        image.config.os().to_string(),
        image.config.architecture().to_string(),
    );
    let fits = wanted.os == os && wanted.architecture == architecture;
    (!fits).then(|| {
        format!(
            "image with reference {} was found but does not match the specified platform: \
             wanted {}/{}, actual: {os}/{architecture}",
            request.image, wanted.os, wanted.architecture
        )
    })
}
