//! Much of one thing: a hundred runs at once, a thousand commands in a row.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use harness::{Host, eventually};

#[test]
fn a_hundred_runs_at_once_have_each_its_own_exit_code_and_leave_nothing() {
    let host = Host::new();
    let runs: Vec<_> = (0..100)
        .map(|code| {
            let script = format!("exit {code}");
            let ports = format!("{}:80", 20000 + code);
            let command =
                host.command(["run", "--rm", "-p", &ports, "busybox", "sh", "-c", &script]);
            (code, command.spawn_in(&host.netns))
        })
        .collect();
    for (code, run) in runs {
        run.wait().exits(code);
    }
    host.run("ps -aq").says("");
    host.remove_everything();
    host.assert_clean();
}

/// What a command could leave behind, each with how much there is of it.
fn traces(host: &Host, id: &str) -> BTreeMap<String, usize> {
    let monitor = host.monitor_of(id).expect("a monitor");
    let init = host.pid_of("one");
    let entries = |path: &str| fs::read_dir(path).map_or(0, Iterator::count);
    // Others mount and unmount meanwhile.
    let ours = host.folder().to_string_lossy().into_owned();
    let mounts = |pid: u32| {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        table.lines().filter(|line| line.contains(&ours)).count()
    };
    let mut traces = BTreeMap::new();
    let mut note = |what: &str, count: usize| {
        traces.insert(what.to_owned(), count);
    };
    note(
        "descriptors of the monitor",
        entries(&format!("/proc/{monitor}/fd")),
    );
    note(
        "threads of the monitor",
        entries(&format!("/proc/{monitor}/task")),
    );
    note("mounts that the monitor sees", mounts(monitor));
    note("mounts in the container", mounts(init));
    note(
        "descriptors of the first process",
        entries(&format!("/proc/{init}/fd")),
    );
    note("files in RUN_ROOT", files(host.run_root()));
    note(
        "files of the container",
        files(&host.root().join("containers")),
    );
    note("monitors", host.monitors().len());
    note(
        "processes in the container",
        host.run("exec one sh -c ls${IFS}-d${IFS}/proc/[0-9]*")
            .stdout
            .lines()
            .count(),
    );
    traces
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(
            |entry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => 1 + files(&entry.path()),
                false => 1,
            },
        )
        .sum()
}

/// Memory of its own in kB: what it has written. Pages of the program count as private, too, as long as nobody else runs it.
fn memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let private = rollup
        .lines()
        .filter(|line| line.starts_with("Private_Dirty"));
    private
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

#[test]
fn a_thousand_commands_in_a_row_leak_nothing() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let id = host
        .run("run -d --name one busybox sleep 100000")
        .text()
        .to_owned();
    let exec = |n: i32| {
        let script = format!("exit {}", n % 250);
        host.coracle(["exec", "one", "sh", "-c", &script])
            .exits(n % 250);
    };
    // What the first ones make once for all is there.
    (0..10).for_each(exec);
    let monitor = host.monitor_of(&id).expect("a monitor");
    let (before, memory_before) = (traces(&host, &id), memory(monitor));
    (0..1000).for_each(exec);
    eventually("nothing more is there than before", || {
        let now = traces(&host, &id);
        if now == before {
            Ok(())
        } else {
            Err(format!("{now:#?}\nbefore: {before:#?}"))
        }
    });
    let memory_now = memory(monitor);
    assert!(
        memory_now <= memory_before + 64,
        "the monitor has grown from {memory_before} kB to {memory_now} kB"
    );
    host.remove_everything();
    host.assert_clean();
}
