//! `kill -9` of commands, monitors, first processes and health checks, of containers that are to run: with a restart policy, a health check and
//! volumes. None is lost, no restart is lost, none is started that the user has stopped, none stays frozen, and nothing leaks.
//!
//! `thousand.rs` has those without a policy. `CORACLE_TEST_SEED=N` repeats the random moments, `CORACLE_TEST_STORM=N` makes it shorter or longer.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Host, Output, clean, eventually, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const WORKERS: usize = 3;

const PROGRAM: &str =
    "trap 'exit 7' TERM; touch /dev/shm/ready; while :; do sleep 1000 & wait; done";

const ATTEMPTS_OF_ON_FAILURE: u32 = 3;

/// What the user wants of a container, as far as the commands so far tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Absent,
    Run,
    Stopped,
    /// A `stop` was cut short: it may run on, and may stay down when it ends.
    Either,
}

/// How a container is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Absent,
    Created,
    Running,
    Paused,
    Waiting,
    Exited(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Run,
    Start,
    Restart,
    Stop,
    Kill,
    Remove,
    Exec,
    Update,
    Pause,
    Unpause,
    Copy,
    Commit,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Command,
    Monitor,
    Init,
    Probe,
}

struct Worker<'a> {
    host: &'a Host,
    name: String,
    policy: &'static str,
    random: StdRng,
    wish: Wish,
    found: Found,
    round: String,
    struck: BTreeMap<(Action, Victim), usize>,
}

impl Worker<'_> {
    fn kill_once(&mut self) {
        // What nobody has touched since is as it was wished.
        if self.wish == Wish::Stopped {
            self.look();
            let is_down = matches!(self.found, Found::Exited(_) | Found::Created);
            assert!(is_down, "{}, and then: {:?}", self.round, self.found);
        }
        let actions: &[Action] = match self.found {
            Found::Absent => &[Action::Run],
            Found::Created | Found::Exited(_) => &[
                Action::Start,
                Action::Start,
                Action::Restart,
                Action::Remove,
                Action::Update,
                Action::Copy,
                Action::Commit,
            ],
            Found::Paused => &[Action::Unpause],
            Found::Waiting => &[
                Action::Restart,
                Action::Restart,
                Action::Stop,
                Action::Remove,
                Action::Update,
                Action::Nothing,
            ],
            Found::Running => &[
                Action::Restart,
                Action::Restart,
                Action::Stop,
                Action::Kill,
                Action::Remove,
                Action::Exec,
                Action::Update,
                Action::Pause,
                Action::Copy,
                Action::Commit,
                Action::Commit,
                Action::Nothing,
                Action::Nothing,
            ],
        };
        let action = actions[self.random.random_range(0..actions.len())];
        let victims: &[Victim] = match (action, self.found) {
            (Action::Nothing, Found::Waiting) => &[Victim::Monitor],
            (Action::Nothing, _) => &[Victim::Monitor, Victim::Init, Victim::Probe],
            // The kernel keeps a frozen process from dying.
            (Action::Unpause | Action::Pause, _) => &[Victim::Command, Victim::Monitor],
            (Action::Commit, _) => &[Victim::Command, Victim::Command, Victim::Monitor],
            _ => &[
                Victim::Command,
                Victim::Command,
                Victim::Monitor,
                Victim::Init,
            ],
        };
        let victim = victims[self.random.random_range(0..victims.len())];
        if matches!(action, Action::Stop | Action::Restart) && self.found == Found::Running {
            self.wait_until_ready();
            // A removal that was killed may have ended it since, after its signal.
            if !self.is_up() {
                return;
            }
        }
        let before = self.found;
        let moment = Duration::from_millis(self.random.random_range(0..150));
        self.round = format!(
            "{} ({}): {before:?}, wished {:?}, {action:?}, {victim:?} killed after {moment:?}",
            self.name, self.policy, self.wish
        );
        *self.struck.entry((action, victim)).or_default() += 1;
        let done = self.act(action, victim, moment);
        self.look();
        self.judge(action, victim, before, done);
    }

    /// The exit code of a command that ended by itself.
    fn act(&mut self, action: Action, victim: Victim, moment: Duration) -> Option<i32> {
        let name = self.name.as_str();
        let (volume, image) = (format!("{name}-data:/data"), format!("image-{name}"));
        let inside = format!("{name}:/data/copied");
        let words: Vec<&str> = match action {
            Action::Run => vec![
                "run",
                "-d",
                "--name",
                name,
                "--restart",
                self.policy,
                "-v",
                &volume,
                "-v",
                "/anonymous",
                "--health-cmd",
                "test -e /dev/shm/ready",
                "--health-interval",
                "150ms",
                "busybox",
                "sh",
                "-c",
                PROGRAM,
            ],
            Action::Start => vec!["start", name],
            Action::Restart => vec!["restart", "-t", "20", name],
            Action::Stop => vec!["stop", "-t", "20", name],
            Action::Kill => vec!["kill", name],
            Action::Remove => vec!["rm", "-f", "-v", name],
            Action::Exec => vec!["exec", name, "sh", "-c", "echo 1 >>/data/marks"],
            Action::Update => vec![
                "update",
                "--restart",
                self.policy,
                "-m",
                "100m",
                "--memory-swap",
                "200m",
                name,
            ],
            Action::Pause => vec!["pause", name],
            Action::Unpause => vec!["unpause", name],
            Action::Copy => vec!["cp", "/etc/passwd", &inside],
            Action::Commit => vec!["commit", name, &image],
            Action::Nothing => {
                self.strike(victim);
                return None;
            }
        };
        let running = self.host.command(words).spawn_in(&self.host.netns);
        std::thread::sleep(moment);
        match victim {
            Victim::Command => running.signal(Signal::SIGKILL),
            _ => self.strike(victim),
        }
        let output = running.wait();
        self.host.look_for_ids();
        let killed = output.code() == 128 + Signal::SIGKILL as i32 && victim == Victim::Command;
        assert!(
            !output.stderr.contains("panicked"),
            "{}: {output}",
            self.round
        );
        (!killed).then(|| output.code())
    }

    fn strike(&self, victim: Victim) {
        let Some(id) = self.id() else {
            return;
        };
        let ours: Vec<u32> = self.host.monitors();
        let ours: Vec<u32> = ours
            .into_iter()
            .filter(|pid| clean::command_line(*pid).contains(&id))
            .collect();
        let is_child = |pid: &u32| parent(*pid).is_some_and(|parent| ours.contains(&parent));
        let pid = match victim {
            Victim::Init => self
                .host
                .try_run(&format!("inspect -f {{{{.State.Pid}}}} {id}"))
                .text()
                .parse()
                .ok(),
            Victim::Probe => ours.iter().copied().find(is_child),
            _ => ours.iter().copied().find(|pid| !is_child(pid)),
        };
        if let Some(pid) = pid.filter(|pid| *pid > 1) {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            // On a busy machine it may run for a moment yet.
            eventually("who was killed is dead", || match runs(pid) {
                true => Err(pid),
                false => Ok(()),
            });
        }
    }

    fn id(&self) -> Option<String> {
        let output = self
            .host
            .try_run(&format!("inspect -f {{{{.Id}}}} {}", self.name));
        (output.code() == 0).then(|| output.text().to_owned())
    }

    /// Its program has set its trap: before, a first process takes no SIGTERM. One that was killed often pauses for up to a minute
    /// before its policy starts it again.
    fn wait_until_ready(&mut self) {
        let ready = until(harness::wait::PATIENCE * 9, || {
            self.look();
            if !self.is_up() && self.wish == Wish::Either {
                return Ok(());
            }
            let asked = self
                .host
                .try_run(&format!("exec {} test -e /dev/shm/ready", self.name));
            if asked.code() == 0 {
                Ok(())
            } else {
                Err(asked)
            }
        });
        if let Err(asked) = ready {
            panic!(
                "{}, after {}: the program is not ready: {asked}",
                self.name, self.round
            );
        }
    }

    /// As the next command has it, once the first process that it names lives.
    fn look(&mut self) {
        let line = format!(
            "inspect -f {{{{.State.Status}}}}/{{{{.State.ExitCode}}}}/{{{{.State.Pid}}}} {}",
            self.name
        );
        let round = self.round.clone();
        let output: Output = eventually(&round, || {
            let output = self.host.try_run(&line);
            let pid = output
                .text()
                .rsplit('/')
                .next()
                .and_then(|pid| pid.parse().ok());
            if pid.is_none_or(|pid: u32| pid == 0 || runs(pid)) {
                Ok(output)
            } else {
                Err(output)
            }
        });
        let words: Vec<&str> = output.text().split('/').collect();
        self.found = match (output.code(), words[0]) {
            (1, _) if output.stderr.contains("No such") => Found::Absent,
            (0, "created") => Found::Created,
            (0, "running") => Found::Running,
            (0, "paused") => Found::Paused,
            (0, "restarting") => Found::Waiting,
            (0, "exited") => Found::Exited(words[1].parse().expect("an exit code")),
            _ => panic!("{}: {output}", self.round),
        };
    }

    /// Whether what is found may be so, and what is wished from now on.
    fn judge(&mut self, action: Action, victim: Victim, before: Found, done: Option<i32>) {
        let succeeded = done == Some(0);
        let was = self.wish;
        self.wish = match action {
            Action::Run | Action::Start | Action::Restart if succeeded => Wish::Run,
            Action::Stop | Action::Kill if succeeded => Wish::Stopped,
            Action::Remove if succeeded => Wish::Absent,
            // Cut short, or of a container whose first process was killed in the middle of it.
            Action::Run | Action::Start | Action::Remove | Action::Stop | Action::Kill => {
                Wish::Either
            }
            // It has told that it could not: who was to be started was killed.
            Action::Restart if done.is_some() => Wish::Either,
            // It was to run before: whatever of the restart was done, it is to run.
            Action::Restart if was == Wish::Run => Wish::Run,
            Action::Restart => Wish::Either,
            _ => was,
        };
        // Only `pause` pauses, for good or not at all.
        let may_be_paused = match action {
            Action::Pause => true,
            Action::Unpause => !succeeded,
            _ => before == Found::Paused,
        };
        // `kill` does not wait, and another command may be busy mending just now.
        let fine = until(harness::wait::PATIENCE, || {
            let fine = match self.wish {
                Wish::Absent => self.found == Found::Absent,
                Wish::Run => self.is_up() || self.has_given_up(),
                Wish::Stopped => matches!(self.found, Found::Exited(_) | Found::Created),
                Wish::Either => {
                    self.found != Found::Absent || matches!(action, Action::Run | Action::Remove)
                }
            };
            if fine && (self.found != Found::Paused || may_be_paused) {
                return Ok(());
            }
            self.look();
            Err(())
        });
        let fine = fine.is_ok();
        // 255 is an end that nobody saw: its monitor was killed, or it was an end of before.
        let code_is_right = match self.found {
            Found::Exited(7 | 137) => true,
            Found::Exited(255) => victim == Victim::Monitor || before == self.found,
            Found::Exited(_) => before == self.found,
            _ => true,
        };
        assert!(
            fine && code_is_right,
            "{}: is {:?}, wished {:?} (the command ended by itself: {done:?})\n{}\n{}",
            self.round,
            self.found,
            self.wish,
            self.host.try_run(&format!("inspect {}", self.name)),
            self.host.try_run(&format!(
                "events --since 1h --until 0s --filter container={}",
                self.name
            ))
        );
        // Whose start was cut short is started by another command, perhaps, which another worker may just have begun.
        if self.wish == Wish::Either && self.found == Found::Absent {
            self.wish = Wish::Absent;
        }
        if self.wish == Wish::Run && !self.is_up() {
            self.wish = Wish::Stopped;
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.found, Found::Running | Found::Waiting | Found::Paused)
    }

    /// Its policy allows so many restarts only.
    fn has_given_up(&self) -> bool {
        let count = self
            .host
            .try_run(&format!("inspect -f {{{{.RestartCount}}}} {}", self.name));
        let count: u32 = count.text().parse().unwrap_or(0);
        self.policy.starts_with("on-failure") && count >= ATTEMPTS_OF_ON_FAILURE
    }

    /// At the end it can be started, is served by a monitor, and has kept its data.
    fn finish(&mut self) {
        let name = self.name.clone();
        self.look();
        if self.found == Found::Absent {
            return;
        }
        if self.found == Found::Paused {
            self.host.run(&format!("unpause {name}"));
        }
        self.host.run(&format!("restart -t 0 {name}"));
        eventually(&format!("{}: {name} is healthy", self.round), || {
            let health = self
                .host
                .run(&format!("inspect -f {{{{.State.Health.Status}}}} {name}"));
            if health.text() == "healthy" {
                Ok(())
            } else {
                Err(health)
            }
        });
        self.host.run(&format!("exec {name} test -d /data"));
        self.host.run(&format!("stop -t 0 {name}"));
        self.host.run(&format!("rm -v {name}"));
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')')
        .next()?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Neither gone nor a zombie.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn host_under_fire(firewall: &str, kills: usize, seed: u64) -> BTreeMap<(Action, Victim), usize> {
    let host = Host::builder().options(["--firewall", firewall]).build();
    if host.is_docker() {
        return BTreeMap::new(); // It has a daemon to kill; the promise is ours.
    }
    let left = AtomicUsize::new(kills);
    let struck = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for number in 0..WORKERS {
            let (host, left, struck) = (&host, &left, &struck);
            scope.spawn(move || {
                let mut worker = Worker {
                    host,
                    name: format!("s{number}"),
                    policy: ["always", "on-failure:3", "unless-stopped"][number % 3],
                    random: StdRng::seed_from_u64(seed + number as u64),
                    wish: Wish::Absent,
                    found: Found::Absent,
                    round: "nothing yet".into(),
                    struck: BTreeMap::new(),
                };
                let next = |n: usize| n.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
                    .is_ok()
                {
                    worker.kill_once();
                }
                worker.finish();
                let mut all = struck.lock().expect("no worker has failed");
                for (what, count) in worker.struck {
                    *all.entry(what).or_default() += count;
                }
            });
        }
    });
    host.run("ps -aq").says("");
    let volumes = host.run("volume ls -q");
    let nameless: Vec<&str> = volumes
        .stdout
        .lines()
        .filter(|name| !name.ends_with("-data"))
        .collect();
    assert!(
        nameless.is_empty(),
        "volumes without a name are left: {nameless:?}"
    );
    for folder in ["frozen", "restarts", "ends", "untold"] {
        let marks = fs::read_dir(host.run_root().join(folder)).map_or(0, Iterator::count);
        assert_eq!(marks, 0, "marks in {folder}");
    }
    host.remove_everything();
    host.assert_clean();
    struck.into_inner().expect("no worker has failed")
}

#[test]
fn kills_lose_no_restart_and_start_nothing_that_was_stopped() {
    let kills = number("CORACLE_TEST_STORM").unwrap_or(240) as usize;
    let seed =
        number("CORACLE_TEST_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("{kills} kills, CORACLE_TEST_SEED={seed}");
    let struck = std::thread::scope(|scope| {
        let one = scope.spawn(|| host_under_fire("iptables", kills / 2, seed));
        let other = scope.spawn(|| host_under_fire("nftables", kills - kills / 2, seed + 1000));
        [one, other].map(|host| host.join().expect("a host has failed"))
    });
    let mut all = BTreeMap::<_, usize>::new();
    for (what, count) in struck.into_iter().flatten() {
        *all.entry(what).or_default() += count;
    }
    for ((action, victim), count) in all {
        println!("{action:?}, {victim:?} killed: {count}");
    }
}
