//! The power fails: what was on the disk at some moment is all there is. Copies of the state folder are taken while containers are created, run,
//! are restarted and removed; then each is looked at as the next boot finds it.
//!
//! And the database while somebody writes: who only reads never waits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::images::PAGE;
use harness::{Cmd, Host, Netns, Output, eventually, net};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const COPIES: usize = 3;

/// Copies that may be thrown away, each because the log was emptied into the database just then: see [`copy`].
const SPOILT: usize = 20;

/// The names of containers that a command has reported as created, and of which no removal has begun.
type Promised = Mutex<BTreeSet<String>>;

#[test]
fn after_a_power_loss_everything_that_was_promised_is_there() {
    let host = Host::new();
    if host.is_docker() {
        return; // It keeps its state in its own way.
    }
    populate(&host);
    let seed = rand::rng().random_range(0..1_000_000);
    println!("seed {seed}");
    let (promised, over) = (Promised::default(), AtomicBool::new(false));
    let copies: Vec<(PathBuf, BTreeSet<String>)> = std::thread::scope(|scope| {
        for number in 0..3 {
            let (host, promised, over) = (&host, &promised, &over);
            scope.spawn(move || disturb(host, number, promised, over));
        }
        let mut random = StdRng::seed_from_u64(seed);
        let mut copies = Vec::new();
        for attempt in 0..COPIES + SPOILT {
            if copies.len() == COPIES {
                break;
            }
            std::thread::sleep(Duration::from_millis(random.random_range(200..1500)));
            copies.extend(copy(&host, &promised, attempt));
        }
        over.store(true, Ordering::Relaxed);
        copies
    });
    assert_eq!(copies.len(), COPIES, "too many copies are spoilt");
    kill_everything(&host);
    let root = host.root();
    let original = host.folder().join("original");
    fs::rename(&root, &original).unwrap();
    let before = contents(&original.join("coracle.db"));
    for (number, (copy, promised)) in copies.into_iter().enumerate() {
        fs::rename(&copy, &root).unwrap();
        fs::remove_dir_all(host.run_root()).unwrap_or_default();
        println!(
            "copy {number}: {} containers of the disturbance",
            promised.len()
        );
        NextBoot::new(&host, number).check(&promised);
        fs::remove_dir_all(&root).unwrap();
    }
    assert_eq!(contents(&original.join("coracle.db")), before);
    fs::rename(&original, &root).unwrap();
}

/// One of each kind, to be found again.
fn populate(host: &Host) {
    host.run("volume create data");
    host.run("run --rm -v data:/data busybox sh -c echo${IFS}kept>/data/file");
    host.run("run -d --name keeper --restart always -p 8081:80 busybox httpd -f -p 80 -h /www");
    host.run("run -d --name plain -p 8080:80 busybox sleep 1000");
    host.run("run -d --name passing --rm busybox sleep 1000");
    host.try_run("run --name ended -v data:/data busybox sh -c exit${IFS}3")
        .exits(3);
    host.run("create --name waiting busybox true");
    host.run("run -d --name unwanted --restart unless-stopped busybox sleep 1000");
    host.run("stop -t 0 unwanted");
}

/// Creates, runs, restarts and removes until it is over.
fn disturb(host: &Host, number: usize, promised: &Promised, over: &AtomicBool) {
    let promise = |name: &str| promised.lock().unwrap().insert(name.to_owned());
    for round in 0.. {
        let name = format!("d{number}-{round}");
        host.run(&format!(
            "run -d --restart always --name {name} -v {name}:/data busybox sleep 1000"
        ));
        promise(&name);
        let created = format!("{name}-created");
        host.run(&format!("create --name {created} busybox true"));
        promise(&created);
        host.run(&format!("restart -t 0 {name}"));
        if over.load(Ordering::Relaxed) {
            return;
        }
        for name in [&name, &created] {
            promised.lock().unwrap().remove(name);
            host.run(&format!("rm -f {name}"));
        }
    }
}

/// A copy as the power's loss leaves it, and the names that must be in it: first the database with its log, of one moment as on one disk, then what
/// has come and gone since. `None`: the log was emptied into the database between the two.
fn copy(host: &Host, promised: &Promised, attempt: usize) -> Option<(PathBuf, BTreeSet<String>)> {
    let to = host.folder().join(format!("copy-{attempt}"));
    fs::create_dir(&to).unwrap();
    let before = promised.lock().unwrap().clone();
    let database = host.root().join("coracle.db");
    let was = contents(&database);
    for name in ["coracle.db", "coracle.db-wal"] {
        fs::copy(host.root().join(name), to.join(name)).unwrap();
    }
    if contents(&database) != was {
        fs::remove_dir_all(&to).unwrap();
        return None;
    }
    let rest = fs::read_dir(host.root()).unwrap().flatten();
    let rest = rest.filter(|entry| {
        !entry
            .file_name()
            .to_string_lossy()
            .starts_with("coracle.db")
    });
    for entry in rest {
        // Files come and go meanwhile: of these it complains.
        Cmd::new("cp").arg("-a").arg(entry.path()).arg(&to).run();
    }
    let after = promised.lock().unwrap().clone();
    Some((to, before.intersection(&after).cloned().collect()))
}

fn contents(path: &Path) -> Vec<u8> {
    fs::read(path).expect("the database")
}

/// At once, as the power does: no monitor sees an end.
fn kill_everything(host: &Host) {
    let kill = |pid: u32| {
        let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    };
    let ids: Vec<String> = fs::read_dir(host.root().join("containers"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    eventually("all processes are dead", || {
        host.monitors().into_iter().for_each(kill);
        let theirs: Vec<u32> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                ids.iter().any(|id| cgroup.contains(id))
            })
            .collect();
        theirs.iter().copied().for_each(kill);
        match host.monitors().is_empty() && theirs.is_empty() {
            true => Ok(()),
            false => Err(format!("{theirs:?}")),
        }
    });
}

/// The machine after the boot: no processes of ours, another boot's number, an empty network.
struct NextBoot<'a> {
    host: &'a Host,
    boot_id: PathBuf,
    network: Netns,
}

impl NextBoot<'_> {
    fn new(host: &Host, number: usize) -> NextBoot<'_> {
        let boot_id = host.folder().join(format!("boot_id-{number}"));
        fs::write(&boot_id, format!("00000000-1111-2222-3333-{number:012}\n")).unwrap();
        let network = Netns::new();
        network.ip("link set lo up\nlink add eth0 type bridge\naddr add 192.0.2.1/24 dev eth0\nlink set eth0 up\nroute add default via 192.0.2.254\n");
        NextBoot {
            host,
            boot_id,
            network,
        }
    }

    fn try_run(&self, line: &str) -> Output {
        let mount = format!(
            "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
            self.boot_id.display()
        );
        let command = self.host.command(line.split_whitespace()).wrapped_in(
            "unshare",
            ["-m", "--propagation", "private", "sh", "-c", &mount, "sh"],
        );
        let output = command.run_in(&self.network);
        self.host.look_for_ids();
        output
    }

    #[track_caller]
    fn run(&self, line: &str) -> Output {
        self.try_run(line).ok()
    }

    fn names(&self, line: &str) -> BTreeSet<String> {
        let output = self.run(&format!("{line} --format {{{{.Names}}}}"));
        output.stdout.lines().map(str::to_owned).collect()
    }

    fn is(&self, name: &str, state: &str) {
        let line = format!("inspect -f {{{{.State.Status}}}}/{{{{.State.ExitCode}}}} {name}");
        self.run(&line).says(state);
    }

    fn check(&self, promised: &BTreeSet<String>) {
        // Nothing runs before it is started, and everybody who ran has ended unseen.
        assert_eq!(self.names("ps"), BTreeSet::new());
        let all = self.names("ps -a");
        let lost: Vec<_> = promised.difference(&all).collect();
        assert!(lost.is_empty(), "lost: {lost:?}, there: {all:?}");
        assert!(!all.contains("passing"), "--rm is kept");
        for name in ["keeper", "plain"] {
            self.is(name, "exited/255");
        }
        self.is("ended", "exited/3");
        self.is("waiting", "created/0");
        self.is("unwanted", "exited/137");
        for name in promised.iter().filter(|name| name.ends_with("-created")) {
            self.is(name, "created/0");
        }
        for name in &all {
            self.run(&format!("inspect {name}"));
        }
        for line in [
            "images",
            "volume ls",
            "network ls",
            "logs keeper",
            "diff plain",
            "system rules",
        ] {
            self.run(line);
        }
        self.check_starts(promised);
        self.check_that_nothing_is_taken();
        for name in self.names("ps -a") {
            self.run(&format!("rm -f -v {name}"));
        }
        self.run("ps -aq").says("");
        self.run("system down");
    }

    /// What its policy wants, and nothing else.
    fn check_starts(&self, promised: &BTreeSet<String>) {
        self.run("system up");
        let up = self.names("ps");
        let disturbers = promised.iter().filter(|name| !name.ends_with("-created"));
        for name in disturbers.map(String::as_str).chain(["keeper"]) {
            assert!(up.contains(name), "{name} does not run: {up:?}");
        }
        // Of the others, only some of the disturbance may.
        let others = up
            .iter()
            .find(|name| *name != "keeper" && !name.starts_with('d'));
        assert_eq!(others, None, "they were not to run");
        let page = eventually("keeper serves after the boot", || {
            net::http_get(&self.network, "192.0.2.1:8081")
        });
        assert_eq!(page, PAGE);
    }

    /// Ports, addresses and names of who does not run, or is no more.
    fn check_that_nothing_is_taken(&self) {
        let file = self.run("run --rm -v data:/data busybox cat /data/file");
        file.says("kept");
        self.run("run -d --name passing -p 8080:80 busybox sleep 1000");
        self.try_run("start plain")
            .exits(1)
            .complains("port is already allocated");
        self.run("rm -f passing");
        self.run("start plain");
        self.run("exec plain true");
        self.try_run("start -a ended").exits(3);
        self.run("start -a waiting");
        let running = self.names("ps").len();
        let addresses = "network inspect -f {{range.Containers}}{{.IPv4Address}},{{end}} bridge";
        let addresses = self.run(addresses);
        let addresses: Vec<&str> = addresses.text().split_terminator(',').collect();
        let distinct: BTreeSet<&str> = addresses.iter().copied().collect();
        assert_eq!(
            (addresses.len(), distinct.len()),
            (running, running),
            "{addresses:?}"
        );
    }
}

#[test]
fn who_only_reads_never_waits_for_a_writer() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    host.run("run -d --name one busybox sh -c echo${IFS}hello;exec${IFS}sleep${IFS}1000");
    eventually("it has said hello", || {
        let logs = host.run("logs one");
        if logs.text() == "hello" {
            Ok(())
        } else {
            Err(logs)
        }
    });
    host.run("create --name two busybox true");
    let writer = rusqlite::Connection::open(host.root().join("coracle.db")).unwrap();
    writer
        .execute_batch("BEGIN IMMEDIATE; UPDATE containers SET name = 'other' WHERE name = 'two'")
        .unwrap();
    // A command that waited would do so for a minute.
    let soon = |line: &str| {
        let command = host.command(line.split_whitespace());
        command
            .limit(Duration::from_secs(20))
            .run_in(&host.netns)
            .ok()
    };
    let lines = [
        "ps",
        "ps -a",
        "ps -as",
        "inspect one",
        "logs one",
        "top one",
        "stats --no-stream one",
        "port one",
        "diff one",
        "images",
        "inspect busybox",
        "network ls",
        "network inspect bridge",
        "volume ls",
        "events --since 1h --until 0s",
        "info",
        "version",
        "system rules",
    ];
    for line in lines {
        let output = soon(line);
        assert!(!output.stderr.contains("WARNING"), "{output}");
    }
    soon("ps -a --format {{.Names}}").says("two\none");
    // Who writes waits, and then does it.
    let rename = host
        .command(["rename", "two", "three"])
        .spawn_in(&host.netns);
    std::thread::sleep(Duration::from_millis(100));
    writer.execute_batch("ROLLBACK").unwrap();
    rename.wait().ok();
    host.run("ps -a --format {{.Names}}").says("three\none");
    println!("{} commands read", lines.len());
}
