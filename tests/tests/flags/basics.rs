//! What every user types: `run` with its commonest flags, `exec`, images.

use harness::registry::Access;
use harness::{Host, Registry, eventually, images};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        run_in_the_background_prints_the_id,
        "run",
        "run -d",
        "run --detach"
    ),
    cell!(rm_leaves_nothing, "run --rm"),
    cell!(variables_are_the_images_and_ours, "run -e", "run --env"),
    cell!(the_working_directory_is_made, "run -w", "run --workdir"),
    cell!(the_user_is_found_by_name_or_number, "run -u", "run --user"),
    cell!(the_entrypoint_is_replaced, "run --entrypoint"),
    cell!(labels_are_kept, "run -l", "run --label"),
    cell!(privileged_has_every_device, "run --privileged"),
    cell!(create_does_not_start, "create", "start"),
    cell!(
        exec_runs_beside,
        "exec",
        "exec -d",
        "exec --detach",
        "exec -e",
        "exec --env",
        "exec --env-file",
        "exec -u",
        "exec --user",
        "exec -w",
        "exec --workdir",
        "exec --privileged",
    ),
    cell!(
        pull_and_what_is_there,
        "pull",
        "pull -q",
        "pull --quiet",
        "pull --platform",
        "pull --disable-content-trust",
        "images -a",
        "images --all",
        "images",
        "images -q",
        "images --quiet",
        "images --no-trunc",
        "images --format",
    ),
    cell!(
        rmi_untags_and_deletes,
        "rmi",
        "rmi -f",
        "rmi --force",
        "rmi --no-prune"
    ),
    cell!(
        import_takes_instructions,
        "import",
        "import -c",
        "import --change",
        "import -m",
        "import --message"
    ),
    cell!(
        info_and_version,
        "info",
        "info -f",
        "info --format",
        "version",
        "version -f",
        "version --format"
    ),
];

/// `run` of a shell line in busybox, with these options.
#[track_caller]
fn shell(host: &Host, options: &str, script: &str) -> harness::Output {
    let words = ["run", "--rm"]
        .into_iter()
        .chain(options.split_whitespace());
    host.coracle(words.chain(["busybox", "sh", "-c", script]))
}

/// The short and the long form do the same.
#[track_caller]
fn both(host: &Host, forms: [&str; 2], script: &str, expected: &str) {
    for options in forms {
        shell(host, options, script).ok().says(expected);
    }
}

fn run_in_the_background_prints_the_id() {
    let host = Host::new();
    for flag in ["-d", "--detach"] {
        let id = host
            .run(&format!("run {flag} busybox sleep 1000"))
            .text()
            .to_owned();
        assert!(
            id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(host.inspect(&id)["State"]["Status"], "running");
    }
    host.try_run("run nosuch.test/image:1")
        .exits(125)
        .complains("Unable to find image 'nosuch.test/image:1' locally");
    host.try_run("run")
        .exits(1)
        .complains("requires at least 1 argument");
    host.try_run("run --nosuch busybox")
        .exits(125)
        .complains("unknown flag: --nosuch");
    host.try_run("run --rm busybox /nosuch")
        .exits(127)
        .complains("no such file or directory");
    host.try_run("run --rm busybox nosuch")
        .exits(127)
        .complains("executable file not found in $PATH");
    host.try_run("run --rm busybox /etc")
        .exits(126)
        .complains("is a directory");
    host.try_run("run --rm busybox /etc/passwd")
        .exits(126)
        .complains("permission denied");
}

fn rm_leaves_nothing() {
    let host = Host::new();
    host.try_run("run --rm --name gone busybox false").exits(1);
    host.try_run("inspect gone").exits(1);
    assert!(host.ids().is_empty());
    assert_eq!(
        std::fs::read_dir(host.root().join("containers")).map_or(0, Iterator::count),
        0
    );
}

fn variables_are_the_images_and_ours() {
    let host = Host::new();
    both(
        &host,
        ["-e A=1 -e B=two=2", "--env A=1 --env=B=two=2"],
        "echo $A $B",
        "1 two=2",
    );
    shell(&host, "-e PATH=/bin:/nowhere", "echo $PATH")
        .ok()
        .says("/bin:/nowhere");
    shell(&host, "-e HOSTNAME_OF_NOBODY", "env | grep -c NOBODY")
        .exits(1)
        .says("0");
    shell(&host, "-e =x", "true")
        .exits(125)
        .complains("invalid environment variable: =x");
}

fn the_working_directory_is_made() {
    let host = Host::new();
    both(&host, ["-w /a/b", "--workdir=/a/b"], "pwd", "/a/b");
    shell(&host, "-w relative", "true")
        .exits(125)
        .complains("absolute path");
}

fn the_user_is_found_by_name_or_number() {
    let host = Host::new();
    both(
        &host,
        ["-u web", "--user 1000:1000"],
        "id -u; id -g",
        "1000\n1000",
    );
    shell(&host, "-u 7:nogroup", "id -u; id -g")
        .ok()
        .says("7\n65534");
    shell(&host, "-u nosuch", "true")
        .exits(125)
        .complains("nosuch");
}

fn the_entrypoint_is_replaced() {
    let host = Host::new();
    host.run("run --rm --entrypoint echo busybox a b")
        .says("a b");
    host.run("run --rm --entrypoint= busybox echo c").says("c");
}

fn labels_are_kept() {
    let host = Host::new();
    host.run("create --name labelled -l a=1 --label b busybox true");
    let labels = host.inspect("labelled")["Config"]["Labels"].take();
    assert_eq!(
        (labels["a"].as_str(), labels["b"].as_str()),
        (Some("1"), Some(""))
    );
}

fn privileged_has_every_device() {
    let host = Host::new();
    let script = "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; test -e /dev/loop-control -o -e /dev/fuse -o -e /dev/kmsg && echo devices";
    let text = shell(&host, "--privileged", script).ok().stdout;
    assert!(
        text.contains("Seccomp:\t0") && text.contains("devices"),
        "{text}"
    );
    let usual = shell(
        &host,
        "",
        "grep Seccomp: /proc/self/status; test -e /dev/kmsg || echo none",
    )
    .ok()
    .stdout;
    assert!(
        usual.contains("Seccomp:\t2") && usual.contains("none"),
        "{usual}"
    );
}

fn create_does_not_start() {
    let host = Host::new();
    host.run("create --name later busybox sh -c echo${IFS}ran;sleep${IFS}1000");
    assert_eq!(host.inspect("later")["State"]["Status"], "created");
    host.run("start later").says("later");
    eventually("it has written", || {
        let logs = host.run("logs later");
        if logs.text() == "ran" {
            Ok(())
        } else {
            Err(logs)
        }
    });
    host.try_run("create --name later busybox true")
        .exits(1)
        .complains("is already in use by container");
    host.try_run("start nosuch")
        .exits(1)
        .complains("No such container: nosuch");
}

fn exec_runs_beside() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    let exec = |options: &str, script: &str| {
        let words = ["exec"].into_iter().chain(options.split_whitespace());
        host.coracle(words.chain(["c1", "sh", "-c", script]))
    };
    for options in ["-e A=1", "--env A=1"] {
        exec(options, "echo $A").ok().says("1");
    }
    let file = host.folder().join("env");
    std::fs::write(&file, "# a comment\nFROM_FILE=x\n").unwrap();
    exec(&format!("--env-file {}", file.display()), "echo $FROM_FILE")
        .ok()
        .says("x");
    for options in ["-u web", "--user 1000"] {
        exec(options, "id -u").ok().says("1000");
    }
    for options in ["-w /www", "--workdir /www"] {
        exec(options, "pwd").ok().says("/www");
    }
    // All capabilities that are ours to give; the filter stays, as with runc.
    let status = |options: &str, field: &str| {
        let line = format!("grep {field}: /proc/self/status");
        let found = exec(options, &line).ok().text().to_owned();
        found
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t"));
    assert_eq!(Some(status("--privileged", "CapEff").as_str()), own);
    assert_eq!(status("", "CapEff"), "00000000a80425fb");
    for options in ["", "--privileged"] {
        assert_eq!(status(options, "Seccomp"), "2", "{options}");
    }
    for flag in ["-d", "--detach"] {
        exec(flag, &format!("touch /by{flag}")).ok().says("");
        eventually("the detached command has run", || {
            let found = exec("", &format!("ls /by{flag}"));
            if found.code() == 0 {
                Ok(())
            } else {
                Err(found)
            }
        });
    }
    exec("", "exit 7").exits(7);
    host.try_run("exec c1 nosuch").exits(127);
    host.try_run("exec nosuch true")
        .exits(1)
        .complains("No such container: nosuch");
    host.run("stop -t 0 c1");
    host.try_run("exec c1 true")
        .exits(1)
        .complains("is not running");
}

fn pull_and_what_is_there() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    registry.push(&images::redis_layout(), "7", "redis").ok();
    let name = registry.image("redis");
    for flag in ["-q", "--quiet"] {
        host.run(&format!("pull {flag} {name}"))
            .says(&format!("{name}:latest"));
    }
    let id = host
        .run(&format!("images --no-trunc -q {name}"))
        .text()
        .to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    for flag in ["-a", "--all"] {
        host.run(&format!("images {flag} --no-trunc -q {name}"))
            .says(&id);
    }
    for given in ["", "=true", "=false"] {
        let flag = format!("--disable-content-trust{given}");
        host.run(&format!("pull -q {flag} {name}"));
    }
    host.run(&format!("images --quiet {name}")).says(&id[7..19]);
    host.run("images --format {{.Repository}}:{{.Tag}} busybox")
        .says("busybox:latest");
    let table = host.run("images").stdout;
    assert!(
        table.starts_with("REPOSITORY") && table.contains("IMAGE ID"),
        "{table}"
    );
    host.try_run(&format!("pull --platform linux/s390x {name}"))
        .exits(1)
        .complains("s390x");
    host.try_run(&format!("pull {}", registry.image("nosuch")))
        .exits(1);
    host.try_run("pull UPPER")
        .exits(1)
        .complains("invalid reference format");
}

fn rmi_untags_and_deletes() {
    let host = Host::new();
    host.run("create --name user busybox true");
    host.try_run("rmi busybox").exits(1).complains("is using");
    for flag in ["-f", "--force"] {
        host.try_run(&format!("rmi {flag} nosuch"));
    }
    host.run("rm user");
    assert!(
        host.run("rmi --no-prune busybox")
            .stdout
            .contains("Untagged: busybox:latest")
    );
    host.run("images -q").says("");
    host.try_run("rmi busybox")
        .exits(1)
        .complains("No such image");
}

fn import_takes_instructions() {
    let host = Host::new();
    let tar = images::busybox_tar();
    for (change, message) in [("-c", "-m"), ("--change", "--message")] {
        host.coracle([
            "import",
            change,
            "CMD [\"echo\", \"hello\"]",
            message,
            "from a test",
            &tar.display().to_string(),
            "imported:1",
        ])
        .ok();
        host.run("run --rm imported:1").says("hello");
    }
    host.try_run("import /nosuch.tar").exits(1);
    host.coracle(["import", "-c", "NOSUCH x", &tar.display().to_string()])
        .exits(1);
}

fn info_and_version() {
    let host = Host::new();
    let everything = host.run("info").stdout;
    assert!(everything.contains("Containers: 0"), "{everything}");
    for flag in ["-f", "--format"] {
        host.coracle(["info", flag, "{{.Containers}}"])
            .ok()
            .says("0");
        let version = host.coracle(["version", flag, "{{.Client.Version}}"]).ok();
        assert_eq!(version.text().split('.').count(), 3, "{version}");
    }
    assert!(host.run("version").stdout.contains("OS/Arch:"));
    host.coracle(["info", "-f", "{{.Nosuch}}"]).exits(1);
}
