//! The help of the program itself: its commands in the groups and the order that Docker's have. Pure.

use clap::Command;

/// In this order; all others stand in the order of the alphabet.
const COMMON: &[&str] = &[
    "run", "exec", "ps", "pull", "push", "images", "login", "logout", "search", "version", "info",
];

/// Gives the whole program's help its groups. Those below have one list each, which clap makes.
pub fn group(command: Command) -> Command {
    let template = format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{}Global options:\n{{options}}{{after-help}}",
        commands(&command)
    );
    command.help_template(template)
}

fn commands(command: &Command) -> String {
    let mut shown: Vec<&Command> = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .collect();
    shown.sort_by_key(|below| below.get_name());
    let common = COMMON
        .iter()
        .filter_map(|name| shown.iter().find(|below| below.get_name() == *name))
        .copied()
        .collect();
    shown.retain(|below| !COMMON.contains(&below.get_name()));
    let (groups, others) = shown.into_iter().partition(|below| below.has_subcommands());
    [
        ("Common commands", common),
        ("Management commands", groups),
        ("Commands", others),
    ]
    .into_iter()
    .map(|(heading, commands): (&str, Vec<&Command>)| section(heading, &commands))
    .collect()
}

fn section(heading: &str, commands: &[&Command]) -> String {
    let mut text = format!("{heading}:\n");
    for command in commands {
        let about = command.get_about().map(ToString::to_string);
        let about = about.unwrap_or_default();
        text += &format!("  {:<12}{about}\n", command.get_name());
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    /// The names below a heading, in their order.
    fn names<'a>(help: &'a str, heading: &str) -> Vec<&'a str> {
        let lines = help.lines().skip_while(|line| *line != heading).skip(1);
        lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_whitespace().next())
            .collect()
    }

    #[test]
    fn every_command_stands_in_one_group_as_with_docker() {
        let definition = crate::args::definition();
        let help = definition.clone().render_help().to_string();
        let common = names(&help, "Common commands:");
        assert_eq!(common[..4], ["run", "exec", "ps", "pull"], "{help}");
        assert_eq!(
            names(&help, "Management commands:"),
            ["container", "image", "network", "system", "volume"]
        );
        let others = names(&help, "Commands:");
        assert!(others.is_sorted(), "{others:?}");
        let shown = definition.get_subcommands().filter(|c| !c.is_hide_set());
        assert_eq!(common.len() + 5 + others.len(), shown.count(), "{help}");
        assert!(
            help.contains("\nGlobal options:\n") && help.contains("--cert-dir"),
            "{help}"
        );
        assert!(
            help.ends_with("for more information on a command.\n"),
            "{help}"
        );
    }

    #[test]
    fn commands_of_images_and_containers_stand_in_the_order_of_the_alphabet() {
        let definition = crate::args::definition();
        for group in ["container", "image"] {
            let group = definition.find_subcommand(group).expect("a group");
            let shown = group.get_subcommands().filter(|c| !c.is_hide_set());
            let names: Vec<&str> = shown.map(|c| c.get_name()).collect();
            assert!(names.is_sorted(), "{names:?}");
        }
    }
}
