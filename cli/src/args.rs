//! The command line as types: the global options and the list of commands. The words after a command are with its
//! code in `commands/`. Must do nothing but parse.

pub mod container;
pub mod event_filter;
pub mod failure;
pub mod filter;
pub mod format;
pub mod glob;
mod help;
pub mod image_filter;
pub mod life;
pub mod logging;
pub mod moment;
pub mod mount_spec;
pub mod mounts;
pub mod namespaces;
pub mod network_filter;
pub mod networks;
pub mod ports;
mod positionals;
pub mod prune;
pub mod registries;
pub mod resources;
pub mod security;
pub mod sizes;
pub mod small;
pub mod throttle;
pub mod values;
pub mod volume_filter;
pub mod volumes;
mod words;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::commands;
use crate::config::Config;

/// A small, daemonless container engine with real networking
#[derive(Debug, Parser)]
#[command(
    name = "coracle",
    version,
    override_usage = "coracle [OPTIONS] COMMAND",
    subcommand_value_name = "COMMAND",
    subcommand_help_heading = "Commands",
    disable_version_flag = true,
    disable_help_subcommand = true,
    after_help = "Run 'coracle COMMAND --help' for more information on a command."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    /// Print version information and quit
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Folder of the database, images, volumes and containers
    #[arg(
        long,
        global = true,
        env = "CORACLE_ROOT",
        value_name = "DIR",
        default_value = "/var/lib/coracle",
        hide_env_values = true
    )]
    pub root: PathBuf,
    /// Folder of what need not outlive a reboot
    #[arg(
        long,
        global = true,
        env = "CORACLE_RUN_ROOT",
        value_name = "DIR",
        default_value = "/run/coracle",
        hide_env_values = true
    )]
    pub run_root: PathBuf,
    /// Configuration file; /etc/coracle/config.toml is read if it is there
    #[arg(
        long,
        global = true,
        env = "CORACLE_CONFIG",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
    /// Which firewall is written: auto (what stands, else iptables where it works, else nftables), iptables, nftables or none
    #[arg(long, global = true, env = "CORACLE_FIREWALL", value_name = "KIND", value_parser = parse_firewall, hide_env_values = true)]
    pub firewall: Option<netmgr::Firewall>,
    /// --iptables=false is --firewall none
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub iptables: bool,
    /// Names and layout of the rules: coracle or docker
    #[arg(
        long,
        global = true,
        env = "CORACLE_PROFILE",
        value_name = "NAME",
        value_enum,
        default_value = "coracle",
        hide_env_values = true,
        hide_possible_values = true
    )]
    pub profile: ProfileName,
    #[command(flatten)]
    pub registries: registries::RegistryArgs,
    /// Say what is done, on stderr (CORACLE_LOG filters it: info, netmgr=debug)
    #[arg(short = 'D', long, global = true, action = ArgAction::SetTrue)]
    pub debug: bool,
}

impl Global {
    /// What the engine is opened with: options and the environment before the file.
    pub fn settings(&self, config: &Config) -> runtime::Settings {
        let firewall = match self.iptables {
            true => self.firewall.or(config.firewall).unwrap_or_default(),
            false => netmgr::Firewall::None,
        };
        let profile = match self.profile {
            ProfileName::Coracle => netmgr::Profile::Coracle,
            ProfileName::Docker => netmgr::Profile::Docker,
        };
        runtime::Settings {
            root: self.root.clone(),
            run_root: self.run_root.clone(),
            network: netmgr::Settings {
                pools: config.pools(),
                // The engine's to know.
                namespace_of: None,
                root: self.root.clone(),
                run_root: self.run_root.clone(),
                firewall,
                profile,
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    Coracle,
    Docker,
}

fn parse_firewall(text: &str) -> Result<netmgr::Firewall, String> {
    match text {
        "auto" => Ok(netmgr::Firewall::Auto),
        "iptables" => Ok(netmgr::Firewall::Iptables),
        "none" => Ok(netmgr::Firewall::None),
        "nftables" => Ok(netmgr::Firewall::Nftables),
        _ => Err("must be one of auto, iptables, nftables or none".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(commands::run::Run),
    Create(commands::create::Create),
    Start(commands::start::Start),
    Attach(commands::attach::Attach),
    Exec(commands::exec::Exec),
    Ps(commands::ps::Ps),
    Logs(commands::logs::Logs),
    Stop(commands::stop::Stop),
    Kill(commands::kill::Kill),
    Pause(commands::pause::Pause),
    Unpause(commands::unpause::Unpause),
    Update(commands::update::Update),
    Stats(commands::stats::Stats),
    Top(commands::top::Top),
    Rm(commands::rm::Rm),
    Restart(commands::restart::Restart),
    Rename(commands::rename::Rename),
    Wait(commands::wait::Wait),
    Inspect(commands::inspect::Inspect),
    Port(commands::port::Port),
    Pull(commands::pull::Pull),
    Push(commands::push::Push),
    Tag(commands::tag::Tag),
    Login(commands::login::Login),
    Logout(commands::logout::Logout),
    Import(commands::import::Import),
    Load(commands::load::Load),
    Save(commands::save::Save),
    History(commands::history::History),
    #[command(hide = true)]
    Build(commands::build::Build),
    Images(commands::images::Images),
    Rmi(commands::rmi::Rmi),
    Search(commands::search::Search),
    /// Manage networks
    #[command(
        subcommand,
        override_usage = "coracle network COMMAND",
        subcommand_value_name = "COMMAND"
    )]
    Network(commands::network::Network),
    /// Manage what coracle has put on this host
    #[command(
        subcommand,
        override_usage = "coracle system COMMAND",
        subcommand_value_name = "COMMAND"
    )]
    System(commands::system::System),
    /// Manage volumes
    #[command(
        subcommand,
        override_usage = "coracle volume COMMAND",
        subcommand_value_name = "COMMAND"
    )]
    Volume(commands::volume::Volume),
    Info(commands::info::Info),
    Version(commands::version::Version),
    Cp(commands::cp::Cp),
    Diff(commands::diff::Diff),
    Export(commands::export::Export),
    Commit(commands::commit::Commit),
    Events(commands::events::Events),
    /// Manage containers
    #[command(
        subcommand,
        override_usage = "coracle container COMMAND",
        subcommand_value_name = "COMMAND"
    )]
    Container(commands::management::Container),
    /// Manage images
    #[command(
        subcommand,
        override_usage = "coracle image COMMAND",
        subcommand_value_name = "COMMAND"
    )]
    Image(commands::management::Image),
    Completion(commands::completion::Completion),
    #[command(hide = true)]
    Man(commands::completion::Man),
}

impl Command {
    /// Without Docker's longer spelling.
    fn plain(self) -> Command {
        match self {
            Command::Container(command) => command.plain(),
            Command::Image(command) => command.plain(),
            other => other,
        }
    }
}

/// The whole command line as it is shown: in help, completions and the manual.
pub fn definition() -> clap::Command {
    let groups = ["container", "image"];
    let command = groups.into_iter().fold(Cli::command(), |command, group| {
        command.mut_subcommand(group, commands::management::name_in_full)
    });
    help::group(positionals::describe(command))
}

/// Parses the process's own arguments.
pub fn parse(args: &[std::ffi::OsString]) -> Result<Cli, failure::ArgsFailure> {
    match parse_accepted(args) {
        Some(cli) => Ok(cli),
        None => parse_or_refuse(args),
    }
}

/// What is right needs no more than the one command that it leads to: all of them with all their usages take as long to make
/// as `ps` takes for the rest.
fn parse_accepted(args: &[std::ffi::OsString]) -> Option<Cli> {
    let command = Cli::command();
    let args = words::help_of(&command, args);
    let args = words::close_options(&command, &args);
    let path = words::path(&command, &args);
    let matches = like_docker_along(command, &path).try_get_matches_from(&args);
    let cli = Cli::from_arg_matches(&matches.ok()?).ok()?;
    Some(Cli {
        command: cli.command.plain(),
        ..cli
    })
}

fn parse_or_refuse(args: &[std::ffi::OsString]) -> Result<Cli, failure::ArgsFailure> {
    let command = like_docker(definition());
    let args = words::help_of(&command, args);
    let args = words::close_options(&command, &args);
    let mut asked = words::command(&command, &args).clone();
    let usage = asked.render_usage().to_string();
    let matches = match command.try_get_matches_from(&args) {
        // Help is printed from the definition without the values, where flags look like flags.
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            definition().try_get_matches_from(&args)
        }
        other => other,
    };
    matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map(|cli| Cli {
            command: cli.command.plain(),
            ..cli
        })
        .map_err(|error| match error.kind() {
            ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                failure::ArgsFailure::half(help(&args))
            }
            _ => {
                let typed = failure::Typed {
                    command: &asked,
                    last: &args
                        .last()
                        .map(|word| word.to_string_lossy())
                        .unwrap_or_default(),
                };
                failure::ArgsFailure::from_clap(&error, &usage, &typed)
            }
        })
}

/// The help of the command that `args` lead to.
fn help(args: &[std::ffi::OsString]) -> String {
    let mut command = definition();
    command.build();
    words::command(&command, args)
        .clone()
        .render_help()
        .to_string()
}

/// What Docker's option parser does and clap does not by itself: every switch may be given a value (`--rm=false`), an
/// option takes the next word whatever it looks like (`-u -1`), and of a repeated one the last counts.
fn like_docker(command: clap::Command) -> clap::Command {
    command
        .mut_args(option_like_docker)
        .mut_subcommands(like_docker)
}

/// The same for the commands that `path` leads to alone.
fn like_docker_along(command: clap::Command, path: &[String]) -> clap::Command {
    let command = command.mut_args(option_like_docker);
    match path.split_first() {
        Some((name, rest)) => command.mut_subcommand(name, |below| like_docker_along(below, rest)),
        None => command,
    }
}

fn option_like_docker(arg: clap::Arg) -> clap::Arg {
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .value_parser(values::parse_bool)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .overrides_with_self(),
        ArgAction::Set if !arg.is_positional() => {
            arg.allow_hyphen_values(true).overrides_with_self()
        }
        ArgAction::Append if !arg.is_positional() => arg.allow_hyphen_values(true),
        _ => arg,
    }
}

trait OverridesSelf {
    fn overrides_with_self(self) -> Self;
}

impl OverridesSelf for clap::Arg {
    /// The last one wins, as with Docker; without this a repeated switch would be refused.
    fn overrides_with_self(self) -> clap::Arg {
        let id = self.get_id().clone();
        self.overrides_with(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Cli, failure::ArgsFailure> {
        let args: Vec<_> = std::iter::once("coracle")
            .chain(words.iter().copied())
            .map(Into::into)
            .collect();
        parse(&args)
    }

    fn run(words: &[&str]) -> commands::run::Run {
        let words: Vec<_> = std::iter::once("run")
            .chain(words.iter().copied())
            .collect();
        match parse_words(&words).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
        like_docker(definition()).debug_assert();
    }

    #[test]
    fn the_short_way_and_the_long_one_agree() {
        for line in [
            "ps -aq --no-trunc=false",
            "--root /r container ls -q -q",
            "run --rm -itp8080:80 -u -1 bb sh -c x",
            "image rm -f a b",
            "network create --driver bridge --driver bridge n",
            "system prune --force=true",
            "volume ls",
            "logs -f=true x",
            "exec -it c sh --rm",
            "container list",
            "ps extra",
            "container",
            "run",
            "help ps",
            "--version",
            "nothing",
            "network nothing",
        ] {
            let words: Vec<std::ffi::OsString> = std::iter::once("coracle")
                .chain(line.split(' '))
                .map(Into::into)
                .collect();
            let short = parse_accepted(&words).map(|cli| format!("{cli:?}"));
            let long = parse_or_refuse(&words).ok().map(|cli| format!("{cli:?}"));
            assert_eq!(short, long, "{line}");
        }
    }

    #[test]
    fn words_after_the_image_belong_to_the_container() {
        let run = run(&["--rm", "bb", "--rm", "-p", "--", "--version", "-it"]);
        assert!(run.container.rm);
        assert!(!run.container.tty);
        assert_eq!(
            run.container.words,
            ["bb", "--rm", "-p", "--", "--version", "-it"]
        );
    }

    #[test]
    fn switches_cluster_repeat_and_take_values() {
        let parsed = run(&["-dit", "--rm=false", "bb"]);
        assert!(parsed.detach && parsed.container.interactive && parsed.container.tty);
        assert!(!parsed.container.rm);
        assert!(run(&["--rm", "--rm", "bb"]).container.rm);
        assert!(run(&["-d=true", "bb"]).detach);
        let attached = run(&["-eA=B", "-v/a:/b", "bb", "-eC=D"]);
        assert_eq!(attached.container.env, ["A=B"]);
        assert_eq!(attached.container.volume, ["/a:/b"]);
        let last = run(&["--name", "a", "--name", "b", "-u", "-1", "-e", "-x=y", "bb"]);
        assert_eq!(last.container.name.as_deref(), Some("b"));
        assert_eq!(last.container.user.as_deref(), Some("-1"));
        assert_eq!(last.container.env, ["-x=y"]);
        let clustered = run(&["-itp8080:80", "bb", "sh"]);
        assert_eq!(clustered.container.publish, ["8080:80"]);
        assert!(clustered.container.tty);
    }

    #[test]
    fn iptables_false_is_no_firewall() {
        let firewall = |words: &[&str]| {
            parse_words(words).map(|cli| cli.global.settings(&Config::default()).network.firewall)
        };
        assert_eq!(firewall(&["ps"]).unwrap(), netmgr::Firewall::Auto);
        assert_eq!(
            firewall(&["--iptables=false", "ps"]).unwrap(),
            netmgr::Firewall::None
        );
        assert_eq!(
            firewall(&["--iptables=true", "ps"]).unwrap(),
            netmgr::Firewall::Auto
        );
        assert_eq!(
            firewall(&["ps", "--firewall", "none"]).unwrap(),
            netmgr::Firewall::None
        );
        assert_eq!(
            firewall(&["--firewall", "nftables", "ps"]).unwrap(),
            netmgr::Firewall::Nftables
        );
    }

    #[test]
    fn global_options_come_before_or_after_the_command() {
        for words in [["--root", "/r", "ps"], ["ps", "--root", "/r"]] {
            let settings = parse_words(&words)
                .unwrap()
                .global
                .settings(&Config::default());
            assert_eq!(settings.root, std::path::Path::new("/r"));
            assert_eq!(settings.network.root, std::path::Path::new("/r"));
        }
    }
}
