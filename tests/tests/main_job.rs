//! The main job: run a container that publishes a port, reach it from everywhere, look after it, take it away.

use std::time::{Duration, Instant};

use harness::host::{HOST, NEIGHBOUR};
use harness::images::PAGE;
use harness::{Cmd, Host, eventually, net};
use nix::sys::signal::Signal;

#[test]
fn a_published_port_is_reached_from_the_host_and_from_a_neighbour() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80");
    for (from, to) in [
        (&host.netns, "192.0.2.1:8080"),
        (&host.netns, "127.0.0.1:8080"),
        (&host.neighbour, "192.0.2.1:8080"),
        (&host.attacker, "192.0.2.1:8080"),
    ] {
        assert_eq!(net::http_get(from, to).expect(to), PAGE);
    }
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn the_container_sees_the_neighbours_own_address() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80");
    net::http_get(&host.neighbour, "192.0.2.1:8080").unwrap();
    eventually("the log names the neighbour", || {
        let logs = host.run("logs web");
        if logs.stderr.contains(NEIGHBOUR) {
            Ok(())
        } else {
            Err(logs)
        }
    });
}

#[test]
fn the_outside_sees_the_hosts_address_and_never_the_containers() {
    let host = Host::new();
    let server = host
        .neighbour
        .enter(|| std::net::TcpListener::bind("0.0.0.0:7000"))
        .unwrap();
    server.set_nonblocking(true).unwrap();
    host.run("run -d busybox nc 192.0.2.2 7000");
    let (_, peer) = eventually("the container connects", || server.accept());
    assert_eq!(peer.ip().to_string(), HOST);
}

#[test]
fn a_port_is_published_on_one_address_only_if_so_asked() {
    let host = Host::new();
    host.netns.ip("addr add 192.0.2.77/24 dev eth0\n");
    host.start_web("one", "-p 192.0.2.77:8080:80");
    host.start_web("two", "-p 192.0.2.1:8080:80");
    host.run("exec two sh -c echo${IFS}two>/www/index.html");
    assert_eq!(
        net::http_get(&host.neighbour, "192.0.2.77:8080").unwrap(),
        PAGE
    );
    assert_eq!(
        net::http_get(&host.neighbour, "192.0.2.1:8080").unwrap(),
        "two\n"
    );
    net::http_get(&host.netns, "127.0.0.1:8080").expect_err("not published on loopback");
}

#[test]
fn a_udp_port_is_published() {
    let host = Host::new();
    host.run("run -d --name dns -p 5300:53/udp busybox sleep 1000");
    let inside = harness::Netns::of_process(host.pid_of("dns")).unwrap();
    let _server = net::UdpServer::start(&inside, 53);
    assert_eq!(
        net::udp_ask(&host.neighbour, "192.0.2.1:5300", "q").unwrap(),
        "53 192.0.2.2 q"
    );
    assert!(
        net::udp_ask(&host.netns, "192.0.2.1:5300", "q")
            .unwrap()
            .ends_with(" q")
    );
    assert!(
        net::udp_ask(&host.netns, "127.0.0.1:5300", "q")
            .unwrap()
            .ends_with(" q")
    );
}

#[test]
fn a_container_reaches_published_ports_through_the_hosts_address() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80");
    host.run("run -d --name sibling busybox sleep 1000");
    host.run("network create other");
    host.run("run -d --name stranger --network other busybox sleep 1000");
    for from in ["web", "sibling", "stranger"] {
        let netns = harness::Netns::of_process(host.pid_of(from)).unwrap();
        let page = net::http_get(&netns, "192.0.2.1:8080");
        assert_eq!(
            page.unwrap_or_else(|error| panic!("from {from}: {error}")),
            PAGE
        );
    }
}

#[test]
fn an_unpublished_port_is_reached_by_nobody_outside() {
    let host = Host::new();
    host.start_web("web", "");
    net::http_get(&host.neighbour, "192.0.2.1:80").expect_err("nothing is published");
    net::http_get(&host.netns, "192.0.2.1:80").expect_err("nothing is published");
    let direct = format!("{}:80", host.address_of("web"));
    assert_eq!(
        net::http_get(&host.netns, &direct).unwrap(),
        PAGE,
        "the host itself may"
    );
}

#[test]
fn a_published_port_is_gone_after_stop_and_back_after_start() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80");
    host.run("stop -t 0 web");
    net::http_get(&host.neighbour, "192.0.2.1:8080").expect_err("it is stopped");
    net::http_get(&host.netns, "127.0.0.1:8080").expect_err("it is stopped");
    host.run("start web").says("web");
    eventually("it serves again", || {
        net::http_get(&host.neighbour, "192.0.2.1:8080")
    });
    eventually("it serves again", || {
        net::http_get(&host.netns, "127.0.0.1:8080")
    });
}

#[test]
fn run_d_prints_the_id_and_ps_shows_the_container() {
    let host = Host::new();
    let id = host.start_web("web", "-p 8080:80");
    assert!(
        id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
    let ps = host.run("ps");
    let lines: Vec<_> = ps.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ps}");
    let columns: Vec<_> = lines[0]
        .split("   ")
        .filter(|word| !word.is_empty())
        .map(str::trim)
        .collect();
    assert_eq!(
        columns,
        [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "PORTS",
            "NAMES"
        ]
    );
    assert!(lines[1].starts_with(&id[..12]), "{ps}");
    assert!(lines[1].contains("   busybox   "), "{ps}");
    assert!(lines[1].contains("\"httpd -f -v -p 80 -…\""), "{ps}");
    assert!(lines[1].contains("   Up "), "{ps}");
    assert!(lines[1].contains("0.0.0.0:8080->80/tcp"), "{ps}");
    assert!(lines[1].trim_end().ends_with("   web"), "{ps}");
    host.run("ps -q").says(&id[..12]);
    host.run("ps -q --no-trunc").says(&id);
}

#[test]
fn ps_lists_the_stopped_only_with_a_and_the_newest_with_l() {
    let host = Host::new();
    host.try_run("run --name first busybox sh -c exit${IFS}7")
        .exits(7);
    host.run("run -d --name second busybox sleep 1000");
    host.run("create --name third busybox true");
    let names = |line: &str| {
        let mut names: Vec<_> = host
            .run(line)
            .stdout
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().next_back().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("ps"), ["second"]);
    assert_eq!(names("ps -a"), ["first", "second", "third"]);
    assert_eq!(names("ps -l"), ["third"]);
    let all = host.run("ps -a").stdout;
    assert!(all.contains("Exited (7) "), "{all}");
    assert!(all.contains("   Created   "), "{all}");
}

#[test]
fn the_exit_code_of_run_is_the_containers() {
    let host = Host::new();
    for code in [0, 1, 7, 125, 255] {
        host.coracle([
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            &format!("exit {code}"),
        ])
        .exits(code);
    }
}

#[test]
fn output_and_errors_come_through_apart_and_are_logged_apart() {
    let host = Host::new();
    // The first run on a host says on stderr that it turns forwarding on.
    host.run("run --rm busybox true");
    let output = host
        .coracle([
            "run",
            "--name",
            "c1",
            "busybox",
            "sh",
            "-c",
            "echo out; echo err >&2",
        ])
        .ok();
    assert_eq!(
        (output.stdout.as_str(), output.stderr.trim_end()),
        ("out\n", "err")
    );
    let logs = host.run("logs c1");
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn no_byte_of_a_large_output_is_lost() {
    let host = Host::new();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i of the output of a container; i=$((i+1)); done";
    let expected: String = (0..20_000)
        .map(|i| format!("line {i} of the output of a container\n"))
        .collect();
    let output = host
        .coracle(["run", "--name", "c1", "busybox", "sh", "-c", script])
        .ok();
    assert!(
        output.stdout == expected,
        "{} of {} bytes came",
        output.stdout.len(),
        expected.len()
    );
    let logs = host.run("logs c1");
    assert!(
        logs.stdout == expected,
        "{} of {} bytes are logged",
        logs.stdout.len(),
        expected.len()
    );
}

#[test]
fn logs_follows_until_the_container_ends_and_tail_cuts() {
    let host = Host::new();
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "echo one; sleep 1; echo two; echo three",
    ])
    .ok();
    let logs = host.run("logs -f c1");
    assert_eq!(logs.stdout, "one\ntwo\nthree\n");
    assert_eq!(host.run("logs --tail 1 c1").stdout, "three\n");
}

#[test]
fn exec_runs_in_the_container_with_its_own_exit_code() {
    let host = Host::new();
    host.run("run -d --name c1 -e COLOUR=blue busybox sleep 1000");
    host.coracle(["exec", "c1", "sh", "-c", "hostname; echo $COLOUR; exit 5"])
        .exits(5);
    let output = host
        .coracle([
            "exec",
            "-e",
            "SIZE=big",
            "-w",
            "/tmp",
            "-u",
            "web",
            "c1",
            "sh",
            "-c",
            "pwd; id -u; echo $SIZE $COLOUR",
        ])
        .ok();
    assert_eq!(output.stdout, "/tmp\n1000\nbig blue\n");
    let input = host
        .command(["exec", "-i", "c1", "cat"])
        .stdin("through the pipe")
        .run_in(&host.netns);
    input.ok().says("through the pipe");
    // Docker 20.10 says 126 here, against its own documentation and later versions.
    host.try_run("exec c1 nosuch")
        .exits(if host.is_docker() { 126 } else { 127 });
    host.run("stop -t 0 c1");
    host.try_run("exec c1 true")
        .exits(1)
        .complains("is not running");
}

#[test]
fn stop_asks_first_and_kills_after_its_time() {
    let host = Host::new();
    host.coracle([
        "run",
        "-d",
        "--name",
        "polite",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    ])
    .ok();
    host.coracle([
        "run",
        "-d",
        "--name",
        "deaf",
        "busybox",
        "sh",
        "-c",
        "trap '' TERM; echo ready; while :; do sleep 0.1; done",
    ])
    .ok();
    for name in ["polite", "deaf"] {
        eventually("the trap is set", || {
            let logs = host.run(&format!("logs {name}"));
            if logs.text() == "ready" {
                Ok(())
            } else {
                Err(logs)
            }
        });
    }
    host.run("stop polite").says("polite");
    host.run("wait polite").says("3");
    let start = Instant::now();
    host.run("stop -t 1 deaf").says("deaf");
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < harness::scaled(Duration::from_secs(9)),
        "{:?}",
        start.elapsed()
    );
    host.run("wait deaf").says("137");
    host.run("stop deaf").says("deaf");
}

#[test]
fn kill_sends_the_signal_that_is_named() {
    let host = Host::new();
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done",
    ])
    .ok();
    eventually("the trap is set", || {
        let logs = host.run("logs c1");
        if logs.text() == "ready" {
            Ok(())
        } else {
            Err(logs)
        }
    });
    host.run("kill -s HUP c1").says("c1");
    eventually("the signal came", || {
        let logs = host.run("logs c1");
        if logs.text() == "ready\nhup" {
            Ok(())
        } else {
            Err(logs)
        }
    });
    host.run("kill c1").says("c1");
    host.run("wait c1").says("137");
    host.try_run("kill c1").exits(1).complains("is not running");
}

#[test]
fn a_running_container_is_removed_only_by_force() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    host.try_run("rm c1").exits(1).complains("running");
    host.run("rm -f c1").says("c1");
    host.try_run("rm c1")
        .exits(1)
        .complains("No such container: c1");
    host.run("create --name c2 busybox true");
    host.run("rm c2").says("c2");
    assert!(host.ids().is_empty());
}

#[test]
fn wait_blocks_until_the_end_and_prints_the_code() {
    let host = Host::new();
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "sleep 1; exit 9",
    ])
    .ok();
    host.run("wait c1").says("9");
    host.run("wait c1").says("9");
}

#[test]
fn inspect_tells_the_state_and_the_network() {
    let host = Host::new();
    let id = host.start_web("web", "-p 8080:80");
    let web = host.inspect("web");
    assert_eq!(web["Id"], id);
    assert_eq!(web["Name"], "/web");
    assert_eq!(web["State"]["Status"], "running");
    assert_eq!(web["State"]["Running"], true);
    assert_eq!(
        web["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"],
        "8080"
    );
    assert!(web["State"]["Pid"].as_u64().unwrap() > 1);
    host.run("kill web");
    host.run("wait web");
    let web = host.inspect("web");
    assert_eq!(web["State"]["Status"], "exited");
    assert_eq!(web["State"]["ExitCode"], 137);
    host.try_run("inspect nope").exits(1).says("[]");
}

#[test]
fn rm_at_the_end_leaves_no_container_and_frees_the_name() {
    let host = Host::new();
    for _ in 0..3 {
        host.run("run --rm --name again -p 8080:80 busybox true");
    }
    assert!(host.ids().is_empty());
    host.run("run -d --rm --name again busybox sleep 1000");
    host.run("stop -t 0 again");
    eventually("it removes itself", || {
        if host.ids().is_empty() {
            Ok(())
        } else {
            Err("it is still there")
        }
    });
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn standard_input_reaches_the_program_only_with_i() {
    let host = Host::new();
    let cat = |args: &[&str]| {
        host.command(args)
            .stdin("some\nlines\n")
            .run_in(&host.netns)
            .ok()
            .stdout
    };
    assert_eq!(
        cat(&["run", "--rm", "-i", "busybox", "cat"]),
        "some\nlines\n"
    );
    assert_eq!(cat(&["run", "--rm", "busybox", "cat"]), "");
}

#[test]
fn a_terminal_is_given_with_t_and_has_the_callers_size() {
    let host = Host::new();
    // Docker's client sets the size after the start (moby#25450), so it must be given time.
    let script = if host.is_docker() {
        "tty; sleep 1; stty size"
    } else {
        "tty; stty size"
    };
    let inner = host.command(["run", "--rm", "-it", "busybox", "sh", "-c", script]);
    // script(1) gives the command a terminal, as a person has; stty sets the size that the container must take over.
    let line = format!("stty rows 33 cols 77; {}", inner.line());
    let output = host
        .with_environment(Cmd::new("script").args(["-qec", &line, "/dev/null"]))
        .run_in(&host.netns)
        .ok();
    // script(1) passes on the end of its own input, at any moment, and the terminal echoes it.
    let text = output.stdout.replace('\r', "").replace("^@", "");
    let text = text.trim_end();
    assert!(text.ends_with("/dev/pts/0\n33 77"), "{output}");
}

#[test]
fn a_terminal_is_refused_where_there_is_none() {
    let host = Host::new();
    host.try_run("run --rm -it busybox true")
        .exits(1)
        .complains("the input device is not a TTY");
    assert!(host.ids().is_empty());
}

#[test]
fn environment_folder_user_and_entrypoint_are_as_asked() {
    let host = Host::new();
    let output = host
        .coracle([
            "run",
            "--rm",
            "-e",
            "A=1",
            "-e",
            "B=two words",
            "-w",
            "/var/deep/er",
            "-u",
            "web",
            "busybox",
            "sh",
            "-c",
            "pwd; id -u; id -g; echo $A $B",
        ])
        .ok();
    assert_eq!(output.stdout, "/var/deep/er\n1000\n1000\n1 two words\n");
    host.coracle([
        "run",
        "--rm",
        "-u",
        "12:34",
        "busybox",
        "sh",
        "-c",
        "echo $(id -u):$(id -g)",
    ])
    .ok()
    .says("12:34");
    host.coracle(["run", "--rm", "--entrypoint", "echo", "busybox", "a", "b"])
        .ok()
        .says("a b");
    host.coracle(["run", "--rm", "busybox", "sh", "-c", "echo $PATH"])
        .ok()
        .says("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let id = host.run("run -d busybox sleep 1000").text().to_owned();
    host.run(&format!("exec {id} hostname")).says(&id[..12]);
}

#[test]
fn a_volume_is_shared_with_the_host_and_can_be_read_only() {
    let host = Host::new();
    let folder = host.folder().join("shared");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("in"), "from the host").unwrap();
    let volume = format!("{}:/mnt/shared", folder.display());
    host.coracle([
        "run",
        "--rm",
        "-v",
        &volume,
        "busybox",
        "sh",
        "-c",
        "cat /mnt/shared/in; echo back > /mnt/shared/out",
    ])
    .ok()
    .says("from the host");
    assert_eq!(
        std::fs::read_to_string(folder.join("out")).unwrap(),
        "back\n"
    );
    host.coracle([
        "run",
        "--rm",
        "-v",
        &format!("{volume}:ro"),
        "busybox",
        "touch",
        "/mnt/shared/x",
    ])
    .exits(1)
    .complains("Read-only file system");
    host.run("run --rm -v named:/data busybox touch /data/kept");
    host.run("run --rm -v named:/data busybox ls /data")
        .says("kept");
}

#[test]
fn create_then_start_runs_and_a_second_start_runs_again() {
    let host = Host::new();
    let id = host
        .coracle([
            "create",
            "--name",
            "c1",
            "-p",
            "8080:80",
            "busybox",
            "sh",
            "-c",
            "echo run >> /log; cat /log",
        ])
        .ok()
        .text()
        .to_owned();
    assert_eq!(id.len(), 64);
    host.run("start c1").says("c1");
    host.run("wait c1").says("0");
    host.run("start c1").says("c1");
    host.run("wait c1");
    assert_eq!(
        host.run("logs c1").stdout,
        "run\nrun\nrun\n",
        "the writable layer and the log go on"
    );
}

#[test]
fn port_tells_where_a_container_is_published() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80 -p 127.0.0.1:8081:81/udp");
    let output = host.run("port web");
    let mut lines: Vec<_> = output
        .stdout
        .lines()
        .filter(|line| !line.contains("[::]"))
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["80/tcp -> 0.0.0.0:8080", "81/udp -> 127.0.0.1:8081"]
    );
}

#[test]
fn images_are_listed_and_removed() {
    let host = Host::new();
    let images = host.run("images");
    let lines: Vec<_> = images.stdout.lines().collect();
    assert!(
        lines[0].starts_with("REPOSITORY   TAG       IMAGE ID       CREATED"),
        "{images}"
    );
    assert!(lines[1].starts_with("busybox      latest    "), "{images}");
    host.run("create --name c1 busybox true");
    host.try_run("rmi busybox").exits(1).complains("container");
    host.run("rm c1");
    let removed = host.run("rmi busybox");
    assert!(
        removed.stdout.contains("Untagged: busybox:latest"),
        "{removed}"
    );
    assert!(removed.stdout.contains("Deleted: sha256:"), "{removed}");
    assert_eq!(host.run("images -q").text(), "");
}

#[test]
fn a_signal_to_run_reaches_the_container() {
    let host = Host::new();
    let running = host
        .command([
            "run",
            "--name",
            "c1",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done",
        ])
        .spawn_in(&host.netns);
    eventually("it is ready", || {
        let logs = host.try_run("logs c1");
        if logs.text() == "ready" {
            Ok(())
        } else {
            Err(logs)
        }
    });
    running.signal(Signal::SIGTERM);
    running.wait().exits(4);
}

#[test]
fn networks_are_made_listed_shown_and_removed() {
    let host = Host::new();
    let id = host
        .run("network create --subnet 10.99.0.0/24 --gateway 10.99.0.254 blue")
        .text()
        .to_owned();
    assert_eq!(id.len(), 64);
    let ls = host.run("network ls");
    assert!(
        ls.stdout
            .lines()
            .next()
            .unwrap()
            .starts_with("NETWORK ID     NAME      DRIVER    SCOPE"),
        "{ls}"
    );
    assert!(ls.stdout.contains(&id[..12]), "{ls}");
    let inspect = host.run("network inspect blue").json();
    assert_eq!(inspect[0]["Name"], "blue");
    assert_eq!(inspect[0]["IPAM"]["Config"][0]["Subnet"], "10.99.0.0/24");
    assert_eq!(inspect[0]["IPAM"]["Config"][0]["Gateway"], "10.99.0.254");
    host.start_web("web", "--network blue");
    assert_eq!(host.address_of("web"), "10.99.0.1");
    host.try_run("network rm blue")
        .exits(1)
        .complains("has active endpoints");
    host.run("rm -f web");
    host.run("network rm blue").says("blue");
    assert!(!host.run("network ls").stdout.contains("blue"));
}

#[test]
fn two_containers_on_the_same_host_port_of_two_addresses_and_the_third_address_is_free() {
    let host = Host::new();
    host.start_web("one", "-p 127.0.0.2:8080:80");
    host.start_web("two", "-p 127.0.0.3:8080:80");
    host.run("exec two sh -c echo${IFS}two>/www/index.html");
    assert_eq!(net::http_get(&host.netns, "127.0.0.2:8080").unwrap(), PAGE);
    assert_eq!(
        net::http_get(&host.netns, "127.0.0.3:8080").unwrap(),
        "two\n"
    );
    net::http_get(&host.netns, "127.0.0.1:8080").expect_err("nothing is published there");
}
