//! What a container may use: each limit bites, on cgroup v1 and on v2, and can be changed, stopped and looked at.

use std::fs;
use std::path::{Path, PathBuf};

use harness::{Host, Output, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(a_memory_limit_kills_and_is_told, "run --memory", "run -m"),
    cell!(a_killed_command_is_told_at_the_containers_end, "run -m"),
    cell!(an_adopted_container_tells_of_its_memory, "run -m"),
    cell!(
        bad_memory_limits_are_refused,
        "run --memory",
        "run --memory-swap",
        "run --memory-reservation",
        "run --memory-swappiness",
        "run --kernel-memory"
    ),
    cell!(
        swap_is_twice_the_memory_or_what_is_said,
        "run --memory-swap"
    ),
    cell!(
        softer_memory_limits_are_set,
        "run --memory-reservation",
        "run --memory-swappiness",
        "run --kernel-memory"
    ),
    cell!(cpus_throttle, "run --cpus"),
    cell!(a_quota_throttles, "run --cpu-quota", "run --cpu-period"),
    cell!(shares_are_set, "run --cpu-shares", "run -c"),
    cell!(
        bad_cpu_limits_are_refused,
        "run --cpus",
        "run --cpu-shares",
        "run -c",
        "run --cpu-period",
        "run --cpu-quota"
    ),
    cell!(a_cpuset_is_kept, "run --cpuset-cpus", "run --cpuset-mems"),
    cell!(
        the_weight_of_block_io_is_set_or_said_to_be_lost,
        "run --blkio-weight"
    ),
    cell!(a_pids_limit_stops_forks, "run --pids-limit"),
    cell!(ulimits_are_set_for_run_and_exec, "run --ulimit"),
    cell!(
        the_oom_killer_is_steered,
        "run --oom-kill-disable",
        "run --oom-score-adj"
    ),
    cell!(a_cgroup_parent_holds_the_container, "run --cgroup-parent"),
    cell!(
        update_changes_a_running_container,
        "update",
        "update --memory",
        "update -m",
        "update --memory-swap",
        "update --memory-reservation",
        "update --cpus",
        "update --cpu-shares",
        "update -c",
        "update --cpuset-cpus",
        "update --cpuset-mems",
        "update --pids-limit"
    ),
    cell!(
        update_changes_a_quota,
        "update --cpu-period",
        "update --cpu-quota",
        "update --blkio-weight"
    ),
    cell!(update_changes_the_next_start, "update"),
    cell!(a_bad_update_changes_nothing, "update"),
    cell!(pause_stops_and_unpause_goes_on, "pause", "unpause"),
    cell!(
        a_paused_container_can_be_ended,
        "pause",
        "stop",
        "kill",
        "rm --force"
    ),
    cell!(
        stats_tell_what_is_used,
        "stats",
        "stats --no-stream",
        "stats --no-trunc",
        "stats --all",
        "stats -a",
        "stats --format"
    ),
    cell!(stats_are_drawn_again, "stats"),
    cell!(top_shows_the_containers_processes, "top"),
];

/// Takes more and more memory.
const EATER: &str = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done";

/// Takes all the CPU that it gets.
const BURNER: &str = "while true; do :; done";

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Where a container's first process is in the hierarchy of a controller.
#[track_caller]
fn cgroup_of(host: &Host, container: &str, controller: &str) -> PathBuf {
    let pid = host.pid_of(container);
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container runs");
    let root = Path::new("/sys/fs/cgroup");
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next(), fields.next());
        let (controllers, path) = (controllers.unwrap_or(""), path.unwrap_or(""));
        let below = path.trim_start_matches('/');
        if is_v2() && controllers.is_empty() {
            return root.join(below);
        }
        if !is_v2() && controllers.split(',').any(|one| one == controller) {
            return root.join(controllers).join(below);
        }
    }
    panic!("{container} is in no cgroup of {controller}: {text}");
}

/// A value of a running container, by the file that either version has for it.
#[track_caller]
fn limit(host: &Host, container: &str, controller: &str, v1: &str, v2: &str) -> String {
    let file = if is_v2() { v2 } else { v1 };
    let path = cgroup_of(host, container, controller).join(file);
    let text = fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

fn memory(host: &Host, container: &str) -> String {
    limit(
        host,
        container,
        "memory",
        "memory.limit_in_bytes",
        "memory.max",
    )
}

fn pids(host: &Host, container: &str) -> String {
    limit(host, container, "pids", "pids.max", "pids.max")
}

/// Quota and period.
fn bandwidth(host: &Host, container: &str) -> String {
    match is_v2() {
        true => limit(host, container, "cpu", "", "cpu.max"),
        false => format!(
            "{} {}",
            limit(host, container, "cpu", "cpu.cfs_quota_us", ""),
            limit(host, container, "cpu", "cpu.cfs_period_us", "")
        ),
    }
}

#[track_caller]
fn sh(host: &Host, options: &str, script: &str) -> Output {
    let mut words: Vec<&str> = options.split_whitespace().collect();
    words.extend(["busybox", "sh", "-c", script]);
    host.coracle(words)
}

#[track_caller]
fn sleeper(host: &Host, name: &str, options: &str) {
    host.run(&format!(
        "run -d --name {name} --network none {options} busybox sleep 1000"
    ));
}

#[track_caller]
fn refused(host: &Host, options: &str, why: &str) {
    let containers = host.run("ps -aq").stdout;
    host.try_run(&format!("create {options} busybox true"))
        .complains(why);
    let output = host.try_run(&format!("run --rm {options} busybox true"));
    output.exits(125).complains(why);
    assert_eq!(host.run("ps -aq").stdout, containers, "{options}");
}

#[track_caller]
fn throttled(host: &Host, container: &str) {
    let count = || {
        let statistics = limit(host, container, "cpu", "cpu.stat", "cpu.stat");
        let line = statistics
            .lines()
            .find_map(|l| l.strip_prefix("nr_throttled "));
        line.and_then(|count| count.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let before = count();
    eventually("the container is throttled again and again", || {
        let now = count();
        if now > before + 2 {
            Ok(())
        } else {
            Err(format!("{before}, then {now}"))
        }
    });
}

fn oom_killed(host: &Host, container: &str) -> bool {
    host.inspect(container)["State"]["OOMKilled"] == true
}

fn a_memory_limit_kills_and_is_told() {
    let host = Host::new();
    sh(&host, "run --name eater --network none -m 16m", EATER).exits(137);
    assert!(oom_killed(&host, "eater"));
    let events = host.run("events --since 1h --until 0s --filter event=oom --format {{.Action}}");
    assert_eq!(events.text(), "oom", "told once");
    // 137 alone says nothing.
    sleeper(&host, "killed", "--memory 16m");
    assert_eq!(memory(&host, "killed"), "16777216");
    host.run("kill killed");
    host.run("wait killed").says("137");
    assert!(!oom_killed(&host, "killed"));
    // What the last run was killed for does not stick to the next one.
    host.run("start killed");
    host.run("stop -t 0 killed");
    assert!(!oom_killed(&host, "killed"));
}

fn a_killed_command_is_told_at_the_containers_end() {
    let host = Host::new();
    sleeper(&host, "main", "-m 16m");
    host.coracle(["exec", "main", "sh", "-c", EATER]).exits(137);
    assert!(!oom_killed(&host, "main"), "it runs still");
    host.run("stop -t 0 main");
    assert!(oom_killed(&host, "main"), "as Docker has it");
    let script = format!("({EATER}); exit 3");
    sh(&host, "run --name parent --network none -m 16m", &script).exits(3);
    assert!(oom_killed(&host, "parent"));
}

fn an_adopted_container_tells_of_its_memory() {
    let host = Host::new();
    let script = format!("until [ -e /go ]; do sleep 0.1; done; {EATER}");
    let id = sh(&host, "run -d --name eater --network none -m 16m", &script).ok();
    if host.is_docker() {
        return;
    }
    let monitor = host.monitor_of(id.text()).expect("its monitor");
    kill(Pid::from_raw(monitor.cast_signed()), Signal::SIGKILL).expect("kill the monitor");
    eventually("another monitor takes over", || {
        host.run("ps");
        match host.monitor_of(id.text()) {
            Some(found) if found != monitor => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    host.run("exec eater touch /go");
    // How somebody else's child has ended is told by Linux 6.15 and later; before, the code is that of what is not known.
    let code = host.run("wait eater");
    assert!(["137", "255"].contains(&code.text()), "{code}");
    assert!(oom_killed(&host, "eater"));
}

fn bad_memory_limits_are_refused() {
    let host = Host::new();
    refused(&host, "-m 1m", "Minimum memory limit allowed is 6MB");
    refused(
        &host,
        "--memory foo",
        "invalid argument \"foo\" for \"-m, --memory\" flag: invalid size: 'foo'",
    );
    refused(&host, "-m 5x", "invalid suffix: 'x'");
    refused(
        &host,
        "-m 64m --memory-swap 32m",
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    );
    refused(
        &host,
        "--memory-swap 64m",
        "You should always set the Memory limit when using Memoryswap limit, see usage",
    );
    refused(
        &host,
        "-m 64m --memory-swap -2",
        "invalid argument \"-2\" for \"--memory-swap\" flag: invalid size: '-2'",
    );
    refused(
        &host,
        "--memory-reservation 1m",
        "Minimum memory reservation allowed is 6MB",
    );
    refused(
        &host,
        "-m 64m --memory-reservation 65m",
        "Minimum memory limit can not be less than memory reservation limit, see usage",
    );
    refused(
        &host,
        "--memory-swappiness 101",
        "invalid value: 101. Valid memory swappiness range is 0-100",
    );
    refused(
        &host,
        "--memory-swappiness x",
        "strconv.ParseInt: parsing \"x\": invalid syntax",
    );
    refused(
        &host,
        "--kernel-memory 4m",
        "Minimum kernel memory limit allowed is 6MB",
    );
}

fn swap_is_twice_the_memory_or_what_is_said() {
    let host = Host::new();
    // What is asked for; in inspect; on v1 memory and swap together, on v2 swap alone.
    for (name, asked, shown, v1, v2) in [
        ("twice", "", 128 << 20, "134217728", "67108864"),
        ("none", "--memory-swap 64m", 64 << 20, "67108864", "0"),
        (
            "more",
            "--memory-swap 96m",
            96 << 20,
            "100663296",
            "33554432",
        ),
        ("all", "--memory-swap -1", -1, "", "max"),
    ] {
        sleeper(&host, name, &format!("-m 64m {asked}"));
        assert_eq!(
            host.inspect(name)["HostConfig"]["MemorySwap"],
            shown,
            "{name}"
        );
        assert_eq!(memory(&host, name), "67108864");
        let swap = limit(
            &host,
            name,
            "memory",
            "memory.memsw.limit_in_bytes",
            "memory.swap.max",
        );
        match (is_v2(), v1) {
            (true, _) => assert_eq!(swap, v2, "{name}"),
            // No limit is the largest number of pages.
            (false, "") => assert!(swap.len() > 15, "{swap}"),
            (false, _) => assert_eq!(swap, v1, "{name}"),
        }
    }
    sleeper(&host, "free", "--memory-swap -1");
    assert!(
        memory(&host, "free")
            .parse::<u64>()
            .is_ok_and(|n| n > 1 << 60)
            || is_v2()
    );
}

fn softer_memory_limits_are_set() {
    let host = Host::new();
    sleeper(&host, "soft", "-m 64m --memory-reservation 32m");
    let soft = limit(
        &host,
        "soft",
        "memory",
        "memory.soft_limit_in_bytes",
        "memory.low",
    );
    assert_eq!(soft, "33554432");
    let line = "create --name swappy --memory-swappiness 10 busybox true";
    let created = host.run(line);
    match is_v2() {
        true => drop(created.complains("Memory swappiness discarded")),
        false => {
            assert_eq!(host.inspect("swappy")["HostConfig"]["MemorySwappiness"], 10);
            sleeper(&host, "less", "--memory-swappiness 10");
            assert_eq!(
                limit(&host, "less", "memory", "memory.swappiness", ""),
                "10"
            );
        }
    }
    host.run("create --memory-swappiness -1 busybox true");
    let kernel = host.run("create --kernel-memory 64m busybox true");
    kernel.complains("WARNING: Specifying a kernel memory limit is deprecated");
}

fn cpus_throttle() {
    let host = Host::new();
    sh(
        &host,
        "run -d --name burner --network none --cpus 0.1",
        BURNER,
    )
    .ok();
    assert_eq!(bandwidth(&host, "burner"), "10000 100000");
    assert_eq!(
        host.inspect("burner")["HostConfig"]["NanoCpus"],
        100_000_000
    );
    throttled(&host, "burner");
}

fn a_quota_throttles() {
    let host = Host::new();
    let options = "run -d --name burner --network none --cpu-period 50000 --cpu-quota 5000";
    sh(&host, options, BURNER).ok();
    assert_eq!(bandwidth(&host, "burner"), "5000 50000");
    throttled(&host, "burner");
    sleeper(&host, "free", "--cpu-quota -1");
    let free = if is_v2() { "max 100000" } else { "-1 100000" };
    assert_eq!(bandwidth(&host, "free"), free);
}

fn shares_are_set() {
    let host = Host::new();
    sleeper(&host, "few", "-c 512");
    sleeper(&host, "many", "--cpu-shares 2048");
    let weight = |name| -> u64 {
        let text = limit(&host, name, "cpu", "cpu.shares", "cpu.weight");
        text.parse().expect("a number")
    };
    assert!(weight("few") < weight("many"));
    if !is_v2() {
        assert_eq!((weight("few"), weight("many")), (512, 2048));
    }
    assert_eq!(host.inspect("few")["HostConfig"]["CpuShares"], 512);
}

fn bad_cpu_limits_are_refused() {
    let host = Host::new();
    refused(&host, "--cpus 10000", "Range of CPUs is from 0.01 to ");
    refused(&host, "--cpus -1", "Range of CPUs is from 0.01 to ");
    refused(
        &host,
        "--cpus x",
        "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number",
    );
    refused(&host, "--cpus 1.0000000001", "value is too precise");
    refused(
        &host,
        "--cpus 1 --cpu-quota 1000",
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
    );
    refused(
        &host,
        "--cpus 1 --cpu-period 1000",
        "Conflicting options: Nano CPUs and CPU Period cannot both be set",
    );
    refused(
        &host,
        "--cpu-period 999",
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
    );
    refused(
        &host,
        "--cpu-quota 999",
        "CPU cfs quota can not be less than 1ms (i.e. 1000)",
    );
    refused(
        &host,
        "-c x",
        "invalid argument \"x\" for \"-c, --cpu-shares\" flag",
    );
    if !host.is_docker() {
        // Docker refuses these at the start only.
        refused(&host, "-c 1", "the minimum allowed cpu-shares is 2");
        refused(
            &host,
            "--cpu-shares 999999",
            "the maximum allowed cpu-shares is 262144",
        );
        refused(&host, "--cpus 0.001", "Range of CPUs is from 0.01 to ");
    }
}

fn a_cpuset_is_kept() {
    let host = Host::new();
    let inside = sh(
        &host,
        "run --rm --network none --cpuset-cpus 0 --cpuset-mems 0",
        "grep -E '^(Cpus|Mems)_allowed_list' /proc/self/status",
    );
    let lines = inside.ok().stdout.replace(char::is_whitespace, "");
    assert_eq!(lines, "Cpus_allowed_list:0Mems_allowed_list:0");
    refused(
        &host,
        "--cpuset-cpus 4096",
        "Requested CPUs are not available - requested 4096, available: 0",
    );
    refused(
        &host,
        "--cpuset-mems 999",
        "Requested memory nodes are not available - requested 999, available: 0",
    );
    refused(
        &host,
        "--cpuset-cpus x",
        "Invalid value x for cpuset cpus: invalid format: x",
    );
    refused(
        &host,
        "--cpuset-mems x",
        "Invalid value x for cpuset mems: invalid format: x",
    );
}

fn the_weight_of_block_io_is_set_or_said_to_be_lost() {
    let host = Host::new();
    let created = host.run("create --name heavy --blkio-weight 300 busybox sleep 1000");
    let lost = created
        .stderr
        .contains("WARNING: Your kernel does not support Block I/O weight");
    let shown = if lost { 0 } else { 300 };
    assert_eq!(host.inspect("heavy")["HostConfig"]["BlkioWeight"], shown);
    host.run("start heavy");
    if !lost {
        refused(
            &host,
            "--blkio-weight 5",
            "Range of blkio weight is from 10 to 1000",
        );
        let controller = if is_v2() { "io" } else { "blkio" };
        let folder = cgroup_of(&host, "heavy", controller);
        let files = [
            "blkio.weight",
            "blkio.bfq.weight",
            "io.bfq.weight",
            "io.weight",
        ];
        let values: Vec<String> = files
            .iter()
            .filter_map(|file| fs::read_to_string(folder.join(file)).ok())
            .collect();
        let set = |value: &String| value.contains("300") || value.contains("2930");
        assert!(values.is_empty() || values.iter().any(set), "{values:?}");
    }
    refused(
        &host,
        "--blkio-weight x",
        "strconv.ParseUint: parsing \"x\": invalid syntax",
    );
}

fn a_pids_limit_stops_forks() {
    let host = Host::new();
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all";
    let output = sh(&host, "run --rm --network none --pids-limit 5", script);
    assert!(!output.stdout.contains("all"), "{output}");
    assert!(output.stderr.contains("can't fork"), "{output}");
    sleeper(&host, "five", "--pids-limit 5");
    assert_eq!(pids(&host, "five"), "5");
    assert_eq!(host.inspect("five")["HostConfig"]["PidsLimit"], 5);
    sleeper(&host, "free", "--pids-limit -1");
    assert_eq!(pids(&host, "free"), "max");
    refused(
        &host,
        "--pids-limit x",
        "strconv.ParseInt: parsing \"x\": invalid syntax",
    );
}

fn ulimits_are_set_for_run_and_exec() {
    let host = Host::new();
    let both = "ulimit -Sn; ulimit -Hn";
    let options = "run -d --name few --network none --ulimit nofile=100:200 --ulimit core=0";
    sh(&host, options, "sleep 1000").ok();
    host.coracle(["exec", "few", "sh", "-c", both])
        .ok()
        .says("100\n200");
    // So few that what starts the container could not go on with them; and the last one counts.
    let few = if host.is_docker() { 64 } else { 5 };
    let options = format!("run --rm --network none --ulimit nofile=9 --ulimit nofile={few}");
    sh(&host, &options, both)
        .ok()
        .says(&format!("{few}\n{few}"));
    let options = "run --rm --network none -u 1000 --ulimit nofile=64:64";
    sh(&host, options, both).ok().says("64\n64");
    let shown = host.inspect("few")["HostConfig"]["Ulimits"].to_string();
    assert!(shown.contains("nofile") && shown.contains("200"), "{shown}");
    refused(
        &host,
        "--ulimit x=1",
        "invalid argument \"x=1\" for \"--ulimit\" flag: invalid ulimit type: x",
    );
    refused(&host, "--ulimit nofile", "invalid ulimit argument: nofile");
    refused(
        &host,
        "--ulimit nofile=x",
        "strconv.ParseInt: parsing \"x\": invalid syntax",
    );
    refused(
        &host,
        "--ulimit nofile=5:3",
        "ulimit soft limit must be less than or equal to hard limit: 5 > 3",
    );
    refused(
        &host,
        "--ulimit nofile=1:2:3",
        "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`",
    );
    if !may_raise_limits() && !host.is_docker() {
        refused(
            &host,
            "--ulimit nofile=99999999",
            "only a process with CAP_SYS_RESOURCE may raise it",
        );
    } else if !host.is_docker() {
        let options = "run --rm --network none --ulimit nproc=4000000:4000000";
        sh(&host, options, "ulimit -Hp").ok().says("4000000");
    }
}

/// CAP_SYS_RESOURCE, number 24, among our effective capabilities.
fn may_raise_limits() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << 24) != 0)
}

fn the_oom_killer_is_steered() {
    let host = Host::new();
    let score = "cat /proc/self/oom_score_adj";
    sh(&host, "run --rm --network none --oom-score-adj 500", score)
        .ok()
        .says("500");
    let id = host.run("run -d --name ready --network none --oom-score-adj 500 busybox sleep 1000");
    host.run("exec ready cat /proc/self/oom_score_adj")
        .says("500");
    if !host.is_docker() {
        // The monitor would be the first to go.
        let monitor = host.monitor_of(id.text()).expect("its monitor");
        let own = fs::read_to_string(format!("/proc/{monitor}/oom_score_adj"));
        let ours = fs::read_to_string("/proc/self/oom_score_adj");
        assert_eq!(own.ok(), ours.ok());
    }
    refused(
        &host,
        "--oom-score-adj 1001",
        "Invalid value 1001, range for oom score adj is [-1000, 1000]",
    );
    refused(
        &host,
        "--oom-score-adj x",
        "strconv.ParseInt: parsing \"x\": invalid syntax",
    );
    let line = "run -d --name patient --network none --oom-kill-disable -m 16m busybox sleep 1000";
    let patient = host.run(line);
    match is_v2() {
        true => drop(patient.complains("OomKillDisable discarded")),
        false => {
            let control = limit(&host, "patient", "memory", "memory.oom_control", "");
            assert!(control.starts_with("oom_kill_disable 1"), "{control}");
        }
    }
    if !is_v2() {
        let warned = host.run("create --oom-kill-disable busybox true");
        warned.complains(
            "WARNING: OOM killer is disabled for the container, but no memory limit is set",
        );
    }
}

fn a_cgroup_parent_holds_the_container() {
    let host = Host::new();
    let parent = format!("coracle-test-{}", host.netns.id());
    let id = host
        .run(&format!("run -d --name child --network none -m 64m --cgroup-parent /{parent}/x/../y busybox sleep 1000"))
        .text()
        .to_owned();
    let folder = cgroup_of(&host, "child", "memory");
    assert!(
        folder.ends_with(format!("{parent}/y/{id}")),
        "{}",
        folder.display()
    );
    assert_eq!(memory(&host, "child"), "67108864");
    // Nothing stays, even when its monitor and it are killed at once.
    if !host.is_docker() {
        let monitor = host.monitor_of(&id).expect("its monitor");
        for pid in [monitor, host.pid_of("child")] {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("kill it");
        }
        eventually("the next command cleans up", || {
            host.run("ps");
            if folder.exists() {
                Err(folder.display())
            } else {
                Ok(())
            }
        });
    }
    host.run("rm -f child");
    assert!(!folder.exists());
    remove_parent(&parent);
}

/// The parent is the user's, and stays.
fn remove_parent(parent: &str) {
    let root = PathBuf::from("/sys/fs/cgroup");
    let below = fs::read_dir(&root).into_iter().flatten().flatten();
    for hierarchy in below.map(|entry| entry.path()).chain([root.clone()]) {
        for folder in [format!("{parent}/y"), parent.to_owned()] {
            let _ = fs::remove_dir(hierarchy.join(folder));
        }
    }
}

fn update_changes_a_running_container() {
    let host = Host::new();
    sleeper(&host, "web", "-m 64m");
    host.run("update -m 100m web").says("web");
    assert_eq!(memory(&host, "web"), "104857600");
    // Up beyond where memory and swap were, and down again.
    host.run("update --memory 200m --memory-swap 300m web");
    assert_eq!(memory(&host, "web"), "209715200");
    host.run("update -m 32m --memory-swap 40m --memory-reservation 16m web");
    assert_eq!(memory(&host, "web"), "33554432");
    let swap = limit(
        &host,
        "web",
        "memory",
        "memory.memsw.limit_in_bytes",
        "memory.swap.max",
    );
    assert_eq!(swap, if is_v2() { "8388608" } else { "41943040" });
    host.run("update --memory-swap -1 web");
    host.run("update --cpus 0.5 -c 512 --pids-limit 7 --cpuset-cpus 0 --cpuset-mems 0 web");
    host.run("update --cpu-shares 256 web");
    assert_eq!(bandwidth(&host, "web"), "50000 100000");
    assert_eq!(pids(&host, "web"), "7");
    let inside = host.run("exec web grep Cpus_allowed_list /proc/self/status");
    assert_eq!(inside.text().split_whitespace().last(), Some("0"));
    let config = host.inspect("web")["HostConfig"].take();
    for (field, value) in [
        ("Memory", 32 << 20),
        ("MemorySwap", -1),
        ("MemoryReservation", 16 << 20),
        ("NanoCpus", 500_000_000),
        ("CpuShares", 256),
        ("PidsLimit", 7),
    ] {
        assert_eq!(config[field], value, "{field}");
    }
    assert_eq!(config["CpusetCpus"], "0");
    host.run("update --pids-limit -1 web");
    assert_eq!(pids(&host, "web"), "max");
    // And they bite.
    host.run("update -m 16m --memory-swap 16m web");
    host.coracle(["exec", "web", "sh", "-c", EATER]).exits(137);
}

fn update_changes_a_quota() {
    let host = Host::new();
    sh(&host, "run -d --name burner --network none", BURNER).ok();
    host.run("update --cpu-period 50000 --cpu-quota 5000 burner");
    assert_eq!(bandwidth(&host, "burner"), "5000 50000");
    throttled(&host, "burner");
    host.run("update --blkio-weight 100 burner").says("burner");
    let kernel = host.run("update --kernel-memory 64m burner");
    kernel
        .says("burner")
        .complains("Specifying a kernel memory limit is deprecated");
}

fn update_changes_the_next_start() {
    let host = Host::new();
    host.run("create --name one --network none -m 64m busybox sleep 1000");
    host.run("create --name two --network none busybox sleep 1000");
    host.run("update -m 32m --pids-limit 9 one two --memory-swap 64m")
        .says("one\ntwo");
    for name in ["one", "two"] {
        host.run(&format!("start {name}"));
        assert_eq!(memory(&host, name), "33554432");
        assert_eq!(pids(&host, name), "9");
    }
}

fn a_bad_update_changes_nothing() {
    let host = Host::new();
    sleeper(&host, "web", "-m 64m --cpus 0.5");
    let before = host.inspect("web")["HostConfig"].take();
    for (options, why) in [
        ("-m 1m", "Minimum memory limit allowed is 6MB"),
        (
            "-m 200m",
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ),
        (
            "-m 90m --memory-swap 80m",
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            "--cpu-period 1000",
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ),
        ("--cpus 10000", "Range of CPUs is from 0.01 to "),
        ("--cpuset-cpus 4096", "Requested CPUs are not available"),
        (
            "--pids-limit 5 --cpu-quota 5",
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ),
    ] {
        host.try_run(&format!("update {options} web"))
            .exits(1)
            .complains(why);
    }
    // What the kernel refuses half-way, because the container holds more than that already: the shares have been written by then.
    if !is_v2() && !host.is_docker() {
        let script =
            "x=$(head -c 20000000 /dev/zero | tr '\\0' a); echo ready; sleep 1000; echo $x";
        sh(
            &host,
            "run -d --name full --network none -m 128m --memory-swap 128m --memory-swappiness 0",
            script,
        )
        .ok();
        eventually("it holds its memory", || {
            match host.run("logs full").text() {
                "ready" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        let line = "update -c 99 -m 8m --memory-swap 8m --pids-limit 3 full";
        host.try_run(line)
            .exits(1)
            .complains("Cannot update container");
        assert_eq!(memory(&host, "full"), "134217728");
        assert_eq!(limit(&host, "full", "cpu", "cpu.shares", ""), "1024");
        assert_eq!(host.inspect("full")["HostConfig"]["CpuShares"], 0);
        assert_eq!(pids(&host, "full"), "max");
    }
    assert_eq!(host.inspect("web")["HostConfig"], before);
    assert_eq!(memory(&host, "web"), "67108864");
    host.try_run("update web")
        .exits(1)
        .complains("you must provide one or more flags when using this command");
    host.try_run("update -c 512 nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("update -c 512")
        .exits(1)
        .complains("requires at least 1 argument");
    // The others are changed all the same.
    host.try_run("update -c 512 nope web").exits(1).says("web");
}

fn pause_stops_and_unpause_goes_on() {
    let host = Host::new();
    let count = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done";
    sh(&host, "run -d --name clock --network none", count).ok();
    let lines = || host.run("logs clock").stdout.lines().count();
    let more_than = |count: usize| {
        eventually("the clock goes", || match lines() {
            now if now > count => Ok(now),
            now => Err(now),
        })
    };
    let id = host.inspect("clock")["Id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    more_than(2);
    host.run("pause clock").says("clock");
    host.run("ps --format {{.State}}").says("paused");
    assert!(host.run("ps").text().contains("(Paused)"));
    let state = host.inspect("clock")["State"].take();
    assert_eq!(
        (&state["Status"], &state["Paused"]),
        (&"paused".into(), &true.into())
    );
    // What had been written before may still be on its way.
    let still = eventually("the clock stands", || {
        let before = lines();
        std::thread::sleep(std::time::Duration::from_millis(400));
        match lines() {
            now if now == before => Ok(now),
            now => Err(format!("{before}, then {now}")),
        }
    });
    host.try_run("pause clock")
        .exits(1)
        .complains(&format!("Container {id} is already paused"));
    host.try_run("exec clock true")
        .exits(1)
        .complains("Container clock is paused, unpause the container before exec");
    host.try_run("start clock")
        .exits(1)
        .complains("cannot start a paused container, try unpause instead");
    host.try_run("rm clock")
        .exits(1)
        .complains("You cannot remove a paused container");
    host.run("top clock");
    host.run("unpause clock").says("clock");
    more_than(still);
    host.try_run("unpause clock")
        .exits(1)
        .complains(&format!("Container {id} is not paused"));
    host.run("stop -t 0 clock");
    host.try_run("pause clock")
        .exits(1)
        .complains(&format!("Container {id} is not running"));
    host.try_run("unpause clock")
        .exits(1)
        .complains("is not paused");
    host.try_run("pause nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("unpause nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("pause")
        .exits(1)
        .complains("requires at least 1 argument");
}

fn a_paused_container_can_be_ended() {
    let host = Host::new();
    let polite = "trap 'exit 7' TERM; while true; do sleep 0.05; done";
    for name in ["stopped", "killed", "removed", "forgotten"] {
        sh(
            &host,
            &format!("run -d --name {name} --network none"),
            polite,
        )
        .ok();
    }
    // Its trap is set once it has slept.
    for name in ["stopped", "killed", "removed", "forgotten"] {
        eventually("it sleeps", || {
            let shown = host.run(&format!("top {name}")).stdout;
            if shown.contains("sleep 0.05") {
                Ok(())
            } else {
                Err(shown)
            }
        });
        host.run(&format!("pause {name}"));
    }
    host.run("stop stopped").says("stopped");
    assert_eq!(host.inspect("stopped")["State"]["ExitCode"], 7);
    host.run("kill killed");
    host.run("wait killed").says("137");
    host.run("rm -f removed").says("removed");
    // A killed monitor's container is found, paused as it is.
    if !host.is_docker() {
        let id = host.inspect("forgotten")["Id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let monitor = host.monitor_of(&id).expect("its monitor");
        kill(Pid::from_raw(monitor.cast_signed()), Signal::SIGKILL).expect("kill it");
        eventually("it is adopted", || match host.monitor_of(&id) {
            Some(found) if found != monitor => Ok(()),
            _ => Err(host.run("ps").stdout),
        });
        assert_eq!(host.inspect("forgotten")["State"]["Paused"], true);
    }
    host.run("rm -f forgotten");
    assert_eq!(host.run("ps -aq").stdout.lines().count(), 2);
}

fn stats_tell_what_is_used() {
    let host = Host::new();
    sh(&host, "run -d --name busy -m 64m", BURNER).ok();
    host.run("create --name idle busybox true");
    let table = host.run("stats --no-stream").stdout;
    let mut lines = table.lines();
    let columns = [
        "CONTAINER ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "PIDS",
    ];
    let heading = lines.next().unwrap_or_default();
    let titles: Vec<&str> = heading
        .split("  ")
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .collect();
    assert_eq!(titles, columns);
    let row = lines.next().unwrap_or_default();
    assert!(row.contains("busy") && row.contains("/ 64MiB"), "{table}");
    assert_eq!(lines.next(), None, "{table}");
    assert!(host.run("stats --no-stream -a").stdout.contains("idle"));
    assert!(
        host.run("stats --no-stream --all idle")
            .stdout
            .contains("0B / 0B")
    );
    let id = host.inspect("busy")["Id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        host.run("stats --no-stream --no-trunc")
            .stdout
            .contains(&id)
    );
    let percent = || -> f64 {
        let shown = host.run("stats --no-stream --format {{.CPUPerc}} busy");
        shown.text().trim_end_matches('%').parse().unwrap_or(0.0)
    };
    eventually("the busy one uses the CPU", || match percent() {
        used if used > 5.0 => Ok(()),
        used => Err(used),
    });
    let json = host.run("stats --no-stream --format json busy").json();
    assert_eq!(
        (&json["Container"], &json["Name"], &json["PIDs"]),
        (&"busy".into(), &"busy".into(), &"1".into())
    );
    // Its network's counters are its own.
    host.coracle([
        "exec",
        "busy",
        "sh",
        "-c",
        "head -c 100000 /dev/zero | nc -u -w 1 172.18.0.1 9; true",
    ]);
    let format = "{{.Name}} {{.NetIO}} {{.BlockIO}} {{.MemPerc}}";
    let shown = host
        .coracle(["stats", "--no-stream", "--format", format, "busy"])
        .ok();
    assert!(
        shown.text().starts_with("busy ") && shown.text().matches(" / ").count() == 2,
        "{shown}"
    );
    host.try_run("stats --no-stream nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("stats --no-stream --format {{.Nope}}")
        .exits(1)
        .complains("can't evaluate field Nope");
}

fn stats_are_drawn_again() {
    let host = Host::new();
    sleeper(&host, "web", "");
    let stats = host.command(["stats"]).spawn_in(&host.netns);
    // It goes on until it is told to end; what it has drawn by then, it has drawn more than once.
    std::thread::sleep(std::time::Duration::from_secs(4));
    stats.signal(Signal::SIGTERM);
    let output = stats.wait();
    assert_ne!(output.code(), 0);
    assert!(output.stdout.matches("\x1b[H").count() >= 2, "{output}");
    assert!(output.stdout.matches("web").count() >= 2, "{output}");
}

fn top_shows_the_containers_processes() {
    let host = Host::new();
    sh(
        &host,
        "run -d --name web --network none",
        "sleep 2000 & sleep 1000; true",
    )
    .ok();
    let shown = eventually("both programs run", || {
        let shown = host.run("top web").stdout;
        match shown.lines().count() == 4 {
            true => Ok(shown),
            false => Err(shown),
        }
    });
    let titles: Vec<&str> = shown
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(
        titles,
        ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    );
    assert!(
        shown.contains("sleep 1000") && shown.contains("sleep 2000"),
        "{shown}"
    );
    let pid = host.pid_of("web").to_string();
    assert!(
        shown
            .lines()
            .any(|line| line.split_whitespace().nth(1) == Some(&pid)),
        "{shown}"
    );
    assert!(
        !host.run("top web").stdout.contains("coracle"),
        "nobody else's"
    );
    let aux = host.run("top web aux").stdout;
    assert!(aux.contains("%CPU") && aux.contains("sleep 1000"), "{aux}");
    let own = host.run("top web -o pid,cmd").stdout;
    assert_eq!(
        own.split_whitespace().take(2).collect::<Vec<_>>(),
        ["PID", "CMD"]
    );
    host.try_run("top web -o cmd")
        .exits(1)
        .complains("Couldn't find PID field in ps output");
    host.try_run("top web -o bogus")
        .exits(1)
        .complains("ps: error: unknown user-defined format specifier \"bogus\"");
    host.try_run("top nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("top")
        .exits(1)
        .complains("requires at least 1 argument");
    host.run("stop -t 0 web");
    host.try_run("top web").exits(1).complains("is not running");
}
