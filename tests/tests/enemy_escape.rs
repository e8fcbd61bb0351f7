//! An enemy inside a container, or one who made the image: out to the host or to a neighbour, and what holds.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::{Host, Output, images};

/// Far above what a command takes, far below what a hanging one would.
const LIMIT: Duration = Duration::from_secs(20);

#[track_caller]
fn bounded(host: &Host, args: &[&str]) -> Output {
    let output = host.command(args).limit(LIMIT).run_in(&host.netns);
    host.look_for_ids();
    output
}

/// Imports the image `busybox` as changed by a script that runs in its root folder.
#[track_caller]
fn hostile_image(host: &Host, name: &str, script: &str) {
    let work = tempfile::tempdir().expect("a folder for an image");
    let root = work.path().join("root");
    fs::create_dir(&root).expect("a root folder");
    harness::Cmd::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-xf")
        .arg(images::busybox_tar())
        .run()
        .ok();
    harness::Cmd::new("sh")
        .args(["-ec", &format!("cd \"$1\"; {script}"), "sh"])
        .arg(&root)
        .run()
        .ok();
    let tar = work.path().join("image.tar");
    images::pack(&root, &tar);
    host.coracle(["import".as_ref(), tar.as_os_str(), name.as_ref()])
        .ok();
}

/// libcontainer holds a procfs of the host's pid namespace until execve(2), and a neighbour has no more rights than the
/// container: `/proc/self/fd/N/PID/root` led to the neighbour's files, to run them and, as /proc/self/exe, to write them.
#[test]
fn a_descriptor_of_the_runtime_does_not_lead_to_a_neighbours_files() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    host.run("run -d --name victim busybox sleep 1000");
    host.coracle([
        "exec",
        "victim",
        "sh",
        "-c",
        "mkdir /own && cp /bin/busybox /own/busybox",
    ])
    .ok();
    host.run("run -d --name enemy busybox sleep 1000");
    let victim = host.pid_of("victim");
    for number in 3..40 {
        let program = format!("/proc/self/fd/{number}/{victim}/root/own/busybox");
        let output = bounded(&host, &["exec", "enemy", &program, "true"]);
        assert_ne!(output.code(), 0, "ran the neighbour's file: {output}");
        assert!(
            !output.stderr.contains("applet"),
            "ran the neighbour's file: {output}"
        );
        // The same as the interpreter of a script, which the kernel opens before it closes anything.
        let script = format!(
            "printf '#!{program} sh\\nexec 9</proc/self/exe\\nexec /bin/busybox sh -c \"sleep 0.1; echo x >/proc/self/fd/9\"\\n' >/evil && chmod 755 /evil"
        );
        bounded(&host, &["exec", "enemy", "sh", "-c", &script]).ok();
        let output = bounded(&host, &["exec", "enemy", "/evil"]);
        assert_ne!(output.code(), 0, "ran the neighbour's file: {output}");
    }
    host.coracle(["exec", "victim", "cmp", "/bin/busybox", "/own/busybox"])
        .ok();
}

/// Whoever makes the image names the program; the container's start must not find it behind a descriptor.
#[test]
fn an_entry_point_behind_a_descriptor_of_the_runtime_is_not_run() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    host.run("run -d --name other busybox sleep 1000");
    let pid = host.pid_of("other");
    for number in 3..40 {
        let program = format!("/proc/self/fd/{number}/{pid}/root/bin/busybox");
        let output = bounded(&host, &["run", "--rm", "--entrypoint", &program, "busybox"]);
        assert!([126, 127].contains(&output.code()), "{output}");
        let folder = format!("/proc/self/fd/{number}/{pid}/root");
        for line in [
            vec!["run", "--rm", "-w", &folder, "busybox", "ls"],
            vec!["exec", "-w", &folder, "c1", "ls"],
        ] {
            let output = bounded(&host, &line);
            assert_ne!(output.code(), 0, "{output}");
        }
    }
}

#[test]
fn only_the_three_streams_are_open_in_a_first_process_and_in_an_exec() {
    let host = Host::new();
    // ls itself has 3, the folder that it reads.
    let expect = "0\n1\n2\n3\n";
    let run = host.run("run --rm busybox ls /proc/self/fd");
    assert_eq!(run.stdout, expect);
    let run = host
        .command(["run", "--rm", "-i", "busybox", "ls", "/proc/self/fd"])
        .stdin("x")
        .run_in(&host.netns);
    assert_eq!(run.stdout, expect);
    host.run("run -d --name c1 busybox sleep 1000");
    assert_eq!(host.run("exec c1 ls /proc/self/fd").stdout, expect);
    assert_eq!(host.run("exec c1 ls /proc/1/fd").stdout, "0\n1\n2\n");
}

/// Each a name that the runtime mounts on or writes to, in each of these forms; whatever comes of it, nothing outside changes.
#[test]
fn names_of_an_image_that_lead_out_of_it_change_nothing_outside() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let outside = host.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    let up = format!("../../../../../../../../..{}", outside.display());
    let direct = outside.display().to_string();
    for (at, must_refuse) in [
        ("dev", true),
        ("proc", true),
        ("sys", true),
        ("etc", false),
        ("dev/null", false),
        ("dev/pts", false),
        ("dev/console", false),
        ("etc/hosts", false),
        ("etc/resolv.conf", false),
        ("etc/passwd", false),
        ("tmp", false),
    ] {
        for target in [
            &direct,
            &up,
            &format!("{direct}/file"),
            &format!("{direct}/new"),
        ] {
            hostile_image(
                &host,
                "hostile",
                &format!("rm -rf {at}; mkdir -p \"$(dirname {at})\"; ln -s {target} {at}"),
            );
            let what = format!("{at} -> {target}");
            let output = bounded(&host, &["run", "--rm", "hostile", "echo", "fine"]);
            if must_refuse {
                let output = output.exits(125);
                assert!(output.stderr.contains("symlink"), "{what}: {output}");
            } else {
                assert!([0, 125].contains(&output.code()), "{what}: {output}");
            }
            assert_untouched(&outside, &what);
        }
    }
}

#[track_caller]
fn assert_untouched(outside: &Path, what: &str) {
    let names: Vec<_> = fs::read_dir(outside)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["file"], "{what}");
    let text = fs::read_to_string(outside.join("file")).unwrap();
    assert_eq!(text, "untouched", "{what}");
}

#[test]
fn fifos_and_devices_in_place_of_files_hang_nobody() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    for make in ["mkfifo", "ln -s /proc/kmsg", "ln -s /dev/zero"] {
        hostile_image(
            &host,
            "hostile",
            &format!("rm etc/passwd etc/group; {make} etc/passwd; {make} etc/group"),
        );
        bounded(&host, &["run", "--rm", "hostile", "echo", "fine"])
            .ok()
            .says("fine");
        bounded(&host, &["run", "--rm", "-u", "web", "hostile", "true"])
            .exits(125)
            .complains("unable to find user web");
    }
    hostile_image(&host, "hostile", "truncate -s 40M etc/passwd");
    bounded(&host, &["run", "--rm", "-u", "web", "hostile", "true"]).exits(125);
    hostile_image(
        &host,
        "hostile",
        "mkdir d; mkfifo d/fifo; ln -s /etc/shadow d/link",
    );
    bounded(
        &host,
        &["run", "--rm", "-v", "copy:/d", "hostile", "ls", "/d"],
    )
    .ok()
    .says("fifo\nlink");
}

/// A volume's target, and the working folder, behind links that lead up, out, or through /proc to another root.
#[test]
fn mount_targets_behind_links_stay_inside() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let outside = host.folder().join("outside");
    let source = host.folder().join("source");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    fs::create_dir(&source).unwrap();
    fs::write(source.join("marker"), "").unwrap();
    for link in [
        "/".to_owned(),
        "../../..".to_owned(),
        outside.display().to_string(),
        format!("../../../../../../..{}", outside.display()),
        format!("/proc/1/root{}", outside.display()),
    ] {
        hostile_image(&host, "hostile", &format!("ln -s {link} a"));
        let bind = format!("{}:/a/b", source.display());
        let output = bounded(
            &host,
            &[
                "run",
                "--rm",
                "-v",
                &bind,
                "-w",
                "/a/c",
                "hostile",
                "ls",
                "/a/b/marker",
            ],
        );
        assert!([0, 125].contains(&output.code()), "{link}: {output}");
        assert_untouched(&outside, &link);
    }
}

/// What a container does to its own files between two starts, and before an exec.
#[test]
fn a_container_that_links_its_own_folders_outside_gains_nothing_by_a_second_start() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let outside = host.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    let out = outside.display();
    host.run("run -d --name c1 -v data:/data/deep busybox sleep 1000");
    let script = format!(
        "rm -rf /tmp /www /etc/passwd; ln -s {out} /tmp; ln -s {out}/file /etc/passwd; mv /etc /etc2; ln -s {out} /etc"
    );
    host.coracle(["exec", "c1", "sh", "-c", &script]);
    bounded(&host, &["exec", "-u", "web", "c1", "true"]).complains("unable to find user");
    bounded(&host, &["stop", "-t", "0", "c1"]).ok();
    let again = bounded(&host, &["start", "c1"]);
    assert!([0, 1].contains(&again.code()), "{again}");
    assert_untouched(&outside, "start");
}

#[test]
fn the_kernels_doors_are_shut() {
    let host = Host::new();
    let script = r#"
! unshare -Ur true 2>/dev/null || echo "a user namespace"
! unshare -m true 2>/dev/null || echo "a mount namespace"
! unshare -n true 2>/dev/null || echo "a network namespace"
! mount -t proc proc /mnt 2>/dev/null || echo "mounts"
! mount --bind /etc /www 2>/dev/null || echo "binds"
! umount /proc/kcore 2>/dev/null || echo "uncovers kcore"
! umount /etc/hosts 2>/dev/null || echo "uncovers hosts"
! nsenter -t 1 -m true 2>/dev/null || echo "setns"
! pivot_root /tmp /tmp 2>/dev/null || echo "pivot_root"
! dmesg >/dev/null 2>&1 || echo "the kernel's log"
date -s @0 2>&1 | grep -q "can't set date" || echo "the clock"
! ip link add x type dummy 2>/dev/null || echo "a link"
! ip addr add 10.9.9.9/24 dev eth0 2>/dev/null || echo "an address"
for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/drop_caches /sys/kernel/uevent_helper /proc/1/oom_score_adj; do
  [ ! -e $f ] || ! (echo -1000 >$f) 2>/dev/null || echo "writes $f"
done
for f in $(find /sys/fs/cgroup -name 'release_agent' -o -name 'devices.allow' -o -name 'cgroup.procs' -o -name 'notify_on_release' 2>/dev/null); do
  ! (echo 0 >$f) 2>/dev/null || echo "writes $f"
done
mknod /tmp/d b 8 0 && ! (exec 3</tmp/d) 2>/dev/null || echo "opens a disk"
mknod /tmp/m c 1 1 && ! (exec 3</tmp/m) 2>/dev/null || echo "opens memory"
"#;
    for line in [
        vec!["run", "--rm", "busybox", "sh", "-c", script],
        vec!["exec", "c1", "sh", "-c", script],
    ] {
        if line[0] == "exec" {
            host.run("run -d --name c1 busybox sleep 1000");
        }
        host.coracle(line).ok().says("");
    }
}
