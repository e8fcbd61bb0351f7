//! An enemy in a container against what works on its files, its volumes and its processes from outside: `cp`, `export`, `rm`,
//! `exec`, filling volumes, and the keys of whoever calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Cmd, Host, Output, images};

/// Far above what a command takes, far below what a hanging one would.
const LIMIT: Duration = Duration::from_secs(60);

/// A host with an image `hostile`: busybox, and `/bin/hostile` (`enemy/hostile.c`).
struct World {
    host: Host,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let world = World {
            host: Host::new(),
            folder,
        };
        let root = world.folder.path().join("root");
        fs::create_dir(&root).expect("a root folder");
        let tar = Cmd::new("tar").arg("-C").arg(&root);
        tar.arg("-xf").arg(images::busybox_tar()).run().ok();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/enemy/hostile.c");
        let compiler = Cmd::new("gcc").args(["-static", "-o"]);
        compiler
            .arg(root.join("bin/hostile"))
            .arg(source)
            .run()
            .ok();
        let tar = world.folder.path().join("image.tar");
        images::pack(&root, &tar);
        let words = ["import".as_ref(), tar.as_os_str(), "hostile".as_ref()];
        world.host.coracle(words).ok();
        world
    }

    /// The same program outside.
    fn program(&self) -> PathBuf {
        self.folder.path().join("root/bin/hostile")
    }

    #[track_caller]
    fn bounded(&self, line: &str) -> Output {
        let command = self.host.command(line.split(' ')).limit(LIMIT);
        command.run_in(&self.host.netns)
    }

    /// By a command that may have as many files open as a login shell's.
    #[track_caller]
    fn with_few_files(&self, line: &str) -> Output {
        let limited = ["-c", "ulimit -n 1024; exec \"$@\"", "sh"];
        let command = self.host.command(line.split(' ')).limit(LIMIT);
        command.wrapped_in("sh", limited).run_in(&self.host.netns)
    }
}

/// Each level is a descriptor and a step of the stack to whoever descends.
#[test]
fn directories_nested_without_end_are_refused_and_removed() {
    let world = World::new();
    world
        .host
        .run("run -d --name enemy -v deep:/deep hostile sleep 1000");
    world.host.run("exec enemy hostile nest /tmp 10000");
    world.host.run("exec enemy hostile nest /deep 10000");
    let out = world.folder.path().join("out");
    for line in [
        "cp enemy:/tmp -",
        &format!("cp enemy:/tmp {}", out.display()),
        "export enemy",
        "diff enemy",
        "commit enemy committed",
    ] {
        let output = world.with_few_files(line).exits(1);
        assert!(output.stderr.contains("nested too deeply"), "{output}");
    }
    world.with_few_files("rm -f enemy").ok();
    world.with_few_files("volume rm deep").ok();
    assert_eq!(world.host.run("volume ls -q").stdout, "");
}

/// Reading /proc/kmsg waits for the kernel to say something, and only the host's root may.
#[test]
fn a_user_is_looked_up_in_nothing_that_blocks_or_is_somebody_elses() {
    let world = World::new();
    world.host.run("run -d --name enemy hostile sleep 1000");
    for script in [
        "ln -s /proc/kmsg /etc/passwd",
        "ln -s /proc/1/environ /etc/passwd",
        "ln -s /dev/zero /etc/passwd",
        "mkfifo /etc/passwd",
        "ln -s passwd /etc/passwd",
        "mkdir /etc/passwd",
    ] {
        let script = format!("rm -rf /etc/passwd; {script}");
        world
            .host
            .coracle(["exec", "enemy", "sh", "-c", &script])
            .ok();
        let output = world.bounded("exec -u nobody-knows enemy true");
        assert!(
            output.stderr.contains("no matching entries in passwd file"),
            "{script}: {output}"
        );
        // By number it needs no entry.
        world.bounded("exec -u 5:6 enemy true").ok();
    }
}

#[test]
fn the_keys_of_the_caller_are_not_in_a_container() {
    let world = World::new();
    let seen_by = |line: &str| {
        let program = world.program();
        let command = world.host.command(line.split(' ')).limit(LIMIT);
        let command = command.wrapped_in(&program.to_string_lossy(), ["with-key"]);
        command.run_in(&world.host.netns).ok().stdout
    };
    let outside = Cmd::new(world.program()).arg("with-key");
    let outside = outside.arg(world.program()).arg("find-key").run();
    assert_eq!(outside.ok().stdout, "found\n", "the key is a key");
    let unconfined = "--security-opt seccomp=unconfined";
    for options in ["--privileged", unconfined, &format!("{unconfined} --init")] {
        let line = format!("run --rm {options} hostile hostile find-key");
        assert_eq!(seen_by(&line), "none\n", "{options}");
    }
    seen_by(&format!("run -d --name c1 {unconfined} hostile sleep 1000"));
    assert_eq!(seen_by("exec c1 hostile find-key"), "none\n");
    assert_eq!(world.host.run("exec c1 hostile find-key").stdout, "none\n");
}

/// Whoever makes /dev for a container removes its `ptmx` and adds links: not in a directory that is mounted there.
#[test]
fn a_bind_on_dev_changes_nothing_of_the_host() {
    let world = World::new();
    let dev = world.folder.path().join("dev");
    fs::create_dir(&dev).expect("a folder");
    for (name, minor) in [("ptmx", "2"), ("tty", "0")] {
        let node = Cmd::new("mknod").arg(dev.join(name));
        node.args(["c", "5", minor]).run().ok();
    }
    for options in ["", " --privileged"] {
        let line = format!(
            "run --rm{options} -v {}:/dev hostile ls /dev",
            dev.display()
        );
        assert_eq!(world.host.run(&line).stdout, "ptmx\ntty\n");
        let mut found: Vec<_> = fs::read_dir(&dev).unwrap().flatten().collect();
        found.sort_by_key(|entry| entry.file_name());
        let names = found.iter().map(|entry| entry.file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["ptmx", "tty"]);
        assert!(
            found
                .iter()
                .all(|entry| !entry.file_type().unwrap().is_symlink())
        );
    }
}
