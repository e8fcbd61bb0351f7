//! A bundle, and the runtime to try on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use harness::{Cmd, Netns, Output, eventually, images};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A bundle with busybox in it, and the runtime's own folder.
pub struct Bench {
    pub folder: TempDir,
    pub netns: Netns,
    pub runtime: PathBuf,
}

/// As an engine writes it: all that `runc spec` has, a program instead of a shell, and the machine's limits left alone.
pub fn config(args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin:/usr/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            },
        },
        "root": { "path": "rootfs" },
        "hostname": "inside",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

impl Bench {
    pub fn new() -> Bench {
        let folder = tempfile::Builder::new()
            .prefix("cco-")
            .tempdir_in(images::scratch_folder())
            .expect("a folder");
        let runtime = folder.path().join("coracle-oci");
        symlink(images::binary(), &runtime).expect("the runtime's own name");
        Bench {
            folder,
            netns: Netns::new(),
            runtime,
        }
    }

    /// Writes a bundle.
    pub fn bundle(&self, name: &str, config: &Value) -> PathBuf {
        let bundle = self.folder.path().join(name);
        let rootfs = bundle.join("rootfs");
        fs::create_dir_all(&rootfs).expect("a folder for a root filesystem");
        Cmd::new("tar")
            .arg("-xf")
            .arg(images::busybox_tar())
            .arg("-C")
            .arg(&rootfs)
            .run()
            .ok();
        let mut config = config.clone();
        // Cgroups that no other test has.
        if config["linux"]["cgroupsPath"].is_null() {
            config["linux"]["cgroupsPath"] = json!(format!("/coracle-oci/{}", self.cgroup(name)));
        }
        fs::write(bundle.join("config.json"), config.to_string()).expect("write config.json");
        bundle
    }

    pub fn cgroup(&self, name: &str) -> String {
        let own = self.folder.path().file_name().unwrap_or_default();
        format!("{}-{name}", own.to_string_lossy())
    }

    pub fn oci(&self, line: &str) -> Output {
        Cmd::new(&self.runtime)
            .arg("--root")
            .arg(self.folder.path().join("state"))
            .args(line.split_whitespace())
            .run_in(&self.netns)
    }

    /// `create`, whose container keeps the streams that it was given: those of a file, as an engine's log.
    pub fn create(&self, name: &str, options: &str) -> Output {
        let script = "out=$1; shift; exec \"$@\" </dev/null >\"$out\" 2>&1";
        let out = self.folder.path().join(format!("{name}.out"));
        let created = Cmd::new("sh")
            .args(["-c", script, "sh"])
            .arg(&out)
            .arg(&self.runtime)
            .arg("--root")
            .arg(self.folder.path().join("state"))
            .args(["create", "--bundle"])
            .arg(self.folder.path().join(name))
            .args(options.split_whitespace())
            .arg(name)
            .run_in(&self.netns);
        // Its own words are in the file, too.
        Output {
            stderr: self.out(name),
            ..created
        }
    }

    pub fn out(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{name}.out"))).unwrap_or_default()
    }

    pub fn state(&self, name: &str) -> Value {
        self.oci(&format!("state {name}")).ok().json()
    }

    pub fn until_stopped(&self, name: &str) {
        eventually("it is stopped", || {
            match self.state(name)["status"].as_str() {
                Some("stopped") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Creates, starts, waits for the end and deletes; what the program has written.
    pub fn run(&self, name: &str, config: &Value) -> String {
        self.bundle(name, config);
        self.create(name, "").ok();
        self.oci(&format!("start {name}")).ok();
        self.until_stopped(name);
        self.oci(&format!("delete {name}")).ok();
        self.out(name)
    }

    pub fn assert_gone(&self, name: &str) {
        assert!(!self.folder.path().join("state").join(name).exists());
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        for hierarchy in hierarchies.map(|entry| entry.path()) {
            let left = hierarchy.join("coracle-oci").join(self.cgroup(name));
            assert!(!left.exists(), "{}", left.display());
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for line in self.oci("list -q").stdout.lines() {
            self.oci(&format!("delete --force {line}"));
        }
    }
}
