//! Docker's defaults from the first day: what a container may not do, asked from inside one.

use std::fs;

use harness::{Host, images, oci};

/// The 14 default capabilities (runtime-spec names; capability.h numbers) as a mask.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

#[track_caller]
fn status(host: &Host, args: &[&str]) -> Vec<(String, String)> {
    let output = host
        .coracle(args.iter().chain(&["cat", "/proc/self/status"]))
        .ok();
    let pairs = output
        .stdout
        .lines()
        .filter_map(|line| line.split_once(':'));
    pairs
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

#[track_caller]
fn assert_confined(status: &[(String, String)], what: &str) {
    let get = |key: &str| {
        status
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value.as_str())
    };
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(get(set), DEFAULT_CAPABILITIES, "{what}: {set}");
    }
    // Docker 20.10.24 has none inheritable (CVE-2022-24769).
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(get(set), "0000000000000000", "{what}: {set}");
    }
    assert_eq!(get("Seccomp"), "2", "{what}: a filter is in place");
}

#[test]
fn run_and_exec_have_dockers_capabilities_and_a_seccomp_filter() {
    let host = Host::new();
    assert_confined(&status(&host, &["run", "--rm", "busybox"]), "run");
    host.run("run -d --name c1 busybox sleep 1000");
    assert_confined(&status(&host, &["exec", "c1"]), "exec");
}

#[test]
fn a_user_that_is_not_root_has_no_capability() {
    let host = Host::new();
    let status = status(&host, &["run", "--rm", "-u", "web", "busybox"]);
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert!(
            status.contains(&(set.to_owned(), "0000000000000000".to_owned())),
            "{set}: {status:?}"
        );
    }
}

#[test]
fn masked_and_read_only_paths_are_so() {
    let host = Host::new();
    let script = r#"
for file in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do
  [ ! -e $file ] || [ -z "$(head -c 1 $file 2>/dev/null)" ] || echo "$file can be read"
done
for folder in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do
  [ ! -e $folder ] || [ -z "$(ls -A $folder 2>/dev/null)" ] || echo "$folder is not empty"
done
for file in /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/mm/ksm/run; do
  [ ! -e $file ] || ! { cat $file 2>/dev/null || echo 0; } 2>/dev/null >$file || echo "$file can be written"
done
for folder in /sys/fs/cgroup/*; do
  ! mkdir $folder/x 2>/dev/null || { echo "a cgroup can be made in $folder"; rmdir $folder/x; }
done
! mount -t tmpfs none /tmp 2>/dev/null || echo "a file system can be mounted"
! mount -o remount,rw /proc/sys 2>/dev/null || echo "/proc/sys can be made writable"
! unshare -U true 2>/dev/null || echo "a user namespace can be made"
! hostname other 2>/dev/null || echo "the host name can be set"
"#;
    // Docker masks this one since version 28.
    let script = if host.is_docker() {
        &script.replace("/proc/interrupts", "")
    } else {
        script
    };
    host.coracle(["run", "--rm", "busybox", "sh", "-c", script])
        .ok()
        .says("");
}

#[test]
fn the_devices_are_dockers() {
    let host = Host::new();
    let output = host.run("run --rm busybox ls /dev");
    // `core` is a link to /proc/kcore, and there only where the kernel has that.
    let mut devices: Vec<_> = output
        .stdout
        .split_whitespace()
        .filter(|name| *name != "core")
        .collect();
    devices.sort_unstable();
    assert_eq!(
        devices,
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
            "stdout", "tty", "urandom", "zero"
        ]
    );
    host.coracle([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "head -c 3 /dev/zero | wc -c; echo x >/dev/null; head -c 4 /dev/urandom | wc -c",
    ])
    .ok()
    .says("3\n4");
}

#[test]
fn a_disk_of_the_host_can_be_named_but_not_opened() {
    let host = Host::new();
    let partitions = fs::read_to_string("/proc/partitions").unwrap();
    let disk: Vec<_> = partitions
        .lines()
        .nth(2)
        .expect("a disk")
        .split_whitespace()
        .collect();
    let script = format!(
        "mknod /tmp/disk b {} {} && dd if=/tmp/disk of=/dev/null bs=512 count=1",
        disk[0], disk[1]
    );
    let open = host
        .coracle(["run", "--rm", "busybox", "sh", "-c", &script])
        .exits(1);
    assert!(
        open.stderr.contains("/tmp/disk") && open.stderr.contains("Operation not permitted"),
        "{open}"
    );
    // mem and kmsg: character devices.
    for (number, name) in [("1 1", "mem"), ("1 11", "kmsg")] {
        let script = format!("mknod /tmp/{name} c {number} && head -c 1 /tmp/{name}");
        let open = host.coracle(["run", "--rm", "busybox", "sh", "-c", &script]);
        assert!(
            open.code() != 0 && open.stderr.contains("Operation not permitted"),
            "{open}"
        );
    }
}

/// CVE-2019-5736: the program that enters a container is seen there as /proc/PID/exe, and what can be opened could be overwritten.
#[test]
fn the_program_cannot_be_overwritten_from_a_container() {
    // A copy, in case it can.
    let keep = tempfile::tempdir().unwrap();
    let binary = keep.path().join("program");
    let host = if images::compare_with_docker() {
        Host::new()
    } else {
        fs::copy(images::binary(), &binary).unwrap();
        Host::builder().binary(&binary).build()
    };
    // Whatever comes into the container and is not busybox is opened at once, and written to as soon as it no longer runs.
    let trap = r#"
cp /bin/busybox /bin/evil.sh
printf '#!/proc/self/exe\n' >/bin/evil && chmod 755 /bin/evil
echo ready
while :; do
  for exe in /proc/[0-9]*/exe; do
    case $(readlink $exe 2>/dev/null) in ''|/bin/busybox|/bin/evil.sh) continue ;; esac
    ( exec 9<$exe ) 2>/dev/null || continue
    exec 9<$exe && echo caught $(readlink $exe)
    i=0
    while [ $i -lt 200 ]; do
      ( echo overwritten >/proc/self/fd/9 ) 2>/dev/null && echo written
      ( echo overwritten >$exe ) 2>/dev/null && echo written
      i=$((i + 1))
    done
  done
done 2>/dev/null"#;
    let before = binary.exists().then(|| oci::digest_of(&binary));
    host.coracle(["run", "-d", "--name", "trap", "busybox", "sh", "-c", trap])
        .ok();
    harness::eventually("the trap is set", || {
        let logs = host.run("logs trap");
        if logs.stdout.starts_with("ready") {
            Ok(())
        } else {
            Err(logs)
        }
    });
    for _ in 0..20 {
        // The second runs the entering program itself, if it can be had by that path: the way of the published exploit.
        host.run("exec trap true");
        host.try_run("exec trap /bin/evil");
    }
    let logs = host.run("logs trap");
    assert!(!logs.stdout.contains("written"), "{logs}");
    assert_eq!(before, binary.exists().then(|| oci::digest_of(&binary)));
    host.run("rm -f trap");
    host.run("run --rm busybox true");
}

#[test]
fn a_working_folder_through_a_descriptor_leads_nowhere() {
    let host = Host::new();
    for number in 3..12 {
        let folder = format!("/proc/self/fd/{number}");
        // CVE-2024-21626: a descriptor of the host's that is still open when the working folder is entered.
        let output = host.coracle([
            "run",
            "--rm",
            "-w",
            &folder,
            "busybox",
            "ls",
            "-a",
            "../../../../../etc/shadow",
        ]);
        assert_ne!(output.code(), 0, "{output}");
    }
}

#[test]
fn processes_of_the_host_and_of_other_containers_are_not_seen() {
    let host = Host::new();
    host.run("run -d --name other busybox sleep 12345");
    let seen = host
        .coracle([
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "ps -o pid,args; echo; ls /proc | grep -c '^[0-9]'",
        ])
        .ok();
    assert!(!seen.stdout.contains("12345"), "{seen}");
    host.coracle(["run", "--rm", "busybox", "sh", "-c", "echo $$"])
        .ok()
        .says("1");
}

#[test]
fn ignored_signals_and_open_files_of_the_caller_are_not_passed_on() {
    let host = Host::new();
    let output = host
        .coracle([
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "grep SigIgn /proc/self/status; ls /proc/self/fd | wc -l",
        ])
        .ok();
    let lines: Vec<_> = output.stdout.lines().collect();
    let ignored = u64::from_str_radix(lines[0].rsplit('\t').next().unwrap(), 16).unwrap();
    assert_eq!(
        ignored >> 12 & 1,
        0,
        "SIGPIPE (13) must not be ignored: {output}"
    );
    if !host.is_docker() {
        assert_eq!(ignored, 0, "not those of the C library either: {output}");
    }
    // 0, 1, 2 and the folder that ls reads.
    assert_eq!(lines[1].trim(), "4", "{output}");
}

#[test]
fn the_callers_umask_decides_nothing() {
    let host = Host::new();
    // The root of this image's tree is in no entry of its tar.
    let folder = host.folder().join("tree");
    fs::create_dir_all(folder.join("bin")).unwrap();
    fs::copy("/bin/busybox", folder.join("bin/busybox")).expect("Debian's busybox-static");
    let tar = host.folder().join("tree.tar");
    let (folder, tar) = (folder.to_str().unwrap(), tar.to_str().unwrap());
    host.tool("tar", ["-C", folder, "-cf", tar, "bin"]).ok();
    for umask in ["000", "022", "077", "777"] {
        let line = format!("umask {umask}; exec \"$@\"");
        let coracle = |args: &[&str]| {
            let cmd = host.command(args).wrapped_in("sh", ["-c", &line, "sh"]);
            cmd.run_in(&host.netns).ok()
        };
        let name = format!("tree:{umask}");
        coracle(&["import", tar, &name]);
        let look = "busybox() { /bin/busybox \"$@\"; }; busybox stat -c '%a %n' / /etc /etc/hosts \
                    /etc/hostname /etc/resolv.conf /data; umask";
        let run = [
            "run",
            "--rm",
            "-v",
            "/data",
            &name,
            "/bin/busybox",
            "sh",
            "-c",
        ];
        let output = coracle(&[&run[..], &[look]].concat());
        let modes: Vec<_> = output.stdout.lines().collect();
        let wanted = [
            "755 /",
            "755 /etc",
            "644 /etc/hosts",
            "644 /etc/hostname",
            "644 /etc/resolv.conf",
            "755 /data",
            "0022",
        ];
        assert_eq!(modes, wanted, "umask {umask}: {output}");
        host.run(&format!("rmi {name}"));
    }
    // Below its root, which is for root alone, others may write to nothing either, but for what the image says.
    let root = host.root();
    let root = root.to_str().unwrap();
    let image = ["!", "-type", "l", "!", "-path", "*/layers/*/*"];
    let loose = [&[root, "-perm", "/022"][..], &image].concat();
    host.tool("find", loose).ok().says("");
}
