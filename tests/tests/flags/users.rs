//! Who a container's processes are: users and groups, from the image's own files.

use std::fs;

use harness::Host;

use crate::cell;
use crate::cell::Cell;
use crate::security::status;

pub const CELLS: &[Cell] = &[
    cell!(
        groups_are_added_for_run_and_exec,
        "run --group-add",
        "exec --user"
    ),
    cell!(
        users_go_by_name_number_and_group,
        "run --user",
        "run -u",
        "exec --user",
        "exec -u"
    ),
    cell!(
        no_library_of_the_container_is_loaded_outside_it,
        "run -u",
        "exec -u"
    ),
];

fn groups_are_added_for_run_and_exec() {
    let host = Host::new();
    let groups = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        status(&host, &words, "^Groups:").trim().to_owned()
    };
    assert_eq!(
        groups("run --rm --group-add 12 --group-add web busybox"),
        "Groups=0 12 1000"
    );
    assert_eq!(
        groups("run --rm --group-add 12 -u 5:6 busybox"),
        "Groups=6 12"
    );
    host.run("run -d --name c1 --group-add 12 busybox sleep 1000");
    assert_eq!(groups("exec c1"), "Groups=0 12");
    assert_eq!(groups("exec -u web c1"), "Groups=12 1000");
    for (group, why) in [
        (
            "adm",
            "Unable to find group adm: no matching entries in group file",
        ),
        ("99999999999", "uids and gids must be in range 0-2147483647"),
    ] {
        host.coracle(["run", "--rm", "--group-add", group, "busybox", "true"])
            .exits(125)
            .complains(why);
    }
}

fn users_go_by_name_number_and_group() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    for (user, expect) in [
        ("web", "1000:1000:1000"),
        ("1000", "1000:1000:1000"),
        ("web:0", "1000:0:0"),
        ("web:nogroup", "1000:65534:65534"),
        ("77", "77:0:0"),
        ("77:78", "77:78:78"),
        (":web", "0:1000:1000"),
    ] {
        let script = "echo $(id -u):$(id -g):$(id -G)";
        for flag in ["-u", "--user"] {
            host.coracle(["run", "--rm", flag, user, "busybox", "sh", "-c", script])
                .ok()
                .says(expect);
            host.coracle(["exec", flag, user, "c1", "sh", "-c", script])
                .ok()
                .says(expect);
        }
    }
    for (user, why) in [
        (
            "nosuch",
            "unable to find user nosuch: no matching entries in passwd file",
        ),
        (
            "web:nosuch",
            "unable to find group nosuch: no matching entries in group file",
        ),
    ] {
        host.coracle(["run", "--rm", "-u", user, "busybox", "true"])
            .exits(125)
            .complains(why);
        host.coracle(["exec", "-u", user, "c1", "true"])
            .exits(126)
            .complains(why);
    }
}

/// NSS reads nsswitch.conf and loads what it names. Whoever looks a user up in a container's files must not: the code would run
/// with the host's rights.
fn no_library_of_the_container_is_loaded_outside_it() {
    let host = Host::new();
    let source = host.folder().join("evil.c");
    let library = host.folder().join("libnss_evil.so.2");
    fs::write(
        &source,
        r#"#include <fcntl.h>
#include <stdlib.h>
__attribute__((constructor)) static void ran(void) {
    const char *at = getenv("EVIL_AT");
    open(at ? at : "/evil-ran", O_CREAT | O_WRONLY, 0666);
}"#,
    )
    .unwrap();
    harness::Cmd::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .run()
        .ok();
    // The trap works.
    let marker = host.folder().join("marker");
    harness::Cmd::new("true")
        .env("LD_PRELOAD", &library)
        .env("EVIL_AT", &marker)
        .run()
        .ok();
    assert!(marker.exists(), "the library does nothing");
    let bind = format!("{}:/trap:ro", host.folder().display());
    let script = "mkdir -p /lib /lib64 /usr/lib; for d in /lib /lib64 /usr/lib /lib/x86_64-linux-gnu; do mkdir -p $d; cp /trap/libnss_evil.so.2 $d/; done
printf 'passwd: evil\ngroup: evil\nshadow: evil\nhosts: evil\n' >/etc/nsswitch.conf; echo set; exec sleep 1000";
    host.coracle([
        "run", "-d", "--name", "c1", "-v", &bind, "busybox", "sh", "-c", script,
    ])
    .ok();
    harness::eventually("the trap is set", || {
        let logs = host.run("logs c1");
        if logs.stdout.contains("set") {
            Ok(())
        } else {
            Err(logs)
        }
    });
    for user in ["web", "web:nogroup", "root", "4242"] {
        host.coracle(["exec", "-u", user, "c1", "/bin/true"]).ok();
    }
    host.try_run("exec -u nosuch c1 /bin/true").exits(126);
    host.run("stop -t 0 c1");
    host.run("start c1");
    host.coracle(["exec", "c1", "ls", "/evil-ran"]).exits(1);
    assert!(!fs::exists("/evil-ran").unwrap());
}
