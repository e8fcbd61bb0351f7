//! `network doctor`, `network watch`, and `--dry-run`.

use std::os::fd::AsFd;

use anyhow::Context as _;
use clap::Args;
use netmgr::doctor::Severity;
use netmgr::preview::Preview;
use netmgr::watch::What;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

use super::super::{Answer, Context};
use crate::failure::Failure;
use crate::output;

/// Compare all of the networks with what should be there, and say what is amiss
#[derive(Debug, Args)]
#[command(override_usage = "coracle network doctor [OPTIONS]")]
pub struct Doctor {
    /// Mend what can be mended, and show what remains
    #[arg(long)]
    fix: bool,
}

/// Mend rules, bridges and links as soon as another program breaks them, until interrupted
#[derive(Debug, Args)]
#[command(override_usage = "coracle network watch")]
pub struct Watch {}

/// Errors are told by the exit code too: 1.
pub fn doctor(context: &Context, options: &Doctor) -> Answer {
    let findings = context.engine()?.network_doctor(options.fix)?;
    for finding in &findings {
        output::print(&finding.to_string())?;
    }
    if findings.is_empty() {
        output::print("nothing is amiss")?;
    }
    let ill = findings.iter().any(|f| f.severity == Severity::Error);
    Ok(i32::from(ill))
}

pub fn watch(context: &Context) -> Answer {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    let stop = || -> anyhow::Result<std::os::fd::OwnedFd> {
        signals.thread_block()?;
        Ok(SignalFd::new(&signals)?.as_fd().try_clone_to_owned()?)
    };
    let stop = stop()
        .context("cannot take signals")
        .map_err(Failure::Own)?;
    let mut told = Ok(());
    context.engine()?.network_watch(stop, &mut |event| {
        if told.is_ok() && !matches!(event.what, What::Compared) {
            told = output::print(&event.to_string());
        }
    })?;
    told?;
    Ok(0)
}

/// What would be done, or that nothing would.
pub fn show<T>(preview: &Preview<T>) -> Answer {
    match preview.is_empty() {
        true => output::print("nothing to do")?,
        false => output::print(preview.to_string().trim_end())?,
    }
    Ok(0)
}
