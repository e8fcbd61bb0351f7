//! `pull -a`, and how image commands tell what is not there.

use harness::registry::Access;
use harness::{Host, Registry, images};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        all_tags_of_a_repository_are_pulled,
        "pull --all-tags",
        "pull -a"
    ),
    cell!(
        what_is_no_image_is_told_by_its_name,
        "history",
        "inspect",
        "load",
        "import"
    ),
];

fn all_tags_of_a_repository_are_pulled() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    for tag in ["redis:1", "redis:2"] {
        registry.push(&images::redis_layout(), "7", tag);
    }
    let name = registry.image("redis");
    let told = host.run(&format!("pull --all-tags {name}"));
    for line in ["1: Pulling from redis\n", "2: Pulling from redis\n"] {
        assert!(told.stdout.contains(line), "{told}");
    }
    let end = format!("Status: Downloaded newer image for {name}\n{name}\n");
    assert!(told.stdout.ends_with(&end), "{told}");
    host.run(&format!("image inspect {name}:1 {name}:2"));
    host.run(&format!("pull -aq {name}")).says(&name);
    host.try_run(&format!("pull -a {name}:1"))
        .exits(1)
        .complains("tag can't be used with --all-tags/-a");
    let nope = registry.image("nope");
    host.try_run(&format!("pull -a {nope}"))
        .exits(1)
        .complains(&format!("repository {nope} not found: name unknown"));
}

fn what_is_no_image_is_told_by_its_name() {
    let host = Host::builder().without_image().build();
    for line in ["history nope", "image inspect nope"] {
        host.try_run(line)
            .exits(1)
            .complains("No such image: nope:latest");
    }
    for line in ["load -i /etc/passwd", "import /etc/passwd"] {
        host.try_run(line)
            .exits(1)
            .complains("coracle: /etc/passwd: ");
    }
}
