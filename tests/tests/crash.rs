//! `kill -9` of the command or of a monitor at random moments: the next command repairs, nothing leaks, nobody else is disturbed.
//!
//! The tests of this file kill 200 times in all. Each prints the seed of its random moments; `CORACLE_TEST_SEED=N` repeats them. Victims
//! live on a network with 13 addresses and publish one and the same port, so that a leaked address, port or name fails a later round.

#[path = "crash/networks.rs"]
mod networks;

use std::time::{Duration, Instant};

use harness::host::{Host, HostBuilder};
use harness::images::PAGE;
use harness::{Output, Running, eventually, net, rules};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const VICTIM: &str =
    "run -d --name victim --network small -p 8080:80 busybox httpd -f -p 80 -h /www";

/// How many kills each test does; together 200.
const KILLS_OF_RUN: usize = 60;
const KILLS_OF_REMOVE: usize = 40;
const KILLS_OF_MONITOR: usize = 60;
const KILLS_OF_NETWORK_AND_RELOAD: usize = 40;

/// A host with a bystander that must not notice anything.
struct Scene {
    host: Host,
    random: StdRng,
    bystander: serde_json::Value,
    connection: net::Echo,
    rules: String,
    links: String,
    /// The last round, for messages.
    round: String,
}

impl Scene {
    #[track_caller]
    fn new(test: &str) -> Option<Scene> {
        Scene::on(test, Host::builder())
    }

    #[track_caller]
    fn on(test: &str, host: HostBuilder) -> Option<Scene> {
        let seed = std::env::var("CORACLE_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
        // Shown by the test runner when the test fails.
        println!("{test}: CORACLE_TEST_SEED={seed}");
        let host = host.foreign_rules().build();
        if host.is_docker() {
            return None; // It has a daemon to kill; the promise is ours.
        }
        host.run("network create --subnet 10.98.0.0/28 small");
        host.start_web("bystander", "-p 8081:80");
        host.run("run -d --name echo -p 7000:7 busybox nc -ll -p 7 -e cat");
        let connection = eventually("echo answers", || {
            net::Echo::connect(&host.neighbour, "192.0.2.1:7000")
        });
        Some(Scene {
            bystander: facts(&host),
            rules: rules::everywhere(&host.netns),
            links: links(&host),
            connection,
            random: StdRng::seed_from_u64(seed),
            round: String::new(),
            host,
        })
    }

    /// What is there now is as it should be.
    fn look_again(&mut self) {
        self.bystander = facts(&self.host);
        self.rules = rules::everywhere(&self.host.netns);
        self.links = links(&self.host);
    }

    /// Kills a command with SIGKILL at a random moment of the time that it usually takes.
    #[track_caller]
    fn kill_within(&mut self, line: &str, usual: Duration) {
        let moment = usual.mul_f64(self.random.random_range(0.0..1.1));
        self.round = format!("`{line}` killed after {moment:?}");
        let running: Running = self
            .host
            .command(line.split_whitespace())
            .spawn_in(&self.host.netns);
        std::thread::sleep(moment);
        running.signal(Signal::SIGKILL);
        let _: Output = running.wait();
        self.host.look_for_ids();
    }

    /// The next command must do, and leave no trace of the victim once that is removed.
    #[track_caller]
    fn repair(&self) {
        let round = &self.round;
        let names = self.host.try_run("ps -a --format {{.Names}}");
        assert_eq!(names.code(), 0, "{round}: {names}");
        if names.stdout.lines().any(|name| name == "victim") {
            let removed = self.host.try_run("rm -f victim");
            assert_eq!(removed.code(), 0, "{round}: {removed}");
        }
    }

    /// Only the bystanders are there, as they were.
    #[track_caller]
    fn check(&mut self) {
        let round = &self.round;
        assert_eq!(
            facts(&self.host),
            self.bystander,
            "{round}: the bystander is disturbed"
        );
        self.connection
            .ask(round)
            .unwrap_or_else(|error| panic!("{round}: a connection is cut: {error}"));
        let page = net::http_get(&self.host.neighbour, "192.0.2.1:8081");
        assert_eq!(
            page.unwrap_or_else(|error| panic!("{round}: the bystander is not reached: {error}")),
            PAGE
        );
        let page = net::http_get(&self.host.netns, "127.0.0.1:8081");
        assert_eq!(
            page.unwrap_or_else(|error| panic!("{round}: not reached by loopback: {error}")),
            PAGE
        );
        rules::assert_same(round, &rules::everywhere(&self.host.netns), &self.rules);
        // A veth goes with its namespace, and that a moment after its last process.
        eventually(round, || {
            let links = links(&self.host);
            if links == self.links {
                Ok(())
            } else {
                Err(links)
            }
        });
    }

    /// A whole run of the victim, whose time is taken; it serves, whatever happened before.
    #[track_caller]
    fn run_victim(&self) -> Duration {
        let output = self.host.try_run(VICTIM);
        assert_eq!(output.code(), 0, "after {}: {output}", self.round);
        eventually("the victim serves", || {
            net::http_get(&self.host.neighbour, "192.0.2.1:8080")
        });
        output.elapsed
    }

    #[track_caller]
    fn end(self) {
        self.host.remove_everything();
        self.host.assert_clean();
        let left: Vec<_> = std::fs::read_dir(self.host.root().join("containers"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "content without a container: {left:?}");
    }
}

/// What of the bystander must never change.
fn facts(host: &Host) -> serde_json::Value {
    let inspect = host.inspect("bystander");
    serde_json::json!([
        inspect["Id"],
        inspect["State"],
        inspect["RestartCount"],
        inspect["NetworkSettings"]
    ])
}

fn links(host: &Host) -> String {
    let list = host.tool("ip", ["-br", "link"]).ok().stdout;
    let mut names: Vec<_> = list
        .lines()
        .map(|line| line.split(['@', ' ']).next().unwrap_or_default())
        .collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn killing_run_at_any_moment_is_repaired_by_the_next_command() {
    let Some(mut scene) = Scene::new("kill of run") else {
        return;
    };
    let usual = scene.run_victim();
    scene.host.run("rm -f victim");
    for round in 0..KILLS_OF_RUN {
        scene.kill_within(VICTIM, usual);
        scene.repair();
        scene.check();
        if round % 10 == 9 {
            scene.run_victim();
            scene.host.run("rm -f victim");
        }
    }
    scene.run_victim();
    scene.end();
}

#[test]
fn killing_a_removal_at_any_moment_is_repaired_by_the_next_command() {
    let Some(mut scene) = Scene::new("kill of rm, stop, start and kill") else {
        return;
    };
    scene.run_victim();
    let usual = scene.host.run("rm -f victim").elapsed;
    for round in 0..KILLS_OF_REMOVE {
        scene.run_victim();
        match round % 4 {
            0 | 1 => scene.kill_within("rm -f victim", usual),
            2 => scene.kill_within("stop -t 0 victim", usual),
            _ => {
                scene.host.run("stop -t 0 victim");
                scene.kill_within("start victim", usual);
            }
        }
        scene.repair();
        scene.check();
    }
    scene.end();
}

#[test]
fn killing_a_monitor_at_any_moment_is_repaired_by_the_next_command() {
    let Some(mut scene) = Scene::new("kill of the monitor") else {
        return;
    };
    let usual = scene.run_victim();
    scene.host.run("rm -f victim");
    for round in 0..KILLS_OF_MONITOR {
        let killed = if round % 2 == 0 {
            scene.kill_monitor_of_a_running_victim()
        } else {
            scene.kill_monitor_of_a_starting_victim(usual)
        };
        scene.round = format!("the monitor killed, {killed}");
        scene.repair();
        scene.check();
        if round % 10 == 9 {
            scene.run_victim();
            scene.host.run("rm -f victim");
        }
    }
    scene.end();
}

impl Scene {
    #[track_caller]
    fn kill_monitor_of_a_running_victim(&mut self) -> String {
        self.run_victim();
        let id = self.host.inspect("victim")["Id"]
            .as_str()
            .expect("an ID")
            .to_owned();
        let monitor = self
            .host
            .monitor_of(&id)
            .expect("a running container has a monitor");
        let moment = Duration::from_micros(self.random.random_range(0..20_000));
        std::thread::sleep(moment);
        kill_process(monitor);
        format!("{moment:?} after run")
    }

    /// Somewhere between its birth and the end of `run`, which must then end too, one way or the other.
    #[track_caller]
    fn kill_monitor_of_a_starting_victim(&mut self, usual: Duration) -> String {
        let before = self.host.monitors();
        let delay = usual.mul_f64(self.random.random_range(0.0..0.5));
        let running = self
            .host
            .command(VICTIM.split_whitespace())
            .spawn_in(&self.host.netns);
        let end = Instant::now() + Duration::from_secs(5);
        let victim = loop {
            let born = self
                .host
                .monitors()
                .into_iter()
                .find(|pid| !before.contains(pid));
            if born.is_some() || Instant::now() > end {
                break born;
            }
        };
        std::thread::sleep(delay);
        if let Some(pid) = victim {
            kill_process(pid);
        }
        let output = running.wait();
        self.host.look_for_ids();
        format!(
            "{delay:?} after its birth ({victim:?}); run exited with {}",
            output.code()
        )
    }
}

#[test]
fn killing_network_changes_and_reloads_is_repaired_by_the_next_command() {
    let Some(mut scene) = Scene::new("kill of network create, rm and system reload") else {
        return;
    };
    const CREATE: &str = "network create --subnet 10.97.0.0/24 fleeting";
    let create = scene.host.run(CREATE).elapsed;
    let remove = scene.host.run("network rm fleeting").elapsed;
    let reload = scene.host.run("system reload").elapsed;
    for round in 0..KILLS_OF_NETWORK_AND_RELOAD {
        match round % 3 {
            0 => scene.kill_within(CREATE, create),
            1 => {
                scene.host.run(CREATE);
                scene.kill_within("network rm fleeting", remove);
            }
            _ => {
                scene.kill_within("system reload", reload);
                scene.host.run("system reload");
            }
        }
        let networks = scene.host.try_run("network ls --format {{.Name}}");
        assert_eq!(networks.code(), 0, "{}: {networks}", scene.round);
        if networks.stdout.lines().any(|name| name == "fleeting") {
            scene.host.run("network rm fleeting");
        } else {
            // Whatever was begun is gone: the same name and subnet can be had.
            scene.host.run(CREATE);
            scene.host.run("network rm fleeting");
        }
        scene.check();
    }
    scene.end();
}

fn kill_process(pid: u32) {
    // It may have ended in the meantime; that is one of the moments.
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        Signal::SIGKILL,
    );
}
