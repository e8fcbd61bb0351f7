//! A thousand `kill -9`: of commands, monitors and first processes, at random moments of create, start, exec, stop and rm, under load.
//!
//! Several workers share two hosts. Each looks after one container, does one thing to it and kills one of those who do it; then the next command
//! must find one of the states that may follow, with the right exit code. Beside them a container serves that nobody may disturb.
//! `CORACLE_TEST_SEED=N` repeats the random moments, `CORACLE_TEST_KILLS=N` makes it shorter or longer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Cmd, Host, eventually, images, net};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Each host has so many workers; one host has iptables, the other nftables.
const WORKERS: usize = 4;

const PROGRAM: &str =
    "trap 'exit 7' TERM; touch /dev/shm/ready; while :; do sleep 1000 & wait; done";

/// How a worker finds its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Created,
    Running,
    Exited(i32),
}

use State::{Absent, Created, Exited, Running};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Create,
    Run,
    Start,
    Exec,
    Stop,
    Remove,
    RemoveByForce,
    /// No command: somebody kills the victim.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Command,
    Monitor,
    Init,
}

struct Worker<'a> {
    host: &'a Host,
    name: String,
    random: StdRng,
    state: State,
    /// Of the container's first process, while it runs.
    pid: Option<u32>,
    round: String,
}

impl Worker<'_> {
    /// One thing done to the container, one process killed, and a look at what came of it.
    fn kill_once(&mut self) {
        let actions: &[Action] = match self.state {
            Absent => &[Action::Create, Action::Run, Action::Run],
            Created | Exited(_) => &[Action::Start, Action::Start, Action::Remove],
            Running => &[
                Action::Exec,
                Action::Stop,
                Action::RemoveByForce,
                Action::Nothing,
            ],
        };
        let action = actions[self.random.random_range(0..actions.len())];
        let victims: &[Victim] = match action {
            Action::Create | Action::Remove => &[Victim::Command],
            Action::Nothing => &[Victim::Monitor, Victim::Init],
            _ => &[Victim::Command, Victim::Monitor, Victim::Init],
        };
        let victim = victims[self.random.random_range(0..victims.len())];
        if action == Action::Stop {
            self.wait_until_it_can_be_stopped();
        }
        let before = self.state;
        let moment = Duration::from_millis(self.random.random_range(0..150));
        self.round = format!(
            "{}: {before:?}, {action:?}, {victim:?} killed after {moment:?}",
            self.name
        );
        let done = self.act(action, victim, moment);
        self.look();
        let allowed = allowed(action, victim, before, done);
        assert!(
            allowed.contains(&self.state),
            "{}: is {:?}, and may be {allowed:?} (the command ended by itself: {done:?})\n{}",
            self.round,
            self.state,
            self.host.try_run(&format!("inspect {}", self.name))
        );
    }

    /// Its program has set its trap: before, a first process takes no SIGTERM.
    fn wait_until_it_can_be_stopped(&self) {
        let what = format!("{}, after {}: the program is ready", self.name, self.round);
        eventually(&what, || {
            let asked = self
                .host
                .try_run(&format!("exec {} test -e /dev/shm/ready", self.name));
            if asked.code() == 0 {
                Ok(())
            } else {
                Err(asked)
            }
        });
    }

    /// The exit code of a command that ended by itself.
    fn act(&mut self, action: Action, victim: Victim, moment: Duration) -> Option<i32> {
        let name = &self.name;
        let create = [
            "--name",
            name,
            "--network",
            "small",
            "busybox",
            "sh",
            "-c",
            PROGRAM,
        ];
        let words: Vec<&str> = match action {
            Action::Create => ["create"].into_iter().chain(create).collect(),
            Action::Run => ["run", "-d"].into_iter().chain(create).collect(),
            Action::Start => vec!["start", name],
            Action::Exec => vec!["exec", name, "sh", "-c", "sleep 0.05"],
            Action::Stop => vec!["stop", "-t", "20", name],
            Action::Remove => vec!["rm", name],
            Action::RemoveByForce => vec!["rm", "-f", name],
            Action::Nothing => {
                self.strike(victim);
                return None;
            }
        };
        let running = self.host.command(words).spawn_in(&self.host.netns);
        std::thread::sleep(moment);
        if victim == Victim::Command {
            running.signal(Signal::SIGKILL);
        } else {
            self.strike(victim);
        }
        let output = running.wait();
        self.host.look_for_ids();
        let killed = output.code() == 128 + Signal::SIGKILL as i32 && victim == Victim::Command;
        (!killed).then(|| output.code())
    }

    /// Kills the container's monitor or first process, if there is one just now.
    fn strike(&self, victim: Victim) {
        let pid = match victim {
            Victim::Init => self.pid.or_else(|| self.newborn()),
            _ => self.id().and_then(|id| self.host.monitor_of(&id)),
        };
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            // On a busy machine it may run for a moment yet.
            eventually("who was killed is dead", || match runs(pid) {
                true => Err(pid),
                false => Ok(()),
            });
        }
    }

    /// The first process of a container that is being started: the child of its monitor.
    fn newborn(&self) -> Option<u32> {
        let monitor = self.id().and_then(|id| self.host.monitor_of(&id))?;
        let children = format!("/proc/{monitor}/task/{monitor}/children");
        let children = std::fs::read_to_string(children).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    fn id(&self) -> Option<String> {
        let output = self
            .host
            .try_run(&format!("inspect -f {{{{.Id}}}} {}", self.name));
        (output.code() == 0).then(|| output.text().to_owned())
    }

    /// As the next command has it.
    fn look(&mut self) {
        let line = format!(
            "inspect -f {{{{.State.Status}}}}/{{{{.State.ExitCode}}}}/{{{{.State.Pid}}}} {}",
            self.name
        );
        // A container whose first process has just been killed still runs for its monitor, until that has cleaned up.
        let mut output = self.host.try_run(&line);
        let settled = |output: &harness::Output| {
            let pid = output
                .text()
                .rsplit('/')
                .next()
                .and_then(|pid| pid.parse().ok());
            pid.is_none_or(|pid: u32| pid == 0 || runs(pid))
        };
        let round = self.round.clone();
        eventually(&round, || {
            output = self.host.try_run(&line);
            if settled(&output) {
                Ok(())
            } else {
                Err(output.to_string())
            }
        });
        let words: Vec<&str> = output.text().split('/').collect();
        let pid = words
            .get(2)
            .and_then(|pid| pid.parse().ok())
            .filter(|pid| *pid != 0);
        self.state = match (output.code(), words[0]) {
            (1, _) if output.stderr.contains("No such") => Absent,
            (0, "created") => Created,
            (0, "running") => Running,
            (0, "exited") => Exited(words[1].parse().expect("an exit code")),
            _ => panic!("{}: {output}", self.round),
        };
        self.pid = pid;
    }
}

/// Neither gone nor a zombie.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// What may follow. 137 is a first process that was killed, by the test or for want of a monitor; 255 one whose end nobody saw.
fn allowed(action: Action, victim: Victim, before: State, done: Option<i32>) -> Vec<State> {
    let succeeded = done == Some(0);
    match (action, victim) {
        (Action::Create, _) if succeeded => vec![Created],
        (Action::Create, _) => vec![Absent, Created],
        (Action::Run, Victim::Command) if succeeded => vec![Running],
        (Action::Run, Victim::Command) => vec![Absent, Created, Running],
        (Action::Run, _) => vec![Absent, Created, Running, Exited(137)],
        (Action::Start, Victim::Command) if succeeded => vec![Running],
        (Action::Start, Victim::Command) => vec![before, Running],
        (Action::Start, _) => vec![before, Running, Exited(137)],
        (Action::Exec | Action::Nothing, Victim::Init) => vec![Exited(137)],
        (Action::Exec | Action::Nothing, _) => vec![Running],
        (Action::Stop, Victim::Command) if succeeded => vec![Exited(7)],
        (Action::Stop, Victim::Command) => vec![Running, Exited(7)],
        (Action::Stop, Victim::Init) => vec![Exited(7), Exited(137)],
        (Action::Stop, Victim::Monitor) => vec![Running, Exited(7), Exited(137), Exited(255)],
        (Action::Remove, _) if succeeded => vec![Absent],
        (Action::Remove, _) => vec![Absent, before],
        (Action::RemoveByForce, _) if succeeded => vec![Absent],
        (Action::RemoveByForce, Victim::Command) => vec![Absent, Running, Exited(137)],
        (Action::RemoveByForce, _) => vec![Absent, Running, Exited(137), Exited(255)],
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// All kills of one host.
fn host_under_fire(firewall: &str, kills: usize, seed: u64) {
    let host = Host::builder().options(["--firewall", firewall]).build();
    if host.is_docker() {
        return; // It has a daemon to kill; the promise is ours.
    }
    host.run("network create --subnet 10.97.0.0/24 small");
    host.run("run -d --name echo -p 7000:7 busybox nc -ll -p 7 -e cat");
    let mut connection = eventually("echo answers", || {
        net::Echo::connect(&host.neighbour, "192.0.2.1:7000")
    });
    let undisturbed = |host: &Host| host.inspect("echo")["State"].to_string();
    let before = undisturbed(&host);
    let stranger = Cmd::new("sleep").arg("100000").spawn_in(&host.netns);
    let left = AtomicUsize::new(kills);
    std::thread::scope(|scope| {
        for number in 0..WORKERS {
            let (host, left) = (&host, &left);
            scope.spawn(move || {
                let mut worker = Worker {
                    host,
                    name: format!("w{number}"),
                    random: StdRng::seed_from_u64(seed + number as u64),
                    state: Absent,
                    pid: None,
                    round: "nothing yet".into(),
                };
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
                {
                    worker.kill_once();
                }
            });
        }
        // The load: commands that nobody kills and that must not notice.
        let (host, left) = (&host, &left);
        scope.spawn(move || {
            while left.load(Ordering::Relaxed) > 0 {
                host.try_run("run --rm --network small busybox sh -c exit${IFS}3")
                    .exits(3);
            }
        });
    });
    connection
        .ask("after all kills")
        .expect("the connection through the bystander stands");
    assert_eq!(undisturbed(&host), before, "the bystander is disturbed");
    assert!(
        runs(stranger.pid()),
        "a process that is none of ours is gone"
    );
    drop(stranger);
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn a_thousand_kills_lose_and_leak_nothing() {
    let kills = number("CORACLE_TEST_KILLS").unwrap_or(1000) as usize;
    let seed =
        number("CORACLE_TEST_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("{kills} kills, CORACLE_TEST_SEED={seed}");
    std::thread::scope(|scope| {
        scope.spawn(|| host_under_fire("iptables", kills / 2, seed));
        scope.spawn(|| host_under_fire("nftables", kills - kills / 2, seed + 1000));
    });
}

/// In a pid namespace of its own: other processes get the numbers that a killed monitor and its container had.
#[test]
fn a_stranger_with_a_remembered_number_is_not_signalled() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let script = r#"
set -u
folder=$1 tar=$2 program=$3
c() { "$program" --root "$folder/pids-root" --run-root "$folder/pids-run" "$@"; }
take() { # a sleep with this number
  for try in $(seq 1000); do
    echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid
    sleep 100000 >/dev/null 2>&1 &
    [ $! = "$1" ] && return
    kill $!
  done
  echo "cannot take $1"; exit 1
}
c import "$tar" busybox >/dev/null || exit 1
for attempt in 1 2 3; do
  c run -d --name one busybox sleep 1000 >/dev/null || exit 1
  init=$(c inspect -f '{{.State.Pid}}' one)
  monitor=$(pgrep -f "monitor $(c inspect -f '{{.Id}}' one)")
  kill -9 "$monitor" "$init"
  while [ -e "/proc/$init/stat" ] || [ -e "/proc/$monitor/stat" ]; do sleep 0.01; done
  take "$init"; take "$monitor"
  case $attempt in
    1) c kill one >/dev/null 2>&1 ;;
    2) c stop -t 0 one >/dev/null ;;
    3) c rm -f one >/dev/null ;;
  esac
  for pid in "$init" "$monitor"; do
    [ -e "/proc/$pid/stat" ] && [ "$(cut -d' ' -f3 "/proc/$pid/stat")" != Z ] || echo "$pid was signalled"
    kill -9 "$pid"; wait "$pid" 2>/dev/null
  done
  [ $attempt = 3 ] || c rm -f one >/dev/null || exit 1
done
c system down
"#;
    let command = Cmd::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ])
        .args(["bash", "-c", script, "bash"])
        .arg(host.folder())
        .arg(images::busybox_tar())
        .arg(images::binary());
    host.with_environment(command)
        .limit(Duration::from_secs(120))
        .run_in(&host.netns)
        .ok()
        .says("");
}
