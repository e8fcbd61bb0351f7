//! A container's streams: attach, detach keys, terminals, signals, pipes.

use harness::terminal::Terminal;
use harness::{Cmd, Host, Output, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(attach_shows_and_types_and_ends_with_the_exit_code, "attach"),
    cell!(attach_refuses_what_does_not_run, "attach"),
    cell!(attach_without_stdin_leaves_it_alone, "attach --no-stdin"),
    cell!(
        attach_passes_signals_on_unless_told_not_to,
        "attach --sig-proxy"
    ),
    cell!(two_attached_clients_see_and_type_the_same, "attach"),
    cell!(
        detach_keys_are_chosen,
        "run --detach-keys",
        "attach --detach-keys",
        "exec --detach-keys",
        "start --detach-keys"
    ),
    cell!(
        detach_keys_that_are_none_are_refused,
        "run --detach-keys",
        "attach --detach-keys",
        "exec --detach-keys",
        "start --detach-keys"
    ),
    cell!(
        run_attaches_the_streams_that_are_named,
        "run --attach",
        "run -a"
    ),
    cell!(run_passes_signals_on_unless_told_not_to, "run --sig-proxy"),
    cell!(
        start_attached_reads_and_ends_with_the_exit_code,
        "start --attach",
        "start -a",
        "start --interactive",
        "start -i"
    ),
    cell!(
        a_terminal_is_given_back_when_the_client_is_killed,
        "run --tty",
        "run -t"
    ),
    cell!(
        a_terminal_has_its_size_and_follows_it,
        "run --tty",
        "exec --tty",
        "exec -t"
    ),
    cell!(
        a_terminal_needs_one_to_read_from,
        "run --tty",
        "exec --tty",
        "attach"
    ),
    cell!(
        pipes_close_by_halves,
        "run --interactive",
        "run -i",
        "exec --interactive",
        "exec -i"
    ),
    cell!(a_client_outlives_the_monitor_that_served_it, "run"),
];

/// A line of shell on the host, with the program under test as `$CORACLE`.
fn shell(host: &Host, line: &str) -> Output {
    let coracle = host.command([] as [&str; 0]).line();
    host.with_environment(Cmd::new("bash").args(["-c", &line.replace("$CORACLE", &coracle)]))
        .run_in(&host.netns)
}

/// Waits until the log holds this.
#[track_caller]
fn logged(host: &Host, name: &str, text: &str) {
    eventually(text, || {
        let output = host.try_run(&format!("logs {name}"));
        match output.stdout.contains(text) {
            true => Ok(()),
            false => Err(output),
        }
    });
}

/// A container that says when it is ready, and how it was asked to end.
fn start_listener(host: &Host, options: &str) {
    let script = "trap 'echo got term; exit 7' TERM; trap 'echo got usr1' USR1; echo ready; while :; do sleep 0.05; done";
    let words = ["run", "-d", "--name", "c1"].into_iter();
    let words = words.chain(options.split_whitespace());
    host.coracle(words.chain(["busybox", "sh", "-c", script]))
        .ok();
    logged(host, "c1", "ready");
}

fn attach_shows_and_types_and_ends_with_the_exit_code() {
    let host = Host::new();
    host.run("run -dit --name c1 busybox sh");
    let mut terminal = Terminal::run(&host, "$CORACLE attach c1; echo code=$?");
    // The screen is drawn anew for who comes later.
    terminal.shows("# ");
    terminal.types("echo $((40+2)); exit 5\n");
    terminal.shows("\r\n42");
    terminal.shows("code=5");
    assert!(terminal.is_cooked());
}

fn attach_refuses_what_does_not_run() {
    let host = Host::new();
    host.run("create --name c1 busybox true");
    host.try_run("attach c1")
        .exits(1)
        .complains("You cannot attach to a stopped container, start it first");
    host.try_run("attach nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("attach").exits(1);
}

fn attach_without_stdin_leaves_it_alone() {
    let host = Host::new();
    let script = "read x; echo got=$x; exit 3";
    host.coracle(["run", "-di", "--name", "c1", "busybox", "sh", "-c", script])
        .ok();
    let deaf = host
        .command(["attach", "--no-stdin", "c1"])
        .stdin("early\n")
        .spawn_in(&host.netns);
    eventually("it is attached", || caught(deaf.pid(), Signal::SIGTERM));
    shell(&host, "echo late | $CORACLE attach c1")
        .exits(3)
        .says("got=late");
    deaf.wait().exits(3).says("got=late");
}

fn attach_passes_signals_on_unless_told_not_to() {
    let host = Host::new();
    start_listener(&host, "");
    let deaf = host
        .command(["attach", "--sig-proxy=false", "c1"])
        .spawn_in(&host.netns);
    eventually("it is attached", || caught(deaf.pid(), Signal::SIGWINCH));
    deaf.signal(Signal::SIGTERM);
    deaf.wait().exits(128 + Signal::SIGTERM as i32);
    let attached = host.command(["attach", "c1"]).spawn_in(&host.netns);
    eventually("it is attached", || caught(attached.pid(), Signal::SIGTERM));
    attached.signal(Signal::SIGUSR1);
    logged(&host, "c1", "got usr1");
    attached.signal(Signal::SIGTERM);
    let output = attached.wait().exits(7);
    assert!(output.stdout.ends_with("got term\n"), "{output}");
}

/// Whether a process has blocked a signal, as the relay does with what it catches.
fn caught(pid: u32, signal: Signal) -> Result<(), String> {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| e.to_string())?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    match mask.is_some_and(|mask| mask & (1 << (signal as i32 - 1)) != 0) {
        true => Ok(()),
        false => Err(status),
    }
}

fn two_attached_clients_see_and_type_the_same() {
    let host = Host::new();
    host.run("run -dit --name c1 busybox sh");
    let mut first = Terminal::run(&host, "$CORACLE attach c1; echo code=$?");
    first.shows("# ");
    let mut second = Terminal::run(&host, "$CORACLE attach c1; echo code=$?");
    second.shows("# ");
    first.types("echo $((6*7))\n");
    first.shows("\r\n42");
    second.shows("\r\n42");
    second.types("echo $((6*8))\n");
    first.shows("\r\n48");
    second.shows("\r\n48");
    first.types("\x10\x11");
    first.shows("read escape sequence");
    first.shows("code=1");
    second.types("echo $((6*9)); exit 4\n");
    second.shows("\r\n54");
    second.shows("code=4");
}

fn detach_keys_are_chosen() {
    let host = Host::new();
    let mut terminal = Terminal::run(
        &host,
        "$CORACLE run -it --name c1 --detach-keys ctrl-@,x busybox sh; echo run=$?; \
         $CORACLE attach --detach-keys a,b c1; echo attach=$?; \
         $CORACLE start -ai --detach-keys DEL c1; echo start=$?; \
         $CORACLE exec -it --detach-keys 'ctrl-\\' c1 sh; echo exec=$?",
    );
    terminal.shows("# ");
    terminal.types("\x10\x11\0y\0x");
    terminal.shows("run=0");
    terminal.types("ab");
    terminal.shows("attach=1");
    eventually("attached again", || {
        if terminal.is_cooked() {
            Err("cooked")
        } else {
            Ok(())
        }
    });
    terminal.types("\x7f");
    terminal.shows("start=0");
    terminal.shows("# ");
    terminal.types("\x1c");
    terminal.shows("exec=1");
    assert_eq!(host.inspect("c1")["State"]["Running"], true);
}

fn detach_keys_that_are_none_are_refused() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    host.try_run("run --rm --detach-keys ctrl-A busybox true")
        .exits(125)
        .complains("Invalid detach keys (ctrl-A) provided");
    for (line, what) in [
        ("attach --detach-keys foo c1", "detach"),
        ("start -a --detach-keys foo c1", "detach"),
        ("exec --detach-keys foo c1 true", "escape"),
    ] {
        host.try_run(line)
            .exits(1)
            .complains(&format!("Invalid {what} keys (foo) provided"));
    }
}

fn run_attaches_the_streams_that_are_named() {
    let host = Host::new();
    let script = "$CORACLE run --rm STREAMS busybox sh -c 'echo out; echo err >&2'";
    // The first container of a host turns forwarding on, and says so.
    host.run("run --rm busybox true");
    for (streams, out, err) in [
        ("-a stdout", "out\n", ""),
        ("--attach stderr", "", "err\n"),
        ("-a STDOUT -a stderr", "out\n", "err\n"),
    ] {
        let output = shell(&host, &script.replace("STREAMS", streams)).ok();
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            (out, err),
            "{streams}"
        );
    }
    shell(
        &host,
        "echo typed | $CORACLE run --rm -i -a stdin -a stdout busybox cat",
    )
    .ok()
    .says("typed");
    host.try_run("run --rm -a bogus busybox true").exits(125).complains(
        "invalid argument \"bogus\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR",
    );
    host.try_run("run -d -a stdout busybox true")
        .exits(1)
        .complains("conflicting options: cannot specify both --attach and --detach");
}

fn run_passes_signals_on_unless_told_not_to() {
    let host = Host::new();
    let script = "trap 'echo got term; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let start = |option: &str| {
        host.command(["run", "--name", "c1", option, "busybox", "sh", "-c", script])
            .spawn_in(&host.netns)
    };
    let ready = || {
        eventually("it runs", || {
            let output = host.try_run("logs c1");
            if output.stdout.contains("ready") {
                Ok(())
            } else {
                Err(output)
            }
        });
    };
    let running = start("--sig-proxy=true");
    ready();
    running.signal(Signal::SIGTERM);
    running.wait().exits(7).says("ready\ngot term");
    host.run("rm c1");
    let running = start("--sig-proxy=false");
    ready();
    running.signal(Signal::SIGTERM);
    running.wait().exits(143);
    assert_eq!(host.inspect("c1")["State"]["Running"], true);
    host.try_run("run --sig-proxy=x busybox true").exits(125);
}

fn start_attached_reads_and_ends_with_the_exit_code() {
    let host = Host::new();
    host.coracle([
        "create",
        "-i",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "cat; exit 6",
    ])
    .ok();
    for line in ["start -ai", "start --attach --interactive"] {
        shell(&host, &format!("echo typed | $CORACLE {line} c1"))
            .exits(6)
            .says("typed");
    }
    host.run("create --name c2 busybox true");
    host.try_run("start -a c1 c2")
        .exits(1)
        .complains("you cannot start and attach multiple containers at once");
}

fn a_terminal_is_given_back_when_the_client_is_killed() {
    let host = Host::new();
    for signal in ["KILL", "TERM"] {
        let line = format!(
            "$CORACLE run -it --rm --sig-proxy=false --name c{signal} busybox sh; echo over; sleep 1000"
        );
        let mut terminal = Terminal::run(&host, &line);
        terminal.shows("# ");
        assert!(!terminal.is_cooked());
        let name = format!("c{signal}");
        let client = processes_of(&name);
        assert!(!client.is_empty());
        // The first is the client; its guardian has the same words.
        let number = if signal == "KILL" {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        };
        kill(Pid::from_raw(client[0]), number).unwrap();
        terminal.shows("over");
        eventually("the terminal is given back", || {
            if terminal.is_cooked() {
                Ok(())
            } else {
                Err("raw")
            }
        });
        eventually("the guardian has gone", || {
            let left = processes_of(&name);
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
        host.run(&format!("rm -f {name}"));
    }
}

/// The processes of ours that have a word of their command line alone, the oldest first.
fn processes_of(word: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut found: Vec<i32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = words.split(|byte| *byte == 0);
            let is_ours = words
                .next()
                .is_some_and(|program| program.ends_with(b"coracle"));
            is_ours && words.any(|it| it == word.as_bytes())
        })
        .collect();
    found.sort_unstable();
    found
}

fn a_terminal_has_its_size_and_follows_it() {
    let host = Host::new();
    let mut terminal = Terminal::run(
        &host,
        "$CORACLE run -t --rm busybox stty size; $CORACLE run -dit --name c1 busybox sh; $CORACLE exec -it c1 sh",
    );
    terminal.shows("31 97");
    terminal.shows("# ");
    terminal.resize(44, 120);
    terminal.types("until stty size | grep 120; do sleep 0.1; done\n");
    terminal.shows("\r\n44 120");
}

fn a_terminal_needs_one_to_read_from() {
    let host = Host::new();
    host.run("run -dit --name c1 busybox sh");
    for (line, code) in [
        ("run --rm -it busybox true", 1),
        ("exec -it c1 true", 1),
        ("attach c1", 1),
    ] {
        host.try_run(line)
            .exits(code)
            .complains("the input device is not a TTY");
    }
    host.run("run --rm -t busybox echo hi").says("hi");
}

fn pipes_close_by_halves() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    for (line, stdout, code) in [
        ("echo x | $CORACLE run --rm -i busybox cat", "x", 0),
        ("echo x | $CORACLE exec -i c1 sh -c 'cat; exit 3'", "x", 3),
        ("yes | $CORACLE run --rm -i busybox head -n 1", "y", 0),
        (
            "yes | $CORACLE run --rm -i busybox sh -c 'exec <&-; sleep 0.3; echo on; exit 4'",
            "on",
            4,
        ),
        ("$CORACLE run --rm busybox yes | head -n 1", "y", 0),
        (
            "head -c 3000000 /dev/zero | $CORACLE run --rm -i busybox wc -c",
            "3000000",
            0,
        ),
    ] {
        shell(&host, line).exits(code).says(stdout);
    }
}

fn a_client_outlives_the_monitor_that_served_it() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let script = "echo one; until [ -e /go ]; do sleep 0.05; done; echo two; exit 9";
    let client = host
        .command(["run", "--name", "c1", "busybox", "sh", "-c", script])
        .spawn_in(&host.netns);
    logged(&host, "c1", "one");
    let id = host.inspect("c1")["Id"].as_str().unwrap().to_owned();
    let monitor = host.monitor_of(&id).unwrap();
    kill(Pid::from_raw(monitor.cast_signed()), Signal::SIGKILL).unwrap();
    eventually("another monitor", || match host.monitor_of(&id) {
        Some(pid) if pid != monitor => Ok(()),
        other => Err(format!("{other:?}")),
    });
    host.run("exec c1 touch /go");
    let output = client.wait().exits(9);
    assert_eq!(output.stdout, "one\ntwo\n");
}
