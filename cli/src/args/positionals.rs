//! What the words of a command line stand for that are no flags, by their names: the same in every command. Pure.

use clap::{Arg, Command};

/// Describes, in a command and in all below it, the words that say nothing of themselves.
pub fn describe(command: Command) -> Command {
    command.mut_args(describe_one).mut_subcommands(describe)
}

fn describe_one(arg: Arg) -> Arg {
    if !arg.is_positional() || arg.get_help().is_some() {
        return arg;
    }
    let names = arg.get_value_names().unwrap_or_default();
    match names.first().and_then(|name| meaning(name)) {
        Some(text) => arg.help(text),
        None => arg,
    }
}

fn meaning(name: &str) -> Option<&'static str> {
    let text = match name {
        "CONTAINER" => "A container: its name, its ID or the beginning of it",
        "NEW_NAME" => "The container's name from now on",
        "IMAGE" => "An image: its name and tag, its ID or the beginning of it",
        "SOURCE_IMAGE[:TAG]" => {
            "An image that is here: its name and tag, its ID or the beginning of it"
        }
        "TARGET_IMAGE[:TAG]" => "The name that it has from now on, too",
        "TERM" => "How the names begin",
        "NETWORK" => "A network: its name, its ID or the beginning of it",
        "VOLUME" => "A volume: its name",
        "NAME|ID" => "A container, image, network or volume: its name or ID",
        "NAME" => "The image: NAME[:TAG] or NAME@DIGEST",
        "REPOSITORY[:TAG]" => "The image's name",
        "FILE" => "The archive, or - for stdin",
        "PORT[/PROTO]" => "A port of the container, tcp if nothing else is said",
        "SRC_PATH" => "What is copied: CONTAINER:PATH, PATH, or - for an archive on stdin",
        "DEST_PATH" => "Where to: CONTAINER:PATH, PATH, or - for an archive on stdout",
        "COMMAND" => "The program",
        "ARG" => "What the program is given",
        "SERVER" => "A registry: HOST[:PORT]; docker.io if it is left out",
        "SHELL" => "bash, zsh or fish",
        "DIR" => "The folder, which is made if it is not there",
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a command, and of all below it, that nothing is said of.
    fn silent(command: &Command, above: &str, found: &mut Vec<String>) {
        let name = format!("{above} {}", command.get_name());
        let words = command.get_positionals().filter(|arg| !arg.is_hide_set());
        let dumb = words.filter(|arg| arg.get_help().is_none());
        found.extend(dumb.map(|arg| format!("{name}: {}", arg.get_id())));
        for below in command.get_subcommands() {
            silent(below, &name, found);
        }
    }

    #[test]
    fn every_word_of_every_command_is_described() {
        let mut found = Vec::new();
        silent(&crate::args::definition(), "", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }
}
