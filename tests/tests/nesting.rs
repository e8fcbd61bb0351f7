//! Containers in containers: our program inside itself, and Debian's dockerd inside ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::host::{HOST, NEIGHBOUR};
use harness::images::PAGE;
use harness::{Cmd, Host, Netns, Output, eventually, nest, net, rules, until};

/// Three engines, one inside the other, on a host whose firewall is written by `firewall`; the innermost runs a web server and
/// a UDP one, published at each level.
#[track_caller]
fn three_levels(firewall: &str) -> Host {
    let host = Host::builder().options(["--firewall", firewall]).build();
    nest::import(&host, &nest::coracle_tar(), "nest", "/var/lib/coracle");
    let tar = nest::coracle_tar();
    let engine = format!(
        "run -d --privileged -e CORACLE_FIREWALL={firewall} -p 8080:8080 -p 5353:5353/udp -v"
    );
    host.run(&format!(
        "{engine} {}:/nest.tar:ro --name one nest sleep 1000",
        tar.display()
    ));
    let inside = format!(
        "set -e
        coracle import --change 'VOLUME /var/lib/coracle' /nest.tar nest
        coracle {engine} /nest.tar:/nest.tar:ro --name two nest sleep 1000
        coracle exec two sh -ec '
          coracle import /busybox.tar busybox
          coracle run -d --name web -p 8080:80 busybox httpd -f -p 80 -h /www
          coracle run -d --name udp -p 5353:5353/udp busybox sleep 1000
        '"
    );
    in_container(&host, "one", &inside).ok();
    host
}

#[track_caller]
fn in_container(host: &Host, name: &str, script: &str) -> Output {
    host.command(["exec", name, "sh", "-c", script])
        .limit(Duration::from_secs(180))
        .run_in(&host.netns)
}

#[track_caller]
fn reached_from_everywhere(host: &Host) {
    let web = format!("{HOST}:8080");
    for (who, from, to) in [
        ("the neighbour", &host.neighbour, &web),
        // Its address here is the outermost bridge's, which must be no address of the innermost network.
        ("the host itself", &host.netns, &web),
        (
            "the host by loopback",
            &host.netns,
            &"127.0.0.1:8080".to_owned(),
        ),
    ] {
        let page = eventually(who, || net::http_get(from, to));
        assert_eq!(page, PAGE, "{who}");
    }
    let id = host.run("inspect --format {{.Id}} one").text().to_owned();
    let ids = in_container(
        host,
        "one",
        "coracle ps -q --no-trunc; coracle exec two coracle ps -q --no-trunc -f name=udp",
    )
    .ok();
    let path: PathBuf = ids.stdout.lines().flat_map(|id| ["coracle", id]).collect();
    let innermost = Netns::of_process(first_process(&id, &path)).expect("the innermost network");
    let _server = net::UdpServer::start(&innermost, 5353);
    let answer = eventually("UDP from the neighbour", || {
        net::udp_ask(&host.neighbour, &format!("{HOST}:5353"), "down and up")
    });
    // Who asked is seen through all three levels.
    assert_eq!(answer, format!("5353 {NEIGHBOUR} down and up"));
}

/// The first process in a cgroup that a container has made below its own.
#[track_caller]
fn first_process(id: &str, below: &Path) -> u32 {
    let all = cgroups_of(id);
    let text = all
        .iter()
        .find_map(|path| fs::read_to_string(path.join(below).join("cgroup.procs")).ok())
        .unwrap_or_else(|| panic!("no {} below {all:?}", below.display()));
    let first = text.lines().next().and_then(|line| line.parse().ok());
    first.unwrap_or_else(|| panic!("no process in {}: {text}", below.display()))
}

#[test]
fn three_levels_are_reached_from_the_neighbour_through_iptables() {
    let host = three_levels("iptables");
    reached_from_everywhere(&host);
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn three_levels_are_reached_from_the_neighbour_through_nftables() {
    let host = three_levels("nftables");
    reached_from_everywhere(&host);
    host.remove_everything();
    host.assert_clean();
}

/// The cgroups of the container of this ID, in every hierarchy.
fn cgroups_of(id: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    hierarchies
        .map(|entry| entry.path())
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|hierarchy| hierarchy.join("coracle").join(id))
        .filter(|path| path.is_dir())
        .collect()
}

#[test]
fn a_killed_outer_container_takes_all_inner_ones_and_their_cgroups_along() {
    let host = three_levels("iptables");
    let id = host.run("inspect --format {{.Id}} one").text().to_owned();
    let two = in_container(&host, "one", "coracle ps -q --no-trunc").ok();
    let three = in_container(&host, "one", "coracle exec two coracle ps -q --no-trunc").ok();
    let three = three.text().lines().next().unwrap_or_default().to_owned();
    let below = |path: &PathBuf| {
        path.join("coracle")
            .join(two.text())
            .join("coracle")
            .join(&three)
    };
    assert!(
        cgroups_of(&id).iter().any(|path| below(path).is_dir()),
        "the innermost cgroup is below the outer ones: {:?}",
        cgroups_of(&id)
    );
    let pid = nix::unistd::Pid::from_raw(host.pid_of("one").cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill the outer one");
    eventually("the end is recorded, and the cgroups are gone", || {
        let state = host.inspect("one")["State"]["Status"].clone();
        match (state == "exited", cgroups_of(&id)) {
            (true, left) if left.is_empty() => Ok(()),
            (_, left) => Err(format!("{state} {left:?}")),
        }
    });
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn a_killed_monitor_of_a_container_with_containers_leaves_nothing_either() {
    let host = three_levels("iptables");
    let id = host.run("inspect --format {{.Id}} one").text().to_owned();
    let monitor = host.monitor_of(&id).expect("the container has a monitor");
    let init = host.pid_of("one");
    for pid in [monitor, init] {
        let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    }
    eventually("the next command brings it to its end", || {
        host.run("ps");
        match cgroups_of(&id) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn without_a_volume_the_inner_engine_says_what_is_missing() {
    let host = Host::new();
    nest::import(&host, &nest::coracle_tar(), "nest", "/elsewhere");
    host.run("run -d --name one --privileged nest sleep 1000");
    let refused = in_container(
        &host,
        "one",
        "coracle import /busybox.tar busybox >/dev/null; coracle run --rm busybox true",
    );
    assert_eq!(refused.code(), 125, "{refused}");
    assert!(
        refused
            .stderr
            .contains("overlayfs, which cannot lie on top of itself")
            && refused.stderr.contains("VOLUME"),
        "{refused}"
    );
    // What it says to do helps.
    host.run("rm -f one");
    host.run("run -d --name one --privileged -v state:/var/lib/coracle nest sleep 1000");
    in_container(
        &host,
        "one",
        "coracle import /busybox.tar busybox >/dev/null; coracle run --rm busybox echo inside",
    )
    .ok()
    .says("inside");
}

/// On cgroup v2 as the entry point of Docker's own image `dind`: only where no process is in the container's own cgroup can those
/// below be limited, so all go into one of them (cgroups(7), "no internal processes" rule).
const DOCKERD: &str = r#"
    cd /sys/fs/cgroup
    if [ -e cgroup.controllers ]; then
      mkdir init
      until echo "+$(sed 's/ / +/g' cgroup.controllers)" >cgroup.subtree_control; do
        for pid in $(cat cgroup.procs); do echo $pid >init/cgroup.procs; done
      done
    fi
    exec dockerd >/dev/null"#;

/// Starts Debian's dockerd in a container named `dind`, with the image `redis` in it.
#[track_caller]
fn start_docker(host: &Host, options: &str) {
    nest::import(host, &nest::docker_tar(), "dind", "/var/lib/docker");
    let options = ["run", "-d", "--privileged", "--name", "dind"]
        .into_iter()
        .chain(options.split_whitespace());
    host.coracle(options.chain(["dind", "sh", "-c", DOCKERD]))
        .ok();
    let ready = until(Duration::from_secs(60), || {
        let version = in_container(host, "dind", "docker version");
        if version.code() == 0 {
            Ok(())
        } else {
            Err(version)
        }
    });
    if let Err(version) = ready {
        panic!(
            "dockerd does not answer: {version}\n{}",
            host.try_run("logs --tail 40 dind")
        );
    }
    in_container(host, "dind", "docker import /busybox.tar redis:alpine").ok();
}

/// What the article runs, with a server of our own that says PONG to whoever connects.
const RUN_REDIS: &str = "docker run -p 6379:6379 --rm -d redis:alpine nc -ll -p 6379 -e echo PONG";

#[test]
fn dockers_own_rules_inside_are_the_articles() {
    let host = Host::new();
    start_docker(&host, "-p 6379:6379");
    let inside = Netns::of_process(host.pid_of("dind")).expect("the container's network");
    rules::assert_same(
        "before",
        &rules::nat_and_filter(&inside),
        &rules::capture("01-empty"),
    );
    in_container(&host, "dind", RUN_REDIS).ok();
    rules::assert_same(
        "with a published port",
        &rules::nat_and_filter(&inside),
        &rules::capture("03-publish-tcp"),
    );
    // And as the container itself has it, with its own iptables-save.
    let own = in_container(&host, "dind", "iptables-save").ok();
    rules::assert_same(
        "iptables-save in the container",
        &rules::comparable(&own.stdout),
        &rules::save(&inside),
    );
    let listed = in_container(&host, "dind", "docker ps --format '{{.Ports}}'").ok();
    assert!(listed.text().contains("0.0.0.0:6379->6379/tcp"), "{listed}");
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn a_port_of_docker_inside_coracle_is_reached_from_the_neighbour() {
    let host = Host::new();
    start_docker(&host, "-p 6379:6379");
    in_container(&host, "dind", RUN_REDIS).ok();
    for (who, from, to) in [
        ("the neighbour", &host.neighbour, HOST),
        ("the host", &host.netns, HOST),
        ("the host by loopback", &host.netns, "127.0.0.1"),
    ] {
        let line = eventually(who, || net::first_line(from, &format!("{to}:6379")));
        assert_eq!(line, "PONG", "{who}");
    }
    // Containers in it are isolated as in the article, and reach the outside through both levels.
    let echo = Cmd::new("busybox")
        .args(["nc", "-ll", "-p", "7777", "-e", "echo", "outside"])
        .spawn_in(&host.neighbour);
    eventually("a container inside reaches the neighbour", || {
        let asked = in_container(
            &host,
            "dind",
            "docker run --rm redis:alpine nc -w 2 192.0.2.2 7777",
        );
        if asked.text() == "outside" {
            Ok(())
        } else {
            Err(asked)
        }
    });
    drop(echo);
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn the_end_of_docker_inside_leaves_nothing_of_its_containers() {
    let host = Host::new();
    start_docker(&host, "");
    in_container(&host, "dind", RUN_REDIS).ok();
    let id = host.run("inspect --format {{.Id}} dind").text().to_owned();
    assert!(!cgroups_of(&id).is_empty());
    host.run("kill dind");
    host.run("wait dind").says("137");
    assert_eq!(cgroups_of(&id), Vec::<PathBuf>::new());
    host.remove_everything();
    host.assert_clean();
}
