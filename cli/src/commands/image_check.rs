//! `image check`: is the store of images whole and unharmed?

use clap::Args;
use image::check::{CheckOptions, Report, Summary};

use super::{Answer, Context, pull};
use crate::output;

/// Check that the stored images are whole and unharmed
///
/// Exits with 0 if they are, or if all has been repaired, and with 1 otherwise.
#[derive(Debug, Args)]
#[command(override_usage = "coracle image check [OPTIONS]")]
pub struct Check {
    /// Look at the database and the directories only, not into the layers
    #[arg(long)]
    quick: bool,
    /// Pull damaged layers again from where they came, and delete rubbish
    #[arg(long)]
    repair: bool,
}

pub fn run(context: &Context, options: Check) -> Answer {
    let mut engine = context.engine()?;
    let check = CheckOptions {
        quick: options.quick,
        repair: options.repair,
        registries: pull::options(context, None).registries,
    };
    let mut printed = Ok(());
    let summary = engine.check_images(&check, &mut |report| {
        let result = match &report {
            Report::Notice(text) => {
                eprintln!("{text}");
                Ok(())
            }
            report => output::print(&line(report)),
        };
        // The check goes on when nobody reads.
        if printed.is_ok() {
            printed = result;
        }
    })?;
    printed?;
    output::print(&last_line(&summary, &options))?;
    Ok(i32::from(summary.unrepaired > 0))
}

fn line(report: &Report) -> String {
    match report {
        Report::Problem {
            object,
            images,
            path,
            why,
        } => {
            let mut line = object.to_string();
            if !images.is_empty() {
                line += &format!(" ({})", images.join(", "));
            }
            if let Some(path) = path {
                line += &format!(": {path}");
            }
            format!("{line}: {why}")
        }
        Report::Repaired { object, how } => format!("{object}: repaired: {how}"),
        Report::Unrepaired { object, why } => format!("{object}: not repaired: {why}"),
        Report::Notice(text) => text.clone(),
    }
}

fn last_line(summary: &Summary, options: &Check) -> String {
    let Summary {
        images,
        layers,
        problems,
        unrepaired,
    } = summary;
    let count = |n: u64, what: &str| match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    let checked = format!(
        "{} and {} checked",
        count(*images as u64, "image"),
        count(*layers as u64, "layer")
    );
    match (*problems, options.repair, *unrepaired) {
        (0, ..) => format!("{checked}: no problems"),
        (n, true, 0) => format!("{checked}: {}, all repaired", count(n, "problem")),
        (n, true, left) => {
            let problems = count(n, "problem");
            format!("{checked}: {problems}, {left} not repaired")
        }
        (n, false, _) => format!(
            "{checked}: {}: try `coracle image check --repair`",
            count(n, "problem")
        ),
    }
}
