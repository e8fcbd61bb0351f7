//! The machine as the enemy: state that vanishes, disks that are full, a reboot, and commands that get in each other's way.

use std::fs;
use std::time::Duration;

use harness::images::PAGE;
use harness::{Cmd, Host, Netns, Output, eventually, net};

/// Far above what a command takes, far below the 20 seconds after which one gives up on another.
const SOON: Duration = Duration::from_secs(15);

#[track_caller]
fn soon(host: &Host, line: &str) -> Output {
    let output = host
        .command(line.split_whitespace())
        .limit(SOON)
        .run_in(&host.netns);
    host.look_for_ids();
    output
}

#[test]
fn starts_of_one_container_at_once_all_succeed_and_start_it_once() {
    let host = Host::new();
    host.run("create --name c1 busybox sleep 1000");
    let starts: Vec<_> = (0..6)
        .map(|_| {
            host.command(["start", "c1"])
                .limit(SOON)
                .spawn_in(&host.netns)
        })
        .collect();
    for start in starts {
        start.wait().ok();
    }
    host.run("ps --format {{.Names}}").says("c1");
    let ends: Vec<_> = ["stop c1", "kill c1", "stop -t 0 c1"]
        .iter()
        .map(|line| {
            host.command(line.split(' '))
                .limit(SOON)
                .spawn_in(&host.netns)
        })
        .collect();
    for end in ends {
        // `kill` may come too late.
        assert!([0, 1].contains(&end.wait().code()));
    }
    host.run("ps -q").says("");
}

/// Cleaners of /run and /tmp do that. The container's own record is in ROOT, its processes are in its cgroups.
#[test]
fn a_run_folder_that_vanishes_under_running_containers_is_mended() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    host.start_web("one", "-p 8080:80");
    host.run("run -d --name two busybox sleep 1000");
    fs::remove_dir_all(host.run_root()).unwrap();
    let ps = soon(&host, "ps --format {{.Names}}").ok();
    assert_eq!(ps.stdout.lines().count(), 2, "{ps}");
    soon(&host, "exec one true").exits(1);
    soon(&host, "stop -t 1 one").ok();
    soon(&host, "rm -f two").ok();
    soon(&host, "start one").ok();
    let page = eventually("one serves again", || {
        net::http_get(&host.neighbour, "192.0.2.1:8080")
    });
    assert_eq!(page, PAGE);
    soon(&host, "rm -f one").ok();
}

/// A reboot as far as the program can see it: no processes, no run folder, an empty network, another boot.
#[test]
fn after_a_reboot_containers_have_exited_and_start_again() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    host.run("run -d --name web -p 8080:80 busybox httpd -f -p 80 -h /www");
    host.run("run -d --name passing --rm -p 8081:80 busybox sleep 1000");
    let kill = |pid: u32| {
        let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    };
    let inits = [host.pid_of("web"), host.pid_of("passing")];
    // The monitors first: they must not see the ends.
    host.monitors().into_iter().for_each(kill);
    inits.into_iter().for_each(kill);
    fs::remove_dir_all(host.run_root()).unwrap();
    let boot = host.folder().join("boot_id");
    fs::write(&boot, "00000000-1111-2222-3333-444444444444\n").unwrap();
    let network = Netns::new();
    network.ip("link set lo up\nlink add eth0 type bridge\naddr add 192.0.2.1/24 dev eth0\nlink set eth0 up\nroute add default via 192.0.2.254\n");
    let after = |line: &str| -> Output {
        let mount = format!(
            "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
            boot.display()
        );
        let command: Cmd = host.command(line.split_whitespace());
        let output = command
            .wrapped_in(
                "unshare",
                ["-m", "--propagation", "private", "sh", "-c", &mount, "sh"],
            )
            .limit(SOON)
            .run_in(&network);
        host.look_for_ids();
        output
    };
    let ps = after("ps -a --format {{.Names}}={{.Status}}").ok();
    assert!(ps.text().starts_with("web=Exited (255)"), "{ps}");
    assert_eq!(ps.stdout.lines().count(), 1, "--rm is kept: {ps}");
    after("run -d --name other -p 8080:80 busybox sleep 1000").ok();
    after("start web")
        .exits(1)
        .complains("port is already allocated");
    after("rm -f other").ok();
    after("start web").ok();
    let page = eventually("web serves after the reboot", || {
        net::http_get(&network, "192.0.2.1:8080")
    });
    assert_eq!(page, PAGE);
    after("rm -f web").ok();
    after("system down").ok();
}

#[test]
fn a_database_that_is_none_is_told_and_not_touched() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let database = host.root().join("coracle.db");
    // The log of writes beside it holds pages that would make it whole again.
    let files: Vec<_> = ["coracle.db", "coracle.db-wal", "coracle.db-shm"]
        .iter()
        .filter_map(|name| {
            let path = host.root().join(name);
            fs::read(&path).ok().map(|bytes| (path, bytes))
        })
        .collect();
    let garbage = vec![0x55; 4096];
    for (path, _) in &files {
        fs::remove_file(path).unwrap();
    }
    fs::write(&database, &garbage).unwrap();
    for line in ["ps", "run --rm busybox true", "rm -f c1", "system down"] {
        let output = soon(&host, line);
        assert_ne!(output.code(), 0, "{output}");
        assert!(output.stderr.contains("coracle.db"), "{output}");
        assert!(!output.stderr.contains("panicked"), "{output}");
    }
    assert_eq!(fs::read(&database).unwrap(), garbage);
    for (path, bytes) in &files {
        fs::write(path, bytes).unwrap();
    }
    soon(&host, "run --rm busybox true").ok();
}

/// A full disk, in a mount namespace of the script's own: every command says so, and all works again when there is room.
#[test]
fn full_disks_are_told_and_survived() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let script = r#"
set -u
folder=$1 tar=$2 program=$3
root=$folder/full-root run=$folder/full-run
mkdir -p "$root" "$run"
mount -t tmpfs -o size=12m none "$root" && mount -t tmpfs -o size=1m none "$run" || exit 1
c() { timeout 15 "$program" --root "$root" --run-root "$run" "$@" >"$folder/out" 2>&1; }
bad() { echo "$*: exit code $code"; cat "$folder/out"; }
must() { c "$@"; code=$?; [ $code = 0 ] || bad "$@"; }
clean() { c "$@"; code=$?; case $code in 124 | 101 | 13[0-9]) bad "$@" ;; 0) ;; *) [ -s "$folder/out" ] || bad "$@" ;; esac; ! grep -q panicked "$folder/out" || bad "$@"; }
must import "$tar" busybox
must run -d --name one -p 8080:80 busybox sleep 1000
for full in "$root" "$run"; do
  dd if=/dev/zero of="$full/fill" bs=4096 2>/dev/null
  clean ps -a
  clean run --rm -p 8081:80 busybox true
  clean run -d --name two -p 8082:80 busybox sleep 1000
  clean exec one true
  clean network create net
  clean import "$tar" other
  clean stop -t 0 one
  clean start one
  rm -f "$full/fill"
  must ps -a
  must rm -f one
  c rm -f two
  c network rm net
  must run --rm -p 8081:80 -p 8082:80 busybox true
  must run -d --name one -p 8080:80 busybox sleep 1000
done
must rm -f one
must system down
umount "$root" "$run"
"#;
    let output = Cmd::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(host.folder())
        .arg(harness::images::busybox_tar())
        .arg(harness::images::binary());
    host.with_environment(output)
        .limit(Duration::from_secs(120))
        .run_in(&host.netns)
        .ok()
        .says("");
}

/// A reader that has stopped reading holds up neither the container nor the monitor's memory.
#[test]
fn a_stuck_follower_does_not_stop_a_container_that_writes_much() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let id = host
        .coracle([
            "run",
            "-d",
            "--name",
            "loud",
            "busybox",
            "sh",
            "-c",
            "while [ ! -e /go ]; do sleep 0.1; done; yes 0123456789012345678901234567890123456789 | head -c 60000000; sleep 1000",
        ])
        .ok()
        .text()
        .to_owned();
    let stuck = host.command(["logs", "-f", "loud"]).spawn_in(&host.netns);
    let attached = host.command(["attach", "loud"]).spawn_in(&host.netns);
    // A command that stands still while it writes to the database would hold up all others.
    harness::eventually("the attachment is in the database", || {
        let line = "events --since 1h --until 0s --filter event=attach";
        let told = soon(&host, line).ok();
        if told.text().is_empty() {
            Err(told)
        } else {
            Ok(())
        }
    });
    for client in [&stuck, &attached] {
        client.signal(nix::sys::signal::Signal::SIGSTOP);
    }
    soon(&host, "exec loud touch /go").ok();
    let log = host.root().join(format!("containers/{id}/json.log"));
    harness::until(Duration::from_secs(50), || {
        match fs::metadata(&log).map_or(0, |m| m.len()) {
            size if size > 60_000_000 => Ok(()),
            size => Err(size),
        }
    })
    .expect("everything is in the log");
    let monitor = host.monitor_of(&id).expect("its monitor");
    let status = fs::read_to_string(format!("/proc/{monitor}/status")).unwrap();
    let kilobytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .expect("RssAnon");
    assert!(kilobytes < 8 * 1024, "the monitor holds {kilobytes} kB");
    soon(&host, "rm -f loud").ok();
}
