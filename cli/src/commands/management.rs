//! `container ...` and `image ...`: Docker's longer spelling of the same commands, by the same definitions.

use clap::{Args, Subcommand};

use super::inspect::{Inspect, Kind};
use super::{
    attach, build, commit, container_prune, cp, create, diff, exec, export, history, image_check,
    image_prune, images, import, kill, load, logs, pause, port, ps, pull, push, rename, restart,
    rm, rmi, run, save, start, stats, stop, tag, top, unpause, update, wait,
};
use crate::args::Command;
use crate::args::format::FormatArg;

#[derive(Debug, Subcommand)]
pub enum Container {
    Attach(attach::Attach),
    Commit(commit::Commit),
    Cp(cp::Cp),
    Create(create::Create),
    Diff(diff::Diff),
    Exec(exec::Exec),
    Export(export::Export),
    Inspect(InspectContainer),
    Kill(kill::Kill),
    Logs(logs::Logs),
    #[command(visible_aliases = ["ps", "list"])]
    Ls(ps::Ps),
    Pause(pause::Pause),
    Port(port::Port),
    Prune(container_prune::Prune),
    Rename(rename::Rename),
    Restart(restart::Restart),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    Run(run::Run),
    Start(start::Start),
    Stats(stats::Stats),
    Stop(stop::Stop),
    Top(top::Top),
    Unpause(unpause::Unpause),
    Update(update::Update),
    Wait(wait::Wait),
}

#[derive(Debug, Subcommand)]
pub enum Image {
    Check(image_check::Check),
    #[command(hide = true)]
    Build(build::Build),
    History(history::History),
    Import(import::Import),
    Inspect(InspectImage),
    Load(load::Load),
    #[command(visible_alias = "list")]
    Ls(images::Images),
    Prune(image_prune::Prune),
    Pull(pull::Pull),
    Push(push::Push),
    #[command(visible_alias = "remove")]
    Rm(rmi::Rmi),
    Save(save::Save),
    Tag(tag::Tag),
}

/// Display detailed information on one or more containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle container inspect [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct InspectContainer {
    #[command(flatten)]
    format: FormatArg,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

/// Display detailed information on one or more images
#[derive(Debug, Args)]
#[command(override_usage = "coracle image inspect [OPTIONS] IMAGE [IMAGE...]")]
pub struct InspectImage {
    #[command(flatten)]
    format: FormatArg,
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl Container {
    /// The command that it is a longer name of.
    pub fn plain(self) -> Command {
        match self {
            Container::Attach(options) => Command::Attach(options),
            Container::Commit(options) => Command::Commit(options),
            Container::Cp(options) => Command::Cp(options),
            Container::Create(options) => Command::Create(options),
            Container::Diff(options) => Command::Diff(options),
            Container::Exec(options) => Command::Exec(options),
            Container::Export(options) => Command::Export(options),
            Container::Inspect(options) => Command::Inspect(Inspect::of(
                Kind::Container,
                options.names,
                options.format,
                options.size,
            )),
            Container::Kill(options) => Command::Kill(options),
            Container::Logs(options) => Command::Logs(options),
            Container::Ls(options) => Command::Ps(options),
            Container::Pause(options) => Command::Pause(options),
            Container::Port(options) => Command::Port(options),
            // It has no shorter name.
            Container::Prune(options) => Command::Container(Container::Prune(options)),
            Container::Rename(options) => Command::Rename(options),
            Container::Restart(options) => Command::Restart(options),
            Container::Rm(options) => Command::Rm(options),
            Container::Run(options) => Command::Run(options),
            Container::Start(options) => Command::Start(options),
            Container::Stats(options) => Command::Stats(options),
            Container::Stop(options) => Command::Stop(options),
            Container::Top(options) => Command::Top(options),
            Container::Unpause(options) => Command::Unpause(options),
            Container::Update(options) => Command::Update(options),
            Container::Wait(options) => Command::Wait(options),
        }
    }
}

impl Image {
    pub fn plain(self) -> Command {
        match self {
            // It has no shorter name.
            Image::Check(options) => Command::Image(Image::Check(options)),
            Image::Build(options) => Command::Build(options),
            Image::History(options) => Command::History(options),
            Image::Import(options) => Command::Import(options),
            Image::Inspect(options) => Command::Inspect(Inspect::of(
                Kind::Image,
                options.names,
                options.format,
                false,
            )),
            Image::Load(options) => Command::Load(options),
            Image::Ls(options) => Command::Images(options),
            // It has no shorter name.
            Image::Prune(options) => Command::Image(Image::Prune(options)),
            Image::Pull(options) => Command::Pull(options),
            Image::Push(options) => Command::Push(options),
            Image::Rm(options) => Command::Rmi(options),
            Image::Tag(options) => Command::Tag(options),
            Image::Save(options) => Command::Save(options),
        }
    }
}

/// Gives each command below a group its longer name in its usage: `coracle ps` becomes `coracle container ls`.
pub fn name_in_full(group: clap::Command) -> clap::Command {
    let path = format!("coracle {}", group.get_name());
    group.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let full = format!("{path} {name}");
        if usage.starts_with(&full) {
            return command;
        }
        // What follows `coracle ps`; a second form stands on a line of its own.
        let lines: Vec<String> = usage
            .lines()
            .map(|line| {
                let words = line.trim_start();
                let indent = &line[..line.len() - words.len()];
                let rest = words.splitn(3, ' ').nth(2).unwrap_or_default();
                format!("{indent}{full} {rest}")
            })
            .collect();
        command.override_usage(lines.join("\n"))
    })
}
