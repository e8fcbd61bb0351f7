//! One file a command: its options, the one call of the engine, and how the answer is written.

pub mod attach;
pub mod commit;
pub mod completion;
pub mod container_prune;
pub mod cp;
pub mod create;
pub mod diff;
pub mod events;
pub mod exec;
pub mod export;
pub mod image_check;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod logs;
pub mod management;
pub mod network;
pub mod pause;
pub mod port;
pub mod ps;
pub mod pull;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod start;
pub mod stats;
pub mod stop;
pub mod system;
pub mod top;
pub mod unpause;
pub mod update;
pub mod version;
pub mod volume;
pub mod wait;

mod cid_file;
mod interrupt;
mod streams;

use management::{Container, Image};
use runtime::Engine;
use serde_json::{Map, Value};

use crate::args::format::ListingArgs;
use crate::args::{Command, Global};
use crate::config::Config;
use crate::failure::{Failure, Verb};
use crate::output;
use crate::output::listing::{Columns, Listing, ListingError};

/// An exit code, or how it failed.
pub type Answer = Result<i32, Failure>;

/// What every command gets.
pub struct Context {
    pub global: Global,
    pub config: Config,
}

impl Context {
    /// Opens the engine. Root is asked for here, after the words have been understood and before anything is made.
    pub fn engine(&self) -> Result<Engine, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::NeedsRoot);
        }
        Ok(Engine::open(self.global.settings(&self.config))?)
    }
}

pub fn dispatch(command: Command, global: Global) -> Answer {
    let config = Config::load(global.config.as_deref()).map_err(Failure::Refused)?;
    let context = Context { global, config };
    match command {
        Command::Run(options) => run::run(&context, options),
        Command::Create(options) => create::run(&context, options),
        Command::Start(options) => start::run(&context, options),
        Command::Attach(options) => attach::run(&context, options),
        Command::Exec(options) => exec::run(&context, options),
        Command::Ps(options) => ps::run(&context, options),
        Command::Logs(options) => logs::run(&context, options),
        Command::Stop(options) => stop::run(&context, options),
        Command::Kill(options) => kill::run(&context, options),
        Command::Pause(options) => pause::run(&context, options),
        Command::Unpause(options) => unpause::run(&context, options),
        Command::Update(options) => update::run(&context, options),
        Command::Stats(options) => stats::run(&context, options),
        Command::Top(options) => top::run(&context, options),
        Command::Rm(options) => rm::run(&context, options),
        Command::Restart(options) => restart::run(&context, options),
        Command::Rename(options) => rename::run(&context, options),
        Command::Wait(options) => wait::run(&context, options),
        Command::Inspect(options) => inspect::run(&context, options),
        Command::Port(options) => port::run(&context, options),
        Command::Pull(options) => pull::run(&context, options),
        Command::Import(options) => import::run(&context, options),
        Command::Images(options) => images::run(&context, options),
        Command::Rmi(options) => rmi::run(&context, options),
        Command::Network(command) => network::run(&context, command),
        Command::System(command) => system::run(&context, command),
        Command::Volume(command) => volume::run(&context, command),
        Command::Info(options) => info::run(&context, options),
        Command::Version(options) => version::run(&context, options),
        Command::Cp(options) => cp::run(&context, options),
        Command::Diff(options) => diff::run(&context, options),
        Command::Export(options) => export::run(&context, options),
        Command::Commit(options) => commit::run(&context, options),
        Command::Completion(options) => completion::run(&context, options),
        Command::Man(options) => completion::man(&context, options),
        Command::Container(Container::Prune(options)) => container_prune::run(&context, options),
        Command::Container(command) => dispatch(command.plain(), context.global),
        Command::Image(Image::Check(options)) => image_check::run(&context, options),
        Command::Image(command) => dispatch(command.plain(), context.global),
        Command::Events(options) => events::run(&context, options),
    }
}

impl Command {
    pub fn verb(&self) -> Verb {
        match self {
            Command::Run(_) => Verb::Run,
            Command::Create(_) => Verb::Create,
            Command::Exec(_) => Verb::Exec,
            _ => Verb::Other,
        }
    }
}

/// Does the same to each name, goes on after an error, and fails with 1 if any failed.
pub fn each(
    names: &[String],
    mut action: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<i32, Failure> {
    let mut code = 0;
    for name in names {
        if let Err(failure) = action(name) {
            tell(&failure);
            code = 1;
        }
    }
    Ok(code)
}

/// Says on stderr why one of several names failed.
pub fn tell(failure: &Failure) {
    eprintln!("{}", failure.report(Verb::Other).text);
}

/// Whether a failure only says that the object is not there.
pub fn is_not_found(failure: &Failure) -> bool {
    match failure {
        Failure::Engine(error) => error.kind() == runtime::ErrorKind::NotFound,
        _ => false,
    }
}

/// What a request asks of a container's limits that this host cannot do.
pub fn warn(engine: &Engine, request: &runtime::ContainerRequest) -> Result<(), Failure> {
    for warning in engine.warnings(request)? {
        eprintln!("WARNING: {warning}");
    }
    Ok(())
}

/// A listing on stdout; nothing at all where there is not even a heading.
pub fn print_listing(text: &str) -> Result<i32, Failure> {
    if !text.is_empty() {
        output::print(text)?;
    }
    Ok(0)
}

/// Refused templates print their own text, as Docker has it.
pub fn listing(columns: &'static Columns, options: &ListingArgs) -> Result<Listing, Failure> {
    let format = match options.quiet {
        true => "{{.ID}}",
        false => &options.format,
    };
    parse_listing(columns, format)
}

/// Where the bare rows of `-q` are not IDs, the caller says what they are.
pub fn parse_listing(columns: &'static Columns, format: &str) -> Result<Listing, Failure> {
    Listing::parse(columns, format).map_err(|error| listing_failure(&error))
}

pub fn print_rows(listing: &Listing, rows: &[Map<String, Value>]) -> Answer {
    let text = listing
        .render(rows)
        .map_err(|error| listing_failure(&error))?;
    print_listing(&text)
}

pub fn listing_failure(error: &ListingError) -> Failure {
    Failure::Plain {
        text: error.to_string(),
        code: 1,
    }
}

/// An image by name or ID; what is no reference at all names none.
pub fn find_image(engine: &mut Engine, name: &str) -> Result<Option<image::Image>, Failure> {
    match engine.find_image(name) {
        Err(error) if error.kind() == runtime::ErrorKind::Invalid => Ok(None),
        other => Ok(other?),
    }
}
