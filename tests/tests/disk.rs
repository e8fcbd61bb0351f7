//! Disks that are full or turn read-only while containers run: no container is lost, no exit code wrong, and what makes room can be done.

use std::time::Duration;

use harness::{Cmd, Host, images};

/// What both scripts begin with: the program on a filesystem of its own, four containers on it, and expectations. Prints what is not met.
const PROLOGUE: &str = r#"
set -u
folder=$1 tar=$2 program=$3
root=$folder/disk-root run=$folder/disk-run
mkdir -p "$root" "$run"
c() { timeout 60 "$program" --root "$root/r" --run-root "$run" "$@" >"$folder/out" 2>"$folder/err"; }
must() { c "$@" || { echo "$*: exit code $?"; cat "$folder/out" "$folder/err"; }; }
fails() { c "$@"; code=$?; [ $code != 0 ] && [ $code != 124 ] && [ $code != 101 ] || { echo "$*: exit code $code"; cat "$folder/out" "$folder/err"; }; }
says() { want=$1; shift; must "$@"; got=$(cat "$folder/out"); [ "$got" = "$want" ] || echo "$*: $got, not $want"; }
tells() { grep -q "$1" "$folder/err" || { echo "does not tell: $1"; cat "$folder/err"; }; }
status() { says "$2" inspect -f '{{.State.Status}} {{.State.ExitCode}}' "$1"; }
populate() {
  must import "$tar" busybox
  must run -d --name seven busybox sh -c 'trap "exit 7" TERM; touch /ready; while :; do sleep 0.1; done'
  must run -d --name killed busybox sleep 1000
  must run -d --rm --name passing busybox sleep 1000
  must run -d --name stays -p 8080:80 busybox httpd -f -p 80 -h /www
  until c exec seven test -e /ready; do sleep 0.1; done
}
"#;

#[track_caller]
fn run(host: &Host, script: &str) {
    let command = Cmd::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c"])
        .arg(format!("{PROLOGUE}{script}"))
        .arg("sh")
        .arg(host.folder())
        .arg(images::busybox_tar())
        .arg(images::binary());
    host.with_environment(command)
        .limit(Duration::from_secs(240))
        .run_in(&host.netns)
        .ok()
        .says("");
}

#[test]
fn a_full_disk_loses_no_exit_code_and_lets_things_be_removed() {
    let host = Host::new();
    run(
        &host,
        r#"
mount -t tmpfs -o size=48m none "$root" || exit 1
populate
# Whoever opens the database first makes its index anew, and something else may take the space in between.
: >"$root/r/coracle.db-shm"
dd if=/dev/zero of="$root/fill" bs=4096 2>/dev/null
must ps -a
must stop -t 20 seven
status seven 'exited 7'
must kill killed
says 137 wait killed
status killed 'exited 137'
must rm -f passing
says 'stays' ps --format '{{.Names}}'
must exec stays true
must rm seven
must rm -f killed stays
says '' ps -aq
must rmi busybox
rm -f "$root/fill"
must import "$tar" busybox
must run --rm busybox true
must system down
umount "$root"
"#,
    );
}

#[test]
fn a_container_that_fills_the_disk_can_be_stopped_and_removed() {
    let host = Host::new();
    run(
        &host,
        r#"
mount -t tmpfs -o size=48m none "$root" || exit 1
populate
must run -d --name greedy --restart always busybox sh -c 'while :; do cat /dev/zero >>/fill; echo full; done'
until [ "$(stat -f -c %a "$root")" = 0 ]; do sleep 0.1; done
must stop -t 0 greedy
status greedy 'exited 137'
says 0 inspect -f '{{.RestartCount}}' greedy
must rm greedy
must exec stays true
must run --rm busybox true
must rm -f seven killed passing stays
must system down
umount "$root"
"#,
    );
}

/// As ext4 does by itself when it meets an error.
#[test]
fn on_a_disk_that_turns_read_only_ends_are_known_and_recorded_later() {
    let host = Host::new();
    run(
        &host,
        r#"
truncate -s 64m "$folder/image"
mkfs.ext4 -q -F "$folder/image" && mount -o loop "$folder/image" "$root" || exit 1
populate
must run -d --name always --restart always busybox sleep 1000
must run -d --name shot --restart always busybox sleep 1000
must run -d --name forced --restart always busybox sleep 1000
must run -d --name looping --restart always busybox false
until c inspect -f '{{.RestartCount}}' looping && [ "$(cat "$folder/out")" != 0 ]; do sleep 0.1; done
sync -f "$root"
mount -o remount,abort "$root"
must ps -a
must stop -t 0 always
must kill shot
must stop looping
must pause stays
must unpause stays
fails restart stays
tells 'read-\?only'
fails rm -f forced
tells 'read-\?only'
must stop -t 20 seven
status seven 'exited 7'
must kill killed
c wait killed
status killed 'exited 137'
must kill passing
must exec stays true
must logs stays
fails create busybox true
tells 'read-\?only'
fails rm seven
tells 'read-\?only'
says 'stays' ps --format '{{.Names}}'
must kill stays
until umount "$root" 2>/dev/null; do sleep 0.1; done
# The monitors' own mounts keep the spoilt filesystem, until they have gone.
until [ -z "$(losetup -j "$folder/image")" ]; do sleep 0.1; done
until e2fsck -fy "$folder/image" >"$folder/fsck" 2>&1 || [ $? = 1 ]; do sleep 0.1; done
mount -o loop "$folder/image" "$root" || exit 1
status seven 'exited 7'
status killed 'exited 137'
status stays 'exited 137'
status always 'exited 137'
status shot 'exited 137'
status forced 'exited 137'
# It is as it was when the disk was written last, perhaps a run before the one that was stopped.
must stop looping
must rm seven killed stays always shot forced looping
says '' ps -aq
must run --rm -p 8080:80 busybox true
must system down
umount "$root"
"#,
    );
}
