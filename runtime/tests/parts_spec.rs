//! The spec, the filter and the root filesystem run by libcontainer, and compared with what Docker 20.10 shows for the
//! same busybox (`docker run --rm -h web`). The expected values are Docker's, and each difference is named with its
//! reason.
//!
//! A plain `main`, because libcontainer may only be called by a process without threads.
#![allow(unsafe_code)] // Drops capabilities, as the real executor does; see the SAFETY comments.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use oci_spec::runtime::Spec;
use runtime::record::{Resolved, ResolvedMount};
use runtime::seccomp::{self, Filter};
use runtime::spec::{Place, capabilities, spec};
use runtime::{Container, ContainerRequest, State, bundle, user, volume};

/// Loads the filter, then drops to the program's own capabilities, then executes it: as `oci` does.
#[derive(Clone)]
struct TestExecutor {
    filter: Option<Filter>,
    keep: u64,
}

impl Executor for TestExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        if let Some(filter) = &self.filter {
            seccomp::load(filter).map_err(|e| ExecutorError::Other(e.to_string()))?;
        }
        drop_to(self.keep);
        libcontainer::workload::default::get_executor().exec(spec)
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }
}

fn drop_to(keep: u64) {
    for number in 0..64_u32 {
        if keep & (1 << number) == 0 {
            // SAFETY: plain numbers; EINVAL for a capability that this kernel does not have.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        }
    }
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    // _LINUX_CAPABILITY_VERSION_3 and this process; two sets of effective, permitted, inheritable.
    let header: [u32; 2] = [0x2008_0522, 0];
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: both arrays have the layout of capset(2) for version 3 and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(result, 0, "capset");
}

/// capabilities(7), by number.
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP \
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT \
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE \
    AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF \
    CHECKPOINT_RESTORE";

fn mask(names: &[String]) -> u64 {
    names.iter().fold(0, |mask, name| {
        let short = name.strip_prefix("CAP_").unwrap();
        let number = CAPABILITIES
            .split_whitespace()
            .position(|n| n == short)
            .unwrap();
        mask | 1 << number
    })
}

/// A directory with an image's layer, the files for /etc, and a network namespace; all gone at the end.
struct Setting {
    dir: tempfile::TempDir,
    netns: Child,
    count: u32,
}

impl Setting {
    fn new() -> Setting {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("layer/bin");
        let etc = dir.path().join("layer/etc");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
        for applet in [
            "sh", "cat", "env", "grep", "ls", "id", "touch", "mknod", "mount", "sort", "head",
            "true",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        std::fs::write(
            etc.join("passwd"),
            "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/data:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(etc.join("group"), "root:x:0:\nadm:x:4:redis\n").unwrap();
        for (name, text) in [
            ("hosts", "HOSTS\n"),
            ("hostname", "web\n"),
            ("resolv.conf", "RESOLV\n"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let netns = Command::new("unshare")
            .args(["-n", "sleep", "300"])
            .spawn()
            .unwrap();
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", netns.id());
        while std::fs::read_link(&path).unwrap() == ours {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Setting {
            dir,
            netns,
            count: 0,
        }
    }

    fn container(&mut self, script: &str) -> Container {
        self.count += 1;
        Container {
            id: format!("{:064x}", self.count),
            name: "web".to_owned(),
            created: time::OffsetDateTime::UNIX_EPOCH,
            request: ContainerRequest::default(),
            resolved: Resolved {
                command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                hostname: "web".to_owned(),
                ..Resolved::default()
            },
            image_id: String::new(),
            state: State::Created,
            paused: false,
            health: None,
            restarts: 0,
            stopped_by_user: false,
            attachments: Vec::new(),
        }
    }

    /// What the container's program writes to stdout and stderr.
    fn run(&self, container: &Container) -> String {
        let home = self.dir.path().join(&container.id);
        let path = |name: &str| home.join(name);
        for name in ["rootfs", "upper", "work", "bundle", "state"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        let rootfs = path("rootfs");
        let started = Instant::now();
        bundle::mount_overlay(
            &rootfs,
            &[self.dir.path().join("layer")],
            &path("upper"),
            &path("work"),
        )
        .unwrap();
        let mounted = started.elapsed();
        bundle::check_rootfs(&rootfs).unwrap();
        for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
            volume::ensure_mountpoint(&rootfs, file, false).unwrap();
        }
        for mount in &container.resolved.mounts {
            volume::ensure_mountpoint(&rootfs, &mount.target, Path::new(&mount.source).is_dir())
                .unwrap();
        }
        let place = self.place(container, rootfs.clone());
        let spec = spec(container, &place);
        spec.save(path("bundle").join("config.json")).unwrap();
        let keep = capabilities(container, &place).unwrap();
        let names: Vec<&str> = keep.iter().map(String::as_str).collect();
        let filter = (!container.request.privileged)
            .then(|| seccomp::default_filter(&self.dir.path().join("cache"), &names).unwrap());
        let executor = TestExecutor {
            filter,
            keep: mask(&keep),
        };
        let output = launch(container, &path("state"), &path("bundle"), executor);
        eprintln!("  overlay {mounted:?}, whole run {:?}", started.elapsed());
        rustix::mount::unmount(&rootfs, rustix::mount::UnmountFlags::DETACH).unwrap();
        output
    }

    fn place(&self, container: &Container, rootfs: PathBuf) -> Place {
        let file = |name: &str| self.dir.path().join(name);
        let v1 = bundle::cgroup_v1_hierarchies().unwrap();
        Place {
            init: None,
            tmpfs_modes: Default::default(),
            user: user::look_up(&rootfs, &container.resolved.user, &[]).unwrap(),
            rootfs,
            netns: Some(format!("/proc/{}/ns/net", self.netns.id()).into()),
            hosts: file("hosts"),
            hostname: file("hostname"),
            resolv_conf: file("resolv.conf"),
            cgroup: format!("/coracle-test-{}/{}", std::process::id(), container.id).into(),
            cgroup_v2: v1.is_empty(),
            cgroup_v1: v1,
            bounding_set: bounding_set(),
            host_devices: if container.request.privileged {
                bundle::host_devices().unwrap()
            } else {
                Vec::new()
            },
            ..Place::default()
        }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = self.netns.kill();
        let _ = self.netns.wait();
        // libcontainer removes a container's own cgroup, and not the one above.
        let name = format!("coracle-test-{}", std::process::id());
        let mut places = bundle::cgroup_v1_hierarchies().unwrap_or_default();
        places.extend(["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from));
        for place in places {
            let _ = std::fs::remove_dir(place.join(&name));
        }
    }
}

/// `CapBnd` of this process as names.
fn bounding_set() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:"))
        .unwrap();
    let mask = u64::from_str_radix(line.trim(), 16).unwrap();
    let names = CAPABILITIES.split_whitespace().enumerate();
    names
        .filter(|(i, _)| mask & (1 << i) != 0)
        .map(|(_, n)| format!("CAP_{n}"))
        .collect()
}

fn launch(container: &Container, state: &Path, bundle: &Path, executor: TestExecutor) -> String {
    let output = tempfile::NamedTempFile::new().unwrap();
    let writer = || -> OwnedFd {
        File::options()
            .append(true)
            .open(output.path())
            .unwrap()
            .into()
    };
    let mut running = ContainerBuilder::new(container.id.clone(), SyscallType::default())
        .with_root_path(state)
        .unwrap()
        .with_stdin(File::open("/dev/null").unwrap())
        .with_stdout(writer())
        .with_stderr(writer())
        .with_executor(executor)
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .unwrap();
    let pid = running.pid().unwrap();
    running.start().unwrap();
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid.as_raw()), None).unwrap();
    running.delete(true).unwrap();
    let mut text = String::new();
    File::open(output.path())
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn process_is_confined_as_in_docker(s: &mut Setting) {
    let c = s.container("grep -E '^(Cap|NoNew|Seccomp|Groups)' /proc/self/status");
    assert_eq!(
        lines(&s.run(&c)),
        [
            "Groups:\t0 ",
            "CapInh:\t0000000000000000",
            "CapPrm:\t00000000a80425fb",
            "CapEff:\t00000000a80425fb",
            "CapBnd:\t00000000a80425fb",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t0",
            "Seccomp:\t2",
            "Seccomp_filters:\t1",
        ]
    );
}

fn a_user_other_than_root_has_no_effective_capability(s: &mut Setting) {
    let mut c = s.container(
        "id -u; id -g; grep -E '^(CapPrm|CapEff|CapBnd|Groups)' /proc/self/status; echo $HOME",
    );
    c.resolved.user = "redis".to_owned();
    assert_eq!(
        lines(&s.run(&c)),
        [
            "999",
            "998",
            "Groups:\t4 998 ",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapBnd:\t00000000a80425fb",
            "/data",
        ]
    );
}

fn environment_hostname_and_directory_are_dockers(s: &mut Setting) {
    let c = s.container(
        "/bin/env -u PWD -u SHLVL -u OLDPWD | sort; cat /proc/sys/kernel/hostname; pwd; echo $$",
    );
    assert_eq!(
        lines(&s.run(&c)),
        [
            "HOME=/root",
            "HOSTNAME=web",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "web",
            "/",
            "1",
        ]
    );
}

/// Docker's lines of /proc/self/mounts, type and options, without the root filesystem and the binds in /etc.
const DOCKERS_MOUNTS: &[&str] = &[
    "/proc proc rw,nosuid,nodev,noexec,relatime",
    "/dev tmpfs rw,nosuid,size=65536k,mode=755",
    "/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
    "/sys sysfs ro,nosuid,nodev,noexec,relatime",
    "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
    "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k",
    "/proc/bus proc ro,nosuid,nodev,noexec,relatime",
    "/proc/fs proc ro,nosuid,nodev,noexec,relatime",
    "/proc/irq proc ro,nosuid,nodev,noexec,relatime",
    "/proc/sys proc ro,nosuid,nodev,noexec,relatime",
    "/sys/firmware tmpfs ro,relatime",
];

fn mounts_have_dockers_types_and_options(s: &mut Setting) {
    let c = s.container("cat /proc/self/mounts");
    let text = s.run(&c);
    let all: Vec<String> = text
        .lines()
        .map(|line| {
            line.split(' ')
                .skip(1)
                .take(3)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    for expect in DOCKERS_MOUNTS {
        assert!(
            all.iter().any(|line| line == expect),
            "{expect} is not in\n{text}"
        );
    }
    let root = &all[0];
    assert!(root.starts_with("/ overlay rw,relatime"), "{root}");
    for line in all.iter().filter(|line| line.contains(" cgroup")) {
        assert!(line.contains(" ro,nosuid,nodev,noexec,relatime"), "{line}");
    }
    if !bundle::cgroup_v1_hierarchies().unwrap().is_empty() {
        // Docker's tmpfs is the same; its name=systemd hierarchy is not here, as libcontainer makes no directory in it.
        assert!(
            all.iter()
                .any(|l| l == "/sys/fs/cgroup tmpfs rw,nosuid,nodev,noexec,relatime,mode=755")
        );
        assert!(
            all.iter()
                .any(|l| l.starts_with("/sys/fs/cgroup/memory cgroup "))
        );
    }
    // More than Docker 20.10 masks, as later releases do.
    assert!(
        all.iter().any(|l| l.starts_with("/proc/interrupts ")),
        "{text}"
    );
    assert!(!text.contains("/oldroot"), "{text}");
}

fn dev_has_dockers_nodes_and_links(s: &mut Setting) {
    // Where the host's kernel has /proc/kcore, libcontainer makes a link to it, which is masked. Docker makes none.
    let c = s.container(
        "cd /dev; for f in *; do set -- $(ls -ld $f); [ $f = kcore ] || echo $1 $f; done",
    );
    assert_eq!(
        lines(&s.run(&c)),
        [
            "lrwxrwxrwx fd",
            "crw-rw-rw- full",
            "drwxrwxrwt mqueue",
            "crw-rw-rw- null",
            "lrwxrwxrwx ptmx",
            "drwxr-xr-x pts",
            "crw-rw-rw- random",
            "drwxrwxrwt shm",
            "lrwxrwxrwx stderr",
            "lrwxrwxrwx stdin",
            "lrwxrwxrwx stdout",
            "crw-rw-rw- tty",
            "crw-rw-rw- urandom",
            "crw-rw-rw- zero",
        ]
    );
}

fn hidden_and_read_only_paths_hold(s: &mut Setting) {
    let c = s.container(
        "cat /proc/keys /proc/timer_list /proc/interrupts | head -c 100
         for f in /sys/firmware /proc/acpi; do ls $f 2>/dev/null; done
         echo 1 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger
         touch /sys/x /sys/fs/cgroup/memory/x
         mknod /tmpdisk b 1 0 && cat /tmpdisk
         mount -t tmpfs x /bin
         cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range",
    );
    let text = s.run(&c);
    let all = lines(&text);
    let (settings, refusals) = all
        .split_last()
        .map(|(a, rest)| {
            let (b, rest) = rest.split_last().unwrap();
            ([*b, *a], rest)
        })
        .unwrap();
    assert_eq!(settings, ["0", "0\t2147483647"]);
    // Nothing but refusals was written: six, and the file system that is not mounted.
    for line in refusals {
        let refused = [
            "Read-only file system",
            "Permission denied",
            "Operation not permitted",
            "permission denied",
            "can't create",
        ];
        assert!(
            refused.iter().any(|r| line.contains(r)),
            "{line:?} in\n{text}"
        );
    }
    assert_eq!(refusals.len(), 6, "{text}");
}

fn binds_are_private_and_read_only_down_to_what_is_below(s: &mut Setting) {
    let source = s.dir.path().join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    rustix::mount::mount(
        "tmpfs",
        source.join("sub"),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .unwrap();
    let mut c = s.container(
        "touch /data/x; touch /data/sub/x; touch /rw/y && echo written; touch /rw/sub/y && echo written
         cat /etc/hosts /etc/resolv.conf /etc/hostname; grep -c shared: /proc/self/mountinfo",
    );
    for (target, read_only) in [("/data", true), ("/rw", false)] {
        c.resolved.mounts.push(ResolvedMount {
            source: source.display().to_string(),
            target: target.to_owned(),
            volume: None,
            read_only,
            tmpfs: None,
            options: Default::default(),
        });
    }
    let text = s.run(&c);
    rustix::mount::unmount(source.join("sub"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(
        lines(&text),
        [
            "touch: /data/x: Read-only file system",
            // Docker 20.10 writes here: its `ro` is of the topmost mount alone.
            "touch: /data/sub/x: Read-only file system",
            "written",
            "written",
            "HOSTS",
            "RESOLV",
            "web",
            "0",
        ]
    );
    assert!(source.join("y").exists());
}

fn privileged_hides_nothing(s: &mut Setting) {
    let mut c = s.container(
        "grep -E '^(CapEff|Seccomp):' /proc/self/status; grep -E '^[^ ]+ /proc/' /proc/self/mounts
         grep -E '^sysfs' /proc/self/mounts; ls /dev/ | grep -c .; mount -t tmpfs x /bin && echo mounted",
    );
    c.request.privileged = true;
    let text = s.run(&c);
    let all = lines(&text);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:"))
        .unwrap()
        .trim();
    assert_eq!(all[0], format!("CapEff:\t{bounding}"), "{text}");
    assert_eq!(all[1], "Seccomp:\t0");
    assert_eq!(
        all[2],
        "sysfs /sys sysfs rw,nosuid,nodev,noexec,relatime 0 0"
    );
    assert!(all[3].parse::<u32>().unwrap() > 15, "{text}");
    assert_eq!(all[4..], ["mounted"]);
}

type Check = fn(&mut Setting);

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root is needed");
    bundle::make_mounts_slave().unwrap();
    let mut setting = Setting::new();
    let all: &[(&str, Check)] = &[
        (
            "process_is_confined_as_in_docker",
            process_is_confined_as_in_docker,
        ),
        (
            "a_user_other_than_root_has_no_effective_capability",
            a_user_other_than_root_has_no_effective_capability,
        ),
        (
            "environment_hostname_and_directory_are_dockers",
            environment_hostname_and_directory_are_dockers,
        ),
        (
            "mounts_have_dockers_types_and_options",
            mounts_have_dockers_types_and_options,
        ),
        (
            "dev_has_dockers_nodes_and_links",
            dev_has_dockers_nodes_and_links,
        ),
        (
            "hidden_and_read_only_paths_hold",
            hidden_and_read_only_paths_hold,
        ),
        (
            "binds_are_private_and_read_only_down_to_what_is_below",
            binds_are_private_and_read_only_down_to_what_is_below,
        ),
        ("privileged_hides_nothing", privileged_hides_nothing),
    ];
    for (name, test) in all {
        eprintln!("test {name}");
        test(&mut setting);
    }
    eprintln!("{} passed", all.len());
}
