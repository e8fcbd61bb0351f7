//! Docker's two spellings of a command, `run` and `container run`: each is there if the other is, with the same flags.

use crate::cell::Cell;
use crate::table::{docker, help};

pub const CELLS: &[Cell] = &[crate::cell!(
    every_command_is_there_in_both_spellings,
    "network ls",
    "volume ls"
)];

/// Docker's groups, each with its commands and their shorter names, as its client 28.2 has them.
const GROUPS: &[(&str, &[(&str, &str)])] = &[
    (
        "container",
        &[
            ("attach", "attach"),
            ("commit", "commit"),
            ("cp", "cp"),
            ("create", "create"),
            ("diff", "diff"),
            ("exec", "exec"),
            ("export", "export"),
            ("kill", "kill"),
            ("logs", "logs"),
            ("ls", "ps"),
            ("pause", "pause"),
            ("port", "port"),
            ("rename", "rename"),
            ("restart", "restart"),
            ("rm", "rm"),
            ("run", "run"),
            ("start", "start"),
            ("stats", "stats"),
            ("stop", "stop"),
            ("top", "top"),
            ("unpause", "unpause"),
            ("update", "update"),
            ("wait", "wait"),
        ],
    ),
    (
        "image",
        &[
            ("build", "build"),
            ("history", "history"),
            ("import", "import"),
            ("load", "load"),
            ("ls", "images"),
            ("pull", "pull"),
            ("push", "push"),
            ("rm", "rmi"),
            ("save", "save"),
            ("tag", "tag"),
        ],
    ),
    ("system", &[("events", "events"), ("info", "info")]),
];

/// Another name of the same command.
const ALIASES: &[(&str, &str)] = &[
    ("container ps", "ps"),
    ("container list", "ps"),
    ("container remove", "rm"),
    ("image list", "images"),
    ("image remove", "rmi"),
    ("network list", "network ls"),
    ("network remove", "network rm"),
    ("volume list", "volume ls"),
    ("volume remove", "volume rm"),
];

fn every_command_is_there_in_both_spellings() {
    let mut wrong = Vec::new();
    let mut compare = |long: &str, short: &str| {
        // `system info` is ours and says other things.
        if help(long) != help(short) && long != "system info" {
            wrong.push(format!(
                "{long}: {:?}\n{short}: {:?}",
                help(long),
                help(short)
            ));
        }
    };
    for (group, commands) in GROUPS {
        for (long, short) in *commands {
            compare(&format!("{group} {long}"), short);
        }
    }
    for (long, short) in ALIASES {
        compare(long, short);
    }
    // What Docker has no group for is no container's or image's business; what is there, is there in one of the two lists.
    let shorts: Vec<&str> = GROUPS
        .iter()
        .flat_map(|(_, commands)| commands.iter().map(|(_, short)| *short))
        .collect();
    for (command, _) in docker() {
        let alone = ["inspect", "version", "login", "logout", "search"];
        let is_group = command.contains(' ') || help(&command).is_none();
        if !is_group && !alone.contains(&command.as_str()) && !shorts.contains(&command.as_str()) {
            wrong.push(format!("{command} has no longer spelling here"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
