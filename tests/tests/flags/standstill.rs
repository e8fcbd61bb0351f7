//! What is not done to a container that stands still: one that is paused, or that waits for its restart.

use std::time::Duration;

use harness::{Host, eventually};

use crate::cell;
use crate::cell::Cell;
use crate::life::{becomes, restarts_at_least};

pub const CELLS: &[Cell] = &[
    cell!(a_paused_container_is_not_checked, "pause", "unpause"),
    cell!(nobody_attaches_to_what_stands_still, "attach"),
];

fn a_paused_container_is_not_checked() {
    let host = Host::new();
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "--health-cmd",
        "true",
        "--health-interval=100ms",
        "--health-timeout=300ms",
        "--health-retries=2",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let health = || host.inspect("c1")["State"]["Health"].take();
    let is_healthy = || match health() {
        found if found["Status"] == "healthy" && found["FailingStreak"] == 0 => Ok(found),
        found => Err(found),
    };
    eventually("it is healthy", is_healthy);
    host.run("pause c1");
    // Checks that went on would run into their timeout again and again.
    std::thread::sleep(Duration::from_secs(2));
    let before = health();
    assert_eq!(before["Status"], "healthy", "{before}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(health()["Log"], before["Log"]);
    host.run("unpause c1");
    eventually("it is checked again", || match is_healthy() {
        Ok(now) if now["Log"] != before["Log"] => Ok(()),
        now => Err(format!("{now:?}")),
    });
    host.run("rm -f c1");
}

fn nobody_attaches_to_what_stands_still() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    host.run("pause c1");
    for line in ["attach c1", "container attach --no-stdin c1"] {
        host.try_run(line)
            .exits(1)
            .complains("You cannot attach to a paused container, unpause it first");
    }
    host.run("unpause c1");
    host.run("run -d --name c2 --restart always busybox false");
    // Repeated until it has fallen into a pause, which ends by itself.
    restarts_at_least(&host, "c2", 5);
    eventually("a container in its pause refuses", || {
        becomes(&host, "c2", "restarting");
        let answer = host.try_run("attach c2");
        let text = "You cannot attach to a restarting container, wait until it is running";
        match answer.code() == 1 && answer.stderr.contains(text) {
            true => Ok(()),
            false => Err(answer),
        }
    });
    host.run("rm -f c1 c2");
}
