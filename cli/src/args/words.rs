//! Where the options of `run`, `create` and `exec` end: at the first word that is none, as with Docker, because what
//! follows the image is the container's own command line. Pure.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Puts `--` before the first word of a command that takes a whole command line. Clap itself can only let such words
/// begin with a dash by letting the first one do so too, and would take `-p80:80` for an image.
pub fn close_options(root: &Command, args: &[OsString]) -> Vec<OsString> {
    let mut args = args.to_vec();
    if let Some(at) = first_word(root, &args) {
        args.insert(at, "--".into());
    }
    args
}

/// `help COMMAND` is `COMMAND --help`.
pub fn help_of(root: &Command, args: &[OsString]) -> Vec<OsString> {
    let mut args = args.to_vec();
    if let (command, Some(at)) = walk(root, &args)
        && command.get_name() == root.get_name()
        && args[at] == "help"
    {
        args.remove(at);
        args.push("--help".into());
    }
    args
}

/// The command that `args` lead to, as far as they are understood.
pub fn command<'a>(root: &'a Command, args: &[OsString]) -> &'a Command {
    walk(root, args).0
}

/// The names of the commands that `args` lead through, the innermost last.
pub fn path(root: &Command, args: &[OsString]) -> Vec<String> {
    let mut path = Vec::new();
    walk_through(root, args, |command| {
        path.push(command.get_name().to_owned())
    });
    path
}

fn first_word(root: &Command, args: &[OsString]) -> Option<usize> {
    let (command, at) = walk(root, args);
    let takes_all = command.get_positionals().any(Arg::is_trailing_var_arg_set);
    at.filter(|_| takes_all)
}

/// The command, and where its first word is: `None` where there is no such word, or where an option is unknown: clap says then what is wrong.
fn walk<'a>(root: &'a Command, args: &[OsString]) -> (&'a Command, Option<usize>) {
    walk_through(root, args, |_| {})
}

fn walk_through<'a>(
    root: &'a Command,
    args: &[OsString],
    mut enter: impl FnMut(&Command),
) -> (&'a Command, Option<usize>) {
    let mut command = root;
    let mut at = 1;
    while at < args.len() {
        let text = args[at].to_string_lossy();
        let taken = if text == "--" {
            None
        } else if let Some(option) = text.strip_prefix("--") {
            words_of_long(root, command, option)
        } else if text.len() > 1 && text.starts_with('-') {
            words_of_cluster(root, command, &text[1..])
        } else if let Some(subcommand) = command.find_subcommand(&*text) {
            command = subcommand;
            enter(command);
            Some(1)
        } else {
            return (command, Some(at));
        };
        match taken {
            Some(count) => at += count,
            None => break,
        }
    }
    (command, None)
}

/// How many words `--name`, `--name=value` or `--name value` takes; `None` where it is unknown.
fn words_of_long(root: &Command, command: &Command, option: &str) -> Option<usize> {
    let (name, attached) = match option.split_once('=') {
        Some((name, _)) => (name, true),
        None => (option, false),
    };
    let arg = find(root, command, |arg| has_long(arg, name))?;
    Some(1 + usize::from(takes_next_word(arg) && !attached))
}

/// The same for `-it`, `-p80:80`, `-e A=B`, `-d=true`.
fn words_of_cluster(root: &Command, command: &Command, letters: &str) -> Option<usize> {
    let mut rest = letters.chars();
    while let Some(letter) = rest.next() {
        let arg = find(root, command, |arg| arg.get_short() == Some(letter))?;
        if takes_next_word(arg) {
            return Some(1 + usize::from(rest.as_str().is_empty()));
        }
        if rest.as_str().starts_with('=') {
            break;
        }
    }
    Some(1)
}

/// The command's own option, or a global one.
fn find<'a>(
    root: &'a Command,
    command: &'a Command,
    test: impl Fn(&Arg) -> bool,
) -> Option<&'a Arg> {
    let global = root.get_arguments().filter(|arg| arg.is_global_set());
    command.get_arguments().chain(global).find(|arg| test(arg))
}

fn has_long(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
}

fn takes_next_word(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set()
}
