//! SIGKILL at random moments of the commands about images, alone and side by side: the next pull completes, the store is whole, and no byte
//! is unaccounted for.
//!
//! `CORACLE_TEST_SEED` repeats a run, as far as a machine repeats itself; `CORACLE_TEST_STORM` is the number of kills.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::registry::{ADDRESS, Access};
use harness::{Cmd, Host, Output, Registry, Running, Slow, images, layered, usage};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rusqlite::Connection;

const KILLS: usize = 300;
/// Between two looks at everything.
const ROUND: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Pull,
    /// Over a slow network: most of it is in the middle of a body.
    SlowPull,
    Load,
    LoadPipe,
    Import,
    Remove,
    PruneImages,
    PruneSystem,
    Push,
    Save,
    SavePipe,
}

use Kind::{
    Import, Load, LoadPipe, PruneImages, PruneSystem, Pull, Push, Remove, Save, SavePipe, SlowPull,
};

const BRING: [Kind; 5] = [Pull, SlowPull, Load, LoadPipe, Import];
const TAKE: [Kind; 3] = [Remove, PruneImages, PruneSystem];
const READ: [Kind; 3] = [Push, Save, SavePipe];

/// What a strike begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// What the last kills have left.
    AsItIs,
    Empty,
    /// All images are there.
    Full,
}

/// A command on its way.
struct Struck {
    kind: Kind,
    /// Of `save`.
    target: Option<PathBuf>,
    running: Running,
    begun: Instant,
    /// After how long it is killed; `None`: it is spared.
    moment: Option<Duration>,
}

struct Storm<'a> {
    host: &'a Host,
    slow: Slow<'a>,
    images: Vec<String>,
    /// Of all images, as `save` has made it.
    archive: PathBuf,
    bytes: Vec<u8>,
    usual: BTreeMap<Kind, Duration>,
    random: StdRng,
    strikes: usize,
    /// What is being done, for a failure.
    what: String,
    killed: BTreeMap<Kind, usize>,
    /// How far commands had come when they were killed, by what they had said.
    said: BTreeMap<(Kind, &'static str), usize>,
    /// What lay about after strikes.
    left: BTreeMap<&'static str, usize>,
    /// Commands that were faster than their kill, and those that were spared.
    whole: usize,
}

#[test]
fn kills_at_any_moment_leave_a_whole_store_and_no_byte_unaccounted_for() {
    let kills = number("CORACLE_TEST_STORM").map_or(KILLS, |n| n as usize);
    let seed =
        number("CORACLE_TEST_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("{kills} kills, CORACLE_TEST_SEED={seed}");
    let host = Host::builder().without_image().build();
    if host.is_docker() {
        return; // It has a daemon to kill; the promise is ours.
    }
    let registry = Registry::start(&host, Access::Open);
    let mut storm = Storm::new(&host, &registry, seed);
    let mut next = ROUND;
    while storm.count() < kills {
        storm.strike(kills - storm.count());
        if storm.count() >= next {
            storm.check(next / ROUND);
            next += ROUND;
        }
    }
    storm.check(0);
    storm.report();
    // A prune is done before it is worth killing; of those that do something, most kills must have met them alive.
    if kills >= KILLS {
        for kind in BRING.into_iter().chain(TAKE) {
            let count = storm.killed.get(&kind).copied().unwrap_or(0);
            assert!(count >= 5, "{kind:?} was killed {count} times only");
        }
        assert!(storm.whole < kills, "too many were faster than their kill");
    }
    drop((storm, registry));
    host.remove_everything();
    host.assert_clean();
}

impl<'a> Storm<'a> {
    fn new(host: &'a Host, registry: &Registry<'a>, seed: u64) -> Storm<'a> {
        let images = layered::push(host, registry);
        for folder in ["tmp", "saved"] {
            fs::create_dir(host.folder().join(folder)).unwrap();
        }
        let slow = Slow::start(&host.netns, ADDRESS, Duration::from_millis(2));
        let archive = host.folder().join("all.tar");
        for image in &images {
            host.run(&format!("pull -q {image}"));
        }
        host.run(&format!(
            "save -o {} {}",
            archive.display(),
            images.join(" ")
        ));
        let bytes = fs::read(&archive).unwrap();
        let mut storm = Storm {
            host,
            slow,
            images,
            archive,
            bytes,
            usual: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            strikes: 0,
            what: "at first".into(),
            killed: BTreeMap::new(),
            said: BTreeMap::new(),
            left: BTreeMap::new(),
            whole: 0,
        };
        storm.measure();
        storm
    }

    /// How long each command takes on this machine: the median of three.
    fn measure(&mut self) {
        for kind in BRING.into_iter().chain(TAKE).chain(READ) {
            let mut times = Vec::new();
            for _ in 0..3 {
                self.prepare(match BRING.contains(&kind) {
                    true => Before::Empty,
                    false => Before::Full,
                });
                let (command, _) = self.command(kind);
                times.push(command.run_in(&self.host.netns).ok().elapsed);
            }
            times.sort();
            println!("{kind:?} takes {:?}", times[1]);
            self.usual.insert(kind, times[1]);
        }
    }

    fn count(&self) -> usize {
        self.killed.values().sum()
    }

    fn prepare(&self, before: Before) {
        match before {
            Before::AsItIs => {}
            Before::Empty => drop(self.host.run("system prune -af")),
            Before::Full => {
                drop(
                    self.host
                        .coracle(["load".as_ref(), "-qi".as_ref(), self.archive.as_os_str()]),
                )
            }
        }
    }

    /// A command on an image that chance chooses; of `save`, its target as well.
    fn command(&mut self, kind: Kind) -> (Cmd, Option<PathBuf>) {
        let image = self.images.choose(&mut self.random).unwrap().clone();
        let archive = self.archive.to_str().unwrap().to_owned();
        let busybox = images::busybox_tar();
        let slow = image.replace(ADDRESS, &self.slow.address);
        let mut target = None;
        let host = self.host;
        let cmd = match kind {
            Pull => host.command(["pull", &image]),
            SlowPull => host.command(["pull", &slow]),
            Load => host.command(["load", "-i", &archive]),
            LoadPipe => host.command(["load"]).stdin(&self.bytes),
            Import => host.command(["import", busybox.to_str().unwrap(), "mine:1"]),
            Remove => host.command(["rmi", "-f", &image]),
            PruneImages => host.command(["image", "prune", "-af"]),
            PruneSystem => host.command(["system", "prune", "-af"]),
            Push => host.command(["push", &image]),
            SavePipe => host.command(["save", &image]),
            Save => {
                let folder = host.folder().join("saved");
                let folder = folder.join(self.random.random::<u64>().to_string());
                fs::create_dir(&folder).unwrap();
                let file = folder.join("image.tar");
                let cmd = host.command(["save", "-o", file.to_str().unwrap(), &image]);
                target = Some(file);
                cmd
            }
        };
        (cmd.env("TMPDIR", self.host.folder().join("tmp")), target)
    }

    /// One to four commands side by side, each killed with all that it has started.
    fn strike(&mut self, at_most: usize) {
        self.strikes += 1;
        let before = *[Before::AsItIs, Before::Empty, Before::Full]
            .choose(&mut self.random)
            .unwrap();
        self.prepare(before);
        let number = *[1, 1, 2, 3, 4].choose(&mut self.random).unwrap();
        let number = at_most.min(number);
        let spared = (number > 1 && self.random.random_ratio(1, 4)).then_some(0);
        let mut kinds = BRING.to_vec();
        if before != Before::Empty {
            // Twice each, for there are fewer of them.
            kinds.extend(TAKE.into_iter().chain(TAKE).chain(READ));
        }
        let mut struck = Vec::new();
        for i in 0..number {
            let kind = *kinds.choose(&mut self.random).unwrap();
            let (command, target) = self.command(kind);
            // Side by side they take longer.
            let usual = self.usual[&kind].mul_f64(1.0 + 0.4 * (number - 1) as f64);
            let moment = usual.mul_f64(self.random.random());
            struck.push(Struck {
                kind,
                target,
                begun: Instant::now(),
                running: command.spawn_in(&self.host.netns),
                moment: (spared != Some(i)).then_some(moment),
            });
        }
        let list: Vec<_> = struck.iter().map(|one| (one.kind, one.moment)).collect();
        self.what = format!("strike {}, {before:?}: {list:?}", self.strikes);
        kill_all(&mut struck);
        for one in struck {
            self.judge(one);
        }
        self.look();
    }

    fn judge(&mut self, one: Struck) {
        let Struck {
            kind,
            target,
            running,
            ..
        } = one;
        let output = running.wait();
        let what = &self.what;
        assert!(!output.stderr.contains("panicked"), "{what}: {output}");
        let is_killed = output.status.signal() == Some(Signal::SIGKILL as i32);
        match is_killed {
            true => {
                *self.killed.entry(kind).or_default() += 1;
                *self.said.entry((kind, last_said(&output))).or_default() += 1;
            }
            false => {
                self.whole += 1;
                assert!(is_fine(kind, &output), "{what}: {output}");
            }
        }
        if let Some(target) = target {
            check_saved(&target, is_killed, what);
        }
    }

    /// Counts what lies about.
    fn look(&mut self) {
        let root = self.host.root();
        let conn = Connection::open(root.join("coracle.db")).unwrap();
        conn.busy_timeout(Duration::from_secs(30)).unwrap();
        let rows = |sql: &str| -> BTreeSet<String> {
            let mut statement = conn.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let layers = rows("SELECT substr(chain_id, 8, 32) FROM layers");
        let images = rows("SELECT substr(id, 8) FROM images");
        let unused = rows(
            "SELECT chain_id FROM layers WHERE chain_id NOT IN (SELECT chain_id FROM image_layers)",
        );
        let on_disk = names(&root.join("layers"));
        for (what, is) in [
            (
                "in staging",
                !names(&root.join("layers/.staging")).is_empty(),
            ),
            (
                "layers without a row",
                on_disk
                    .iter()
                    .any(|name| !name.contains('.') && !layers.contains(name)),
            ),
            (
                "recipes without a layer",
                on_disk.iter().any(|name| {
                    name.strip_suffix(".recipe")
                        .is_some_and(|name| !on_disk.contains(name))
                }),
            ),
            (
                "images without a row",
                names(&root.join("images"))
                    .iter()
                    .any(|name| !images.contains(name)),
            ),
            ("layers of no image", !unused.is_empty()),
        ] {
            *self.left.entry(what).or_default() += usize::from(is);
        }
    }

    /// Everything is in order, whatever was killed.
    fn check(&mut self, round: usize) {
        let host = self.host;
        // Before anybody tidies up.
        usage::check_sum(&host.root(), &|line| host.try_run(line));
        for image in &self.images {
            let output = host.try_run(&format!("pull {image}"));
            assert!(output.code() == 0, "{}: {output}", self.what);
        }
        let output = host.try_run("image check");
        let is_clean = output.code() == 0 && output.text().ends_with("no problems");
        assert!(is_clean, "{}: {output}", self.what);
        usage::check_sum(&host.root(), &|line| host.try_run(line));
        assert_eq!(names(&host.folder().join("tmp")), BTreeSet::new());
        if round.is_multiple_of(5) {
            let image = self.images.choose(&mut self.random).unwrap();
            host.run(&format!("run --rm {image}"));
        }
        if round.is_multiple_of(3) {
            host.run("system prune -af --volumes");
            usage::check_nothing_is_left(&host.root());
        }
    }

    fn report(&self) {
        println!(
            "{} strikes, {} killed, {} done before or spared",
            self.strikes,
            self.count(),
            self.whole
        );
        for (kind, count) in &self.killed {
            let said = self.said.iter().filter(|((of, _), _)| of == kind);
            let said: Vec<_> = said
                .map(|((_, said), count)| format!("{said} {count}"))
                .collect();
            println!("{kind:?} killed {count}, having said: {}", said.join(", "));
        }
        println!("left behind, in so many strikes: {:?}", self.left);
    }
}

/// Each at its moment.
fn kill_all(struck: &mut [Struck]) {
    let mut order: Vec<&Struck> = struck.iter().collect();
    order.sort_by_key(|one| one.moment.map(|moment| one.begun + moment));
    for one in order {
        let Some(moment) = one.moment else { continue };
        std::thread::sleep(moment.saturating_sub(one.begun.elapsed()));
        // It leads a group of its own, and is not reaped before it is waited for.
        let _ = killpg(
            Pid::from_raw(one.running.pid().cast_signed()),
            Signal::SIGKILL,
        );
    }
}

/// Whether a command that was not killed may end like this: what others have removed is not there, but nothing is broken.
fn is_fine(kind: Kind, output: &Output) -> bool {
    let gone = [
        "No such image",
        "does not exist locally",
        "tag does not exist",
    ];
    let is_gone = gone.iter().any(|text| output.stderr.contains(text));
    match kind {
        Remove | Push | Save | SavePipe => output.code() == 0 || (output.code() == 1 && is_gone),
        _ => output.code() == 0,
    }
}

/// The target is whole or not there; only a kill may leave something beside it.
fn check_saved(target: &Path, is_killed: bool, what: &str) {
    if target.exists() {
        Cmd::new("tar").arg("-tf").arg(target).run().ok();
    }
    let folder = target.parent().unwrap();
    let beside = names(folder);
    let is_alone = beside.iter().all(|name| name == "image.tar");
    assert!(is_killed || is_alone, "{what}: {beside:?}");
    fs::remove_dir_all(folder).unwrap();
}

/// The last of what it has said that tells how far it has come.
fn last_said(output: &Output) -> &'static str {
    const TELLING: [&str; 12] = [
        "Pulling from",
        "Pulling fs layer",
        "Already exists",
        "Downloading",
        "Extracting",
        "Pull complete",
        "Digest:",
        "Status:",
        "Loaded image",
        "Untagged:",
        "Pushed",
        "push refers to",
    ];
    let text = output.stdout.clone() + &output.stderr;
    let last = TELLING
        .into_iter()
        .filter_map(|word| Some((text.rfind(word)?, word)));
    last.max().map_or("nothing", |(_, word)| word)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
