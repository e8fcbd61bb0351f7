//! The disk, or its inodes, run out in the middle of the commands about images, and the power fails in the middle of a pull: a clear
//! message, a whole store, no byte unaccounted for, and the next pull completes.
//!
//! `CORACLE_TEST_SEED` repeats a run, as far as a machine repeats itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use harness::registry::{ADDRESS, Access};
use harness::{Cmd, Host, Output, Registry, Running, Slow, eventually, images, layered, usage};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// More than the images take.
const AMPLE: &str = "size=256m,nr_inodes=100k";

/// ROOT on a tmpfs that only the processes of this disk see.
struct Disk<'a> {
    host: &'a Host,
    /// Holds the mount namespace.
    holder: Running,
}

impl<'a> Disk<'a> {
    fn new(host: &'a Host) -> Disk<'a> {
        let ready = host.folder().join("mounted");
        fs::create_dir_all(host.root()).unwrap();
        let script =
            format!("mount -t tmpfs -o {AMPLE} none \"$1\" && : >\"$2\" && exec sleep 3600");
        let holder = Cmd::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script, "sh"])
            .arg(host.root())
            .arg(&ready)
            .limit(Duration::from_secs(3600))
            .spawn_in(&host.netns);
        eventually("it is mounted", || fs::metadata(&ready));
        Disk { host, holder }
    }

    fn inside(&self, cmd: Cmd) -> Cmd {
        let target = format!("--target={}", self.holder.pid());
        cmd.wrapped_in("nsenter", [target.as_str(), "--mount", "--"])
    }

    fn command(&self, words: &[&str]) -> Cmd {
        self.inside(self.host.command(words))
    }

    fn try_run(&self, line: &str) -> Output {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = self.command(&words).run_in(&self.host.netns);
        self.host.look_for_ids();
        output
    }

    #[track_caller]
    fn run(&self, line: &str) -> Output {
        self.try_run(line).ok()
    }

    /// ROOT, as this process can reach it.
    fn root(&self) -> PathBuf {
        let root = self.host.root();
        let root = root.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.holder.pid())).join(root)
    }

    fn remount(&self, options: &str) {
        let cmd = Cmd::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.host.root());
        self.inside(cmd).run().ok();
    }

    /// Bytes and inodes in use.
    fn used(&self) -> (u64, u64) {
        let stat = nix::sys::statvfs::statvfs(&self.root()).unwrap();
        let bytes = (stat.blocks() - stat.blocks_free()) * stat.fragment_size();
        (bytes, stat.files() - stat.files_free())
    }

    #[track_caller]
    fn check_sum(&self) {
        usage::check_sum(&self.root(), &|line| self.try_run(line));
    }

    #[track_caller]
    fn is_clean(&self, what: &str) {
        let output = self.try_run("image check");
        let is_clean = output.code() == 0 && output.text().ends_with("no problems");
        assert!(is_clean, "{what}: {output}");
    }
}

fn seed() -> u64 {
    let given = std::env::var("CORACLE_TEST_SEED").ok();
    let seed = given.and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("CORACLE_TEST_SEED={seed}");
    seed
}

/// What has failed, as the message has it, and how often.
type Messages = BTreeMap<String, usize>;

/// Commands that take space, on a disk that is too small by chance.
fn fill(what: &str, options: impl Fn(&mut StdRng, (u64, u64), (u64, u64)) -> String) {
    let host = Host::builder().without_image().build();
    if host.is_docker() {
        return;
    }
    let mut random = StdRng::seed_from_u64(seed());
    let registry = Registry::start(&host, Access::Open);
    let images = layered::push(&host, &registry);
    let disk = Disk::new(&host);
    disk.run("images");
    let empty = disk.used();
    for image in &images {
        disk.run(&format!("pull -q {image}"));
    }
    let full = disk.used();
    let archive = host.folder().join("all.tar").display().to_string();
    disk.run(&format!("save -o {archive} {}", images.join(" ")));
    let bytes = fs::read(&archive).unwrap();
    let busybox = images::busybox_tar().display().to_string();
    let mut messages = Messages::new();
    let mut fine = 0;
    for round in 0..ROUNDS {
        disk.run("system prune -af --volumes");
        let with_container = random.random_ratio(1, 4);
        if with_container {
            let script = "i=0; while [ $i -lt 300 ]; do i=$((i + 1)); head -c 2000 /dev/urandom >/new-$i; done";
            let words = [
                "run",
                "--name",
                "changes",
                "--network",
                "none",
                &images[2],
                "sh",
                "-c",
                script,
            ];
            disk.command(&words).run_in(&host.netns).ok();
        }
        let now = disk.used();
        let options = options(&mut random, now, (full.0 - empty.0, full.1 - empty.1));
        disk.remount(&options);
        let number = *[1, 1, 2, 3].choose(&mut random).unwrap();
        let mut running = Vec::new();
        for i in 0..number {
            let image = images.choose(&mut random).unwrap().as_str();
            let pull = vec!["pull", image];
            let words = match random.random_range(0..6) {
                _ if with_container && i == 0 => vec!["commit", "changes", "changed:1"],
                0 => vec!["load", "-i", &archive],
                1 => vec!["load"],
                2 => vec!["import", &busybox, "mine:1"],
                3 => vec!["run", "--rm", "--network", "none", image],
                _ => pull,
            };
            let mut command = disk.command(&words);
            if words == ["load"] {
                command = command.stdin(&bytes);
            }
            let is_killed = number > 1 && random.random_ratio(1, 3);
            running.push((
                words[0].to_owned(),
                is_killed,
                command.spawn_in(&host.netns),
            ));
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
        for (_, _, victim) in running.iter().filter(|(_, is_killed, _)| *is_killed) {
            let _ = killpg(Pid::from_raw(victim.pid().cast_signed()), Signal::SIGKILL);
        }
        for (verb, _, one) in running {
            let output = one.wait();
            host.look_for_ids();
            if output.status.signal() == Some(Signal::SIGKILL as i32) {
                continue;
            }
            let context = format!("{what}, round {round}, {options}");
            match output.code() {
                0 => fine += 1,
                _ => *messages.entry(judge(&context, &verb, &output)).or_default() += 1,
            }
        }
        // The check has to do with what there is.
        let left = disk.try_run("ps -aq");
        assert_eq!(left.code(), 0, "{left}");
        disk.check_sum();
        disk.remount(AMPLE);
        disk.check_sum();
        for id in disk.run("ps -aq").stdout.lines() {
            disk.run(&format!("rm -f {id}"));
        }
        if round % 4 == 0 {
            disk.run("system prune -af --volumes");
            usage::check_nothing_is_left(&disk.root());
        }
        for image in &images {
            disk.run(&format!("pull -q {image}"));
        }
        disk.is_clean(&format!("{what}, round {round}, {options}"));
        disk.check_sum();
    }
    println!("{fine} fitted; {messages:#?}");
    let failed: usize = messages.values().sum();
    assert!(failed >= ROUNDS / 3, "only {failed} have failed");
    disk.run("run --rm --network none 127.0.0.1:5000/a:1");
    disk.run("system prune -af --volumes");
    usage::check_nothing_is_left(&disk.root());
    disk.run("system down");
}

const ROUNDS: usize = 12;

/// A failure says that there is no space, of which layer it was where it was one, and what to do. Its kind.
fn judge(context: &str, verb: &str, output: &Output) -> String {
    let code = if verb == "run" { 125 } else { 1 };
    assert_eq!(output.code(), code, "{context}: {output}");
    let text = output.stderr.to_lowercase();
    assert!(!text.contains("panicked"), "{context}: {output}");
    let says = |word: &str| text.contains(word);
    let is_told = says("no space left") || says("not enough space") || says("disk is full");
    let last = output.stderr.trim().lines().last().unwrap_or_default();
    assert!(is_told, "{context}: {output}");
    assert!(
        says("remove images") || says("make room"),
        "{context}: what to do? {output}"
    );
    let kind: String = last
        .chars()
        .filter(|c| !c.is_ascii_digit())
        .take(90)
        .collect();
    format!("{verb}: {kind}")
}

#[test]
fn a_disk_that_runs_full_in_the_middle_leaves_a_whole_store() {
    fill("bytes", |random, now, taken| {
        let more = random.random_range(0..taken.0);
        format!("size={},nr_inodes=100k", now.0 + more)
    });
}

#[test]
fn a_disk_without_inodes_in_the_middle_leaves_a_whole_store() {
    fill("inodes", |random, now, taken| {
        let more = random.random_range(0..taken.1);
        format!("size=256m,nr_inodes={}", now.1 + more)
    });
}

/// What was on the disk at some moment of a pull is all there is.
#[test]
fn after_a_power_loss_in_the_middle_of_a_pull_the_next_one_completes() {
    const COPIES: usize = 8;
    let host = Host::builder().without_image().build();
    if host.is_docker() {
        return;
    }
    let mut random = StdRng::seed_from_u64(seed());
    let registry = Registry::start(&host, Access::Open);
    let images = layered::push(&host, &registry);
    let slow = Slow::start(&host.netns, ADDRESS, Duration::from_millis(4));
    host.run("images");
    let mut copies = Vec::new();
    for number in 0..COPIES {
        host.run("system prune -af");
        let image = images[number % 4].replace(ADDRESS, &slow.address);
        let other = images[(number + 1) % 4].clone();
        let pulls = [vec!["pull", &image], vec!["pull", &other]];
        let pulls = pulls.map(|words| host.command(words).spawn_in(&host.netns));
        std::thread::sleep(Duration::from_millis(random.random_range(20..500)));
        copies.extend(copy(&host, number));
        for pull in pulls {
            pull.wait().ok();
        }
    }
    println!("{} copies", copies.len());
    assert!(copies.len() > COPIES / 2, "too many copies are spoilt");
    let (root, original) = (host.root(), host.folder().join("original"));
    fs::rename(&root, &original).unwrap();
    for copy in copies {
        fs::rename(&copy, &root).unwrap();
        fs::remove_dir_all(host.run_root()).unwrap_or_default();
        usage::check_sum(&root, &|line| host.try_run(line));
        let there = host.run("images -q").stdout.lines().count();
        for image in &images {
            host.run(&format!("pull -q {image}"));
        }
        let output = host.run("image check");
        assert!(output.text().ends_with("no problems"), "{output}");
        usage::check_sum(&root, &|line| host.try_run(line));
        host.run(&format!("run --rm --network none {}", images[3]));
        host.run("system prune -af --volumes");
        usage::check_nothing_is_left(&root);
        host.run("system down");
        println!("{} had {there} images", copy.display());
        fs::remove_dir_all(&root).unwrap();
    }
    fs::rename(&original, &root).unwrap();
}

/// First the database with its log, of one moment as on one disk, then the rest, which may have come since. `None`: the log was emptied into
/// the database between the two.
fn copy(host: &Host, number: usize) -> Option<PathBuf> {
    let to = host.folder().join(format!("copy-{number}"));
    fs::create_dir(&to).unwrap();
    let database = host.root().join("coracle.db");
    let was = fs::read(&database).unwrap();
    for name in ["coracle.db", "coracle.db-wal"] {
        let _ = fs::copy(host.root().join(name), to.join(name));
    }
    if fs::read(&database).unwrap() != was {
        return None;
    }
    for entry in fs::read_dir(host.root()).unwrap().flatten() {
        if !entry
            .file_name()
            .to_string_lossy()
            .starts_with("coracle.db")
        {
            // Files come and go meanwhile: of these it complains.
            Cmd::new("cp").arg("-a").arg(entry.path()).arg(&to).run();
        }
    }
    Some(to)
}
