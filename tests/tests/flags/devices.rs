//! Devices of the host in a container, and what an image has under /dev.

use std::fs;
use std::os::unix::fs::MetadataExt;

use harness::Host;

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(a_device_is_there_with_its_permissions, "run --device"),
    cell!(a_device_that_is_none_is_refused, "run --device"),
    cell!(
        a_device_rule_opens_what_is_made_by_hand,
        "run --device-cgroup-rule"
    ),
    cell!(
        links_of_an_image_under_dev_do_not_lead_a_terminal_out,
        "run --tty"
    ),
];

/// A device that no default rule opens: of the usual ones any that is there.
fn some_device() -> &'static str {
    let names = ["/dev/loop-control", "/dev/fuse", "/dev/hpet", "/dev/rtc0"];
    let device = names.into_iter().find(|path| fs::exists(path).unwrap());
    device.expect("some device of the host")
}

fn a_device_is_there_with_its_permissions() {
    let host = Host::new();
    let device = some_device();
    let try_both = "[ -c /dev/x ] && exec 3</dev/x && echo read; exec 4>/dev/x && echo write";
    let run = |options: &[&str]| {
        let line = [
            &["run", "--rm"],
            options,
            &["busybox", "sh", "-c", try_both],
        ]
        .concat();
        host.coracle(line)
    };
    run(&["--device", &format!("{device}:/dev/x:r")])
        .exits(1)
        .says("read")
        .complains("Operation not permitted");
    run(&["--device", &format!("{device}:/dev/x")])
        .ok()
        .says("read\nwrite");
    // The container's permissions alone are a short form.
    host.coracle([
        "run",
        "--rm",
        "--device",
        "/dev/zero:r",
        "busybox",
        "head",
        "-c",
        "1",
        "/dev/zero",
    ])
    .ok();
    // A folder stands for what is in it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let node = folder.path().join("deep/n");
    fs::create_dir(folder.path().join("deep")).unwrap();
    harness::Cmd::new("mknod")
        .arg(&node)
        .args(["c", "1", "5"])
        .run()
        .ok();
    host.coracle([
        "run",
        "--rm",
        "--device",
        &format!("{path}:/dev/some"),
        "busybox",
        "stat",
        "-c",
        "%t %T",
        "/dev/some/deep/n",
    ])
    .ok()
    .says("1 5");
    // And a link for what it leads to.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    host.coracle([
        "run",
        "--rm",
        "--device",
        &format!("{}:/dev/y", link.display()),
        "busybox",
        "stat",
        "-c",
        "%t %T",
        "/dev/y",
    ])
    .ok()
    .says("1 3");
    // A command that is run later has them too.
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "--device",
        &format!("{device}:/dev/x:r"),
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    host.coracle(["exec", "c1", "sh", "-c", try_both])
        .exits(1)
        .says("read");
}

fn a_device_that_is_none_is_refused() {
    let host = Host::new();
    let check = |device: &str, code: i32, why: &str| {
        host.coracle(["run", "--rm", "--device", device, "busybox", "true"])
            .exits(code)
            .complains(why);
    };
    let gathering = "error gathering device information while adding custom device";
    check(
        "/dev/nosuch",
        127,
        &format!("{gathering} \"/dev/nosuch\": no such file or directory"),
    );
    check(
        "/etc/passwd",
        125,
        &format!("{gathering} \"/etc/passwd\": not a device node"),
    );
    check("/dev/null:/dev/x:q", 125, "bad mode specified: q");
    check(
        "/dev/null:/dev/x:rw:z",
        125,
        "bad format for path: /dev/null:/dev/x:rw:z",
    );
    check(":/dev/x", 125, "bad format for path: :/dev/x");
    check("dev/null", 125, "dev/null is not an absolute path");
    check("/dev/null:rwmx", 125, "rwmx is not an absolute path");
    if !host.is_docker() {
        check("/dev/null:/opt/x", 125, "must be below /dev");
        check("/dev/null:/dev/../etc/x", 125, "must be below /dev");
    }
    assert_eq!(host.ids(), [""; 0]);
}

fn a_device_rule_opens_what_is_made_by_hand() {
    let host = Host::new();
    let number = fs::metadata(some_device()).unwrap().rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let opens = |mode: &str| format!("mknod /m c {major} {minor} && exec 3{mode}/m && echo opened");
    let run_script = |script: &str, rules: &[&str]| {
        let options = rules.iter().flat_map(|rule| ["--device-cgroup-rule", rule]);
        let line: Vec<_> = ["run", "--rm"]
            .into_iter()
            .chain(options)
            .chain(["busybox", "sh", "-c", script])
            .collect();
        host.coracle(line)
    };
    let run = |rules: &[&str]| run_script(&opens("<"), rules);
    let one = |text: &str| {
        text.replace("MAJOR", &major.to_string())
            .replace("MINOR", &minor.to_string())
    };
    for rule in [
        "c MAJOR:MINOR r",
        "c MAJOR:* rmw",
        "c *:* r",
        "c *:MINOR rwm",
        "a *:* rwm",
    ] {
        run(&[&one(rule)]).ok().says("opened");
    }
    run(&["b 8:* r", &one("c MAJOR:MINOR r")])
        .ok()
        .says("opened");
    // Not every device can be both, but who is refused is told so first.
    let both = [one("c MAJOR:* r"), one("c MAJOR:* w")];
    let both = run_script(&opens("<>"), &[&both[0], &both[1]]);
    assert!(!both.stderr.contains("not permitted"), "{both}");
    for rule in ["c MAJOR:MINOR w", "c 2:* rwm", "b MAJOR:MINOR rwm"] {
        run(&[&one(rule)])
            .exits(1)
            .complains("Operation not permitted");
    }
    run(&[]).exits(1).complains("Operation not permitted");
    for bad in ["x 1:1 r", "c 1:1", "c a:1 r", "c 1:1 z", "c 1:1 rwmr"] {
        run(&[bad]).exits(125).complains(&format!(
            "invalid argument \"{bad}\" for \"--device-cgroup-rule\" flag: invalid device cgroup format '{bad}'"
        ));
    }
}

fn links_of_an_image_under_dev_do_not_lead_a_terminal_out() {
    let host = Host::new();
    let outside = host.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    for name in ["console", "ptmx", "pts", "null", "tty"] {
        let root = tempfile::tempdir().unwrap();
        harness::Cmd::new("tar")
            .arg("-C")
            .arg(root.path())
            .arg("-xf")
            .arg(harness::images::busybox_tar())
            .run()
            .ok();
        let at = root.path().join("dev").join(name);
        std::os::unix::fs::symlink(outside.join("file"), &at).unwrap();
        let tar = host.folder().join("hostile.tar");
        harness::images::pack(root.path(), &tar);
        host.coracle(["import".as_ref(), tar.as_os_str(), "hostile".as_ref()])
            .ok();
        let output = host.try_run("run --rm -t hostile tty");
        assert_eq!(output.ok().text(), "/dev/pts/0", "{name}");
        assert_eq!(
            fs::read_to_string(outside.join("file")).unwrap(),
            "untouched",
            "{name}"
        );
    }
}
