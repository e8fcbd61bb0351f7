//! The command line as a Docker user types it: what it takes, what it says, and how it looks in a terminal.

use std::time::Duration;

use harness::terminal::Terminal;
use harness::{Cmd, Host, eventually};

#[test]
fn a_terminal_follows_its_size_takes_ctrl_c_and_is_given_back() {
    let host = Host::new();
    let mut terminal = Terminal::run(&host, "$CORACLE run -it --rm busybox sh; echo code=$?");
    terminal.shows("# ");
    assert!(
        !terminal.is_cooked(),
        "the keys must reach the container as they are"
    );
    terminal.types("stty size\n");
    terminal.shows("31 97");
    terminal.resize(44, 120);
    // The shell's own loop asks until the signal has gone all the way.
    terminal.types("until stty size | grep 120; do sleep 0.1; done\n");
    terminal.shows("\r\n44 120");
    terminal.types("sleep 1000; echo after=$?\n");
    std::thread::sleep(Duration::from_millis(300));
    terminal.types("\x03");
    terminal.types("echo still here\n");
    terminal.shows("\r\nstill here");
    terminal.types("exit 3\n");
    terminal.shows("code=3");
    assert!(terminal.is_cooked(), "the terminal is as it was");
}

#[test]
fn ctrl_p_ctrl_q_detaches_and_the_container_goes_on() {
    let host = Host::new();
    let mut terminal = Terminal::run(
        &host,
        "$CORACLE run -it --name c1 busybox sh; echo code=$?; $CORACLE start -ai c1; echo code=$?",
    );
    terminal.shows("# ");
    terminal.types("x=kept\n");
    terminal.shows("# ");
    terminal.types("\x10\x11");
    terminal.shows("code=0");
    assert_eq!(host.inspect("c1")["State"]["Running"], true);
    // `start -a` of what runs joins it.
    eventually("attached again", || {
        if terminal.is_cooked() {
            Err("still cooked")
        } else {
            Ok(())
        }
    });
    terminal.types("echo $x; exit 4\n");
    terminal.shows("\r\nkept");
    terminal.shows("code=4");
}

#[test]
fn exec_in_a_terminal_detaches_too() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    let mut terminal = Terminal::run(
        &host,
        "$CORACLE exec -it c1 sh; echo code=$?; $CORACLE exec -it c1 sh; echo code=$?",
    );
    terminal.shows("# ");
    terminal.types("exit 9\n");
    terminal.shows("code=9");
    terminal.shows("# ");
    terminal.types("\x10\x11");
    terminal.shows("code=1");
    assert_eq!(host.inspect("c1")["State"]["Running"], true);
}

#[test]
fn the_third_ctrl_c_gives_up_a_program_that_ignores_it() {
    let host = Host::new();
    // The shell gets each ctrl-c, too.
    let line = "trap : INT; $CORACLE run --name c1 busybox sleep 1000; echo code=$?";
    let mut terminal = Terminal::run(&host, line);
    eventually("it runs", || {
        let output = host.try_run("inspect -f {{.State.Running}} c1");
        if output.text() == "true" {
            Ok(())
        } else {
            Err(output)
        }
    });
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        terminal.types("\x03");
    }
    terminal.shows("got 3 SIGTERM/SIGINTs, forcefully exiting");
    terminal.shows("code=1");
    assert_eq!(host.inspect("c1")["State"]["Running"], true);
}

/// Runs a line of shell on the host with the program as `$CORACLE`.
fn shell(host: &Host, line: &str) -> harness::Output {
    let coracle = host.command([] as [&str; 0]).line();
    host.with_environment(Cmd::new("bash").args(["-c", &line.replace("$CORACLE", &coracle)]))
        .run_in(&host.netns)
}

#[test]
fn streams_that_are_closed_or_cut_end_quietly() {
    let host = Host::new();
    // The first container of a host turns forwarding on, and says so.
    host.run("run --rm busybox true");
    for (line, stdout, code) in [
        ("$CORACLE run --rm busybox echo hi <&-", "hi", 0),
        ("$CORACLE run -i --rm busybox cat <&-", "", 0),
        ("$CORACLE run --rm busybox echo hi <&- >&- 2>&-", "", 0),
        (
            "$CORACLE run --rm busybox sh -c 'exec >&- 2>&-; sleep 0.2; exit 6'",
            "",
            6,
        ),
        (
            "$CORACLE run --rm busybox sh -c 'sleep 1000 & echo hi'",
            "hi",
            0,
        ),
        (
            "id=$($CORACLE run -d --name bg busybox sleep 1000); echo ${#id}",
            "64",
            0,
        ),
        ("$CORACLE exec bg yes | head -n 1", "y", 0),
        (
            "$CORACLE run -d --name log busybox sh -c 'while :; do echo y; sleep 0.1; done' >&2; $CORACLE logs -f log | head -n 2",
            "y\ny",
            0,
        ),
    ] {
        let output = shell(&host, line).exits(code).says(stdout);
        let quiet = output.stderr.is_empty() || line.contains(">&2");
        assert!(quiet, "{output}");
    }
    // Docker's client complains of the broken pipe.
    let head = shell(&host, "$CORACLE run busybox yes | head -n 1")
        .ok()
        .says("y");
    assert!(head.stderr.is_empty() || host.is_docker(), "{head}");
}

#[test]
fn options_take_any_next_word_and_the_last_one_counts() {
    let host = Host::new();
    host.coracle([
        "run", "--rm", "--name", "", "--name", "named", "-e", "A=1", "-e", "A=2", "busybox", "sh",
        "-c", "echo $A",
    ])
    .ok()
    .says("2");
    host.try_run("run --rm -u -1 busybox id")
        .exits(125)
        .complains("uids and gids must be in range 0-2147483647");
    host.try_run("run --rm --stop-signal NOPE busybox true")
        .exits(125)
        .complains("Invalid signal: NOPE");
    host.run("create --name fx --stop-timeout -1 busybox true");
    assert_eq!(host.inspect("fx")["Config"]["StopTimeout"], -1);
    host.try_run("ps -n x")
        .exits(125)
        .complains("invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt");
    host.try_run("run --pull never nope true")
        .exits(125)
        .complains("No such image: nope:latest");
    assert!(host.run("help ps").stdout.contains("List containers"));
}

#[test]
fn a_fresh_host_has_the_three_predefined_networks() {
    let host = Host::new();
    let names = |filter: &str| {
        let output = host.run(&format!(
            "network ls {filter} --format {{{{.Name}}}}/{{{{.Driver}}}}"
        ));
        output.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let predefined = ["bridge/bridge", "host/host", "none/null"];
    assert_eq!(names(""), predefined);
    // Looking makes nothing: the bridge comes with the first container.
    if !host.is_docker() {
        host.tool("ip", ["link", "show", host.bridge()]).exits(1);
    }
    host.run("network create --label tier=front web");
    assert_eq!(names("--filter type=custom"), ["web/bridge"]);
    assert_eq!(names("--filter type=builtin"), predefined);
    assert_eq!(names("--filter label=tier=front"), ["web/bridge"]);
    host.run("run -d --name c1 --network host busybox sleep 1000");
    host.coracle([
        "network",
        "inspect",
        "host",
        "-f",
        "{{range .Containers}}{{.Name}}{{end}}",
    ])
    .ok()
    .says("c1");
}

#[test]
fn the_hosts_file_names_the_gateway_and_the_short_name() {
    let host = Host::new();
    let hosts = |options: &str| {
        host.run(&format!("run --rm {options} busybox cat /etc/hosts"))
            .stdout
    };
    let format = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
    let output = host
        .coracle(["network", "inspect", "bridge", "-f", format])
        .ok();
    let gateway = output.text();
    let text = hosts("--add-host outside:host-gateway --hostname web.example.com");
    assert!(
        host.is_docker() || text.contains(&format!("{gateway}\toutside\n")),
        "{text}"
    );
    assert!(text.ends_with("\tweb.example.com web\n"), "{text}");
    let text = hosts("--network host --add-host db:10.0.0.9");
    assert!(text.contains("10.0.0.9\tdb\n"), "{text}");
    let name = host.tool("uname", ["-n"]);
    assert_eq!(
        host.run("run --rm --network host busybox hostname").text(),
        name.text()
    );
    assert_eq!(
        host.run("run --rm --network host --hostname h1 busybox hostname")
            .text(),
        "h1"
    );
}

#[test]
fn ps_filters_and_templates_are_dockers() {
    let host = Host::new();
    host.run("run -d --name web1 -p 8080:80 -l tier=front busybox sleep 1000");
    host.run("create --name web2 -v data:/data busybox true");
    host.run("run --name three --network none busybox true");
    let names = |options: &str| {
        let output = host.run(&format!("ps {options} --format {{{{.Names}}}}"));
        output
            .stdout
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for (options, expected) in [
        ("--filter name=^/web[0-9]$", &["web1"][..]),
        ("-a --filter name=web[12]", &["web2", "web1"]),
        (
            "-a --filter ancestor=busybox --filter status=created",
            &["web2"],
        ),
        ("-a --filter ancestor=nope", &[]),
        ("--filter publish=8000-9000", &["web1"]),
        ("--filter expose=80/tcp", &["web1"]),
        ("-a --filter volume=data", &["web2"]),
        ("-a --filter volume=/data", &["web2"]),
        ("-a --filter network=none", &["three"]),
        ("-a --filter since=web1", &["three", "web2"]),
        ("-a --filter before=web2", &["web1"]),
        ("--filter since=web1", &[]),
        ("--filter label=tier=front", &["web1"]),
    ] {
        assert_eq!(names(options), expected, "{options}");
    }
    host.try_run("ps --filter since=nope").exits(1);
    host.try_run("ps --filter foo=bar")
        .exits(1)
        .complains("Invalid filter 'foo'");
    host.coracle([
        "ps",
        "--format",
        r#"{{.Names}} {{.Label "tier"}}{{.Label "x"}}"#,
    ])
    .ok()
    .says("web1 front");
    host.coracle([
        "inspect",
        "-f",
        "{{slice .Name 1 4}} {{len .LogPath | lt 10}}",
        "web1",
    ])
    .ok()
    .says("web true");
    // The name now means another image, so the containers of the old one show its ID.
    let id = host.inspect("web1")["Image"].as_str().unwrap()[7..19].to_owned();
    host.coracle([
        "import".as_ref(),
        "-m".as_ref(),
        "another".as_ref(),
        harness::images::busybox_tar().as_os_str(),
        "busybox:latest".as_ref(),
    ])
    .ok();
    host.run("ps --format {{.Image}}").says(&id);
}

#[test]
fn exec_that_cannot_begin_says_why() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    for (line, code, text) in [
        ("exec -w /nowhere c1 pwd", 126, "no such file or directory"),
        ("exec -w /etc/passwd c1 pwd", 126, "not a directory"),
        ("exec -w here c1 pwd", 126, "must be an absolute path"),
        (
            "exec -u nosuch c1 id",
            126,
            "unable to find user nosuch: no matching entries in passwd file",
        ),
        ("exec c1 /usr/bin/notes.txt", 126, "permission denied"),
    ] {
        let output = host.try_run(line).exits(code);
        // Docker 20.10 says it on stdout.
        let said = format!("{}{}", output.stderr, output.stdout);
        assert!(said.contains(text), "{output}");
    }
    host.run("exec -w /usr/../www c1 pwd").says("/www");
}

#[test]
fn ports_without_a_network_are_warned_of_and_dropped() {
    let host = Host::new();
    let output = host.run("run --rm --network host -p 8080:80 busybox true");
    output.complains("WARNING: Published ports are discarded when using host network mode");
    host.run("run --rm --network none -p 8080:80 busybox true");
}

#[test]
fn a_volume_without_a_name_goes_with_its_container() {
    let host = Host::new();
    // What the image has there is copied into it.
    host.run("run --rm -v /www busybox ls /www")
        .says("index.html");
    host.run("create --name c1 -v /www busybox true");
    let volume = host.inspect("c1");
    let source = volume["Mounts"][0]["Source"].as_str().unwrap().to_owned();
    assert_eq!(volume["Config"]["Volumes"]["/www"], serde_json::json!({}));
    assert!(std::path::Path::new(&source).is_dir(), "{source}");
    host.run("rm -v c1");
    assert!(!std::path::Path::new(&source).exists(), "{source}");
    host.run("run --rm -v named:/www busybox touch /www/more");
    host.run("run --rm -v named:/www busybox ls /www")
        .says("index.html\nmore");
}

#[test]
fn info_tells_what_is_in_force() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let info = host.run("info").stdout;
    for line in [
        "Firewall: iptables (/",
        "Cgroup Version: ",
        "seccomp",
        "Root Dir: /",
        "Kernel Version: ",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
    host.coracle(["--iptables=false", "info", "-f", "{{.Firewall}}"])
        .ok()
        .says("none");
}

#[test]
fn an_image_in_use_names_the_container_and_the_forced_removal_leaves_it_alone() {
    let host = Host::new();
    let id = host.run("create --name c1 busybox true").text()[..12].to_owned();
    host.try_run("rmi busybox").exits(1).complains(&format!(
        "conflict: unable to remove repository reference \"busybox\" (must force) - container {id} is using its referenced image"
    ));
    host.run("start c1");
    host.run("wait c1").says("0");
}
