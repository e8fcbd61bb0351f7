//! What a container may do and what it finds, compared with Docker Engine 20.10: every system call's fate, capabilities, masked
//! paths, devices, mounts. Where the answers differ, the difference is in [`KNOWN`] with its reason; one that is there and does
//! not show any more is a failure too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use harness::{Cmd, Host};

/// What was asked, and the answer.
type Answers = BTreeMap<String, String>;

struct Known {
    /// The options after `run`, as in [`VARIANTS`] and [`CALLS_WITH`]; `*`: any.
    options: &'static str,
    /// The beginning of what was asked.
    asked: &'static str,
    docker: &'static str,
    ours: &'static str,
    why: &'static str,
}

const fn known(
    options: &'static str,
    asked: &'static str,
    docker: &'static str,
    ours: &'static str,
    why: &'static str,
) -> Known {
    Known {
        options,
        asked,
        docker,
        ours,
        why,
    }
}

/// `*` at the end of an answer stands for the rest of it.
const KNOWN: &[Known] = &[
    known(
        "*",
        "call socket vsock",
        "other",
        "EPERM",
        "a virtual machine's socket to its host passes every network namespace; Docker refuses it since version 23",
    ),
    known(
        "*",
        "mount /proc/interrupts",
        "nothing",
        "tmpfs *",
        "it tells of the timing of others; Docker masks it since version 28",
    ),
    known(
        "*",
        "path /proc/interrupts",
        "text",
        "blank",
        "the same, as it is read",
    ),
    known(
        "*",
        "mount /sys",
        "sysfs ro,nosuid,nodev,noexec,relatime ro",
        "sysfs ro,nosuid,nodev,noexec,relatime rw",
        "libcontainer makes the mount read-only, runc its file system too: neither can be changed without CAP_SYS_ADMIN",
    ),
    known(
        "*",
        "mount /sys/fs/cgroup/systemd",
        "cgroup *",
        "nothing",
        "libcontainer makes no directory in hierarchies without a controller, so there is none to show",
    ),
    known(
        "--privileged -u 1000",
        "status CapBnd",
        "0000003f*",
        "*",
        "Docker 20.10 knows no capability that is younger than CAP_AUDIT_READ",
    ),
];

/// Capabilities that open calls, and one without which a call is closed.
const CALLS_WITH: &[&str] = &[
    "",
    "--cap-add SYS_ADMIN",
    "--cap-add SYS_PTRACE --cap-add SYS_MODULE --cap-add SYS_TIME --cap-add SYS_NICE",
    "--cap-add SYS_RAWIO --cap-add SYS_PACCT --cap-add SYS_TTY_CONFIG --cap-add SYSLOG --cap-add DAC_READ_SEARCH",
    "--cap-add SYS_BOOT --cap-add NET_ADMIN",
    "--cap-drop SYS_CHROOT",
    "--cap-drop ALL",
    "--security-opt no-new-privileges",
    "-u 1000",
];

/// With `-u`, because Docker gives root all capabilities that it knows or none: on a machine that lacks one it gives up.
const VARIANTS: &[&str] = &[
    "",
    "-u web",
    "-u web:nogroup --group-add 12",
    "--cap-add NET_ADMIN --cap-add sys_time",
    "--cap-drop ALL --cap-add chown",
    "--security-opt no-new-privileges",
    "--security-opt seccomp=unconfined",
    "--security-opt systempaths=unconfined",
    "--device /dev/null:/dev/one:r --device /dev/zero",
    "--sysctl net.core.somaxconn=12",
    "--ipc none",
    "--ipc host",
    "--ipc shareable",
    "--pid host",
    "--uts host",
    "--cgroupns private",
    "--read-only",
    "--privileged -u 1000",
];

/// `KEY: ANSWER`, one a line.
const LOOK: &str = r#"
grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups|SigBlk|Umask)' /proc/self/status | sed 's/:\t/: /; s/\t/ /g; s/^/status /; s/ *$//'
while read -r id parent device root point options rest; do
  rest=${rest#*- }
  set -- $rest
  case $1 in overlay|ext4|xfs|btrfs) super= ;; *) super=" $3" ;; esac
  case $point in /given|/etc/*) continue ;; esac
  echo "mount $point: $1 $options$super"
done </proc/self/mountinfo
find /dev ! -type d | sort | while read -r path; do
  case $path in /dev/pts/[0-9]*|/dev/shm/*|/dev/mqueue/*) continue ;; esac
  if [ -L $path ]; then echo "dev $path: -> $(readlink $path)"; else echo "dev $path: $(stat -c '%A %u:%g %t,%T' $path)"; fi
done
for path in /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi /proc/timer_list \
  /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger /sys /sys/fs/cgroup /proc /; do
  if [ -d $path ]; then [ -n "$(ls -A $path 2>/dev/null)" ] && state=full || state=empty
  elif [ -e $path ]; then [ -n "$(head -c 1 $path 2>/dev/null | tr '\0' x)" ] && state=text || state=blank
  else state=missing; fi
  echo "path $path: $state"
done
for kind in cgroup ipc mnt net pid uts user; do
  [ "$(readlink /proc/self/ns/$kind)" = "$(cat /given/$kind)" ] && echo "namespace $kind: the host's" || echo "namespace $kind: own"
done
echo "hostname: $(hostname | grep -xq '[0-9a-f]\{12\}' && echo ID || hostname)"
echo "somaxconn: $(cat /proc/sys/net/core/somaxconn)"
echo "low port: $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)"
echo "ping: $(cat /proc/sys/net/ipv4/ping_group_range)"
echo "descriptors: $(ls /proc/self/fd | tr '\n' ' ')"
"#;

/// Both engines, each on a host of its own, and a folder that containers are given.
struct Both {
    docker: Host,
    ours: Host,
    given: tempfile::TempDir,
}

impl Both {
    fn new() -> Both {
        let given = tempfile::tempdir().unwrap();
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts", "user"] {
            let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            std::fs::write(given.path().join(kind), link.display().to_string()).unwrap();
        }
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/confinement/calls.c");
        let program = given.path().join("calls");
        Cmd::new("gcc")
            .args(["-static", "-o"])
            .arg(program)
            .arg(source)
            .run()
            .ok();
        Cmd::new("chmod")
            .args(["-R", "a+rX"])
            .arg(given.path())
            .run()
            .ok();
        let docker = Host::builder().ip_forward(true).docker().build();
        let version = docker.run("version --format {{.Server.Version}}");
        assert!(
            version.text().starts_with("20.10."),
            "the oracle is Docker Engine 20.10: {version}"
        );
        Both {
            docker,
            ours: Host::builder().ip_forward(true).build(),
            given,
        }
    }

    /// What both say of a container with these options.
    fn ask(&self, options: &str, prefix: &str, command: &[&str]) -> [Answers; 2] {
        std::thread::scope(|scope| {
            let ask = |host| scope.spawn(move || self.ask_one(host, options, prefix, command));
            [&self.docker, &self.ours].map(ask).map(|thread| {
                let answers = thread.join();
                answers.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    fn ask_one(&self, host: &Host, options: &str, prefix: &str, command: &[&str]) -> Answers {
        let bind = format!("{}:/given:ro", self.given.path().display());
        let words = ["run", "--rm", "-v", &bind].into_iter();
        let line: Vec<_> = words
            .chain(options.split_whitespace())
            .chain(["busybox"])
            .chain(command.iter().copied())
            .collect();
        let output = host.coracle(line).ok();
        let mut answers = Answers::new();
        for line in output.stdout.lines() {
            let (key, answer) = line.split_once(": ").unwrap_or((line, ""));
            // Some things are there more than once: mounts on one another.
            let mut key = format!("{prefix}{key}");
            while answers.contains_key(&key) {
                key.push('+');
            }
            answers.insert(key, answer.trim().to_owned());
        }
        assert!(answers.len() > 20, "{output}");
        answers
    }
}

fn is_like(answer: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => answer.starts_with(beginning),
        None => answer == pattern,
    }
}

/// Differences that are not known, and those that are: their places in the table.
fn judge(options: &str, [docker, ours]: &[Answers; 2], shown: &mut BTreeSet<usize>) -> Vec<String> {
    let none = String::from("nothing");
    let keys: BTreeSet<&String> = docker.keys().chain(ours.keys()).collect();
    let mut unexpected = Vec::new();
    for key in keys {
        let (theirs, mine) = (
            docker.get(key).unwrap_or(&none),
            ours.get(key).unwrap_or(&none),
        );
        if theirs == mine {
            continue;
        }
        let place = KNOWN.iter().position(|known| {
            (known.options == "*" || known.options == options)
                && is_like(key, known.asked)
                && is_like(theirs, known.docker)
                && is_like(mine, known.ours)
        });
        match place {
            Some(place) => drop(shown.insert(place)),
            None => unexpected.push(format!(
                "[{options}] {key}\n    docker: {theirs}\n    ours:   {mine}"
            )),
        }
    }
    unexpected
}

/// cgroup v2 has no hierarchies that a difference could be in.
fn is_of_this_machine(known: &Known) -> bool {
    let hierarchy = known.asked.strip_prefix("mount /sys/fs/cgroup/");
    hierarchy.is_none_or(|name| Path::new("/sys/fs/cgroup").join(name).exists())
}

#[test]
fn a_container_is_confined_as_dockers_are_but_for_the_known_differences() {
    let both = Both::new();
    let shown = Mutex::new(BTreeSet::new());
    let mut unexpected = Vec::new();
    let mut asked = 0;
    let mut judge_all = |options: &str, answers: [Answers; 2]| {
        asked += answers[0].len();
        unexpected.extend(judge(options, &answers, &mut shown.lock().unwrap()));
    };
    for options in VARIANTS {
        judge_all(options, both.ask(options, "", &["sh", "-c", LOOK]));
    }
    for options in CALLS_WITH {
        judge_all(options, both.ask(options, "call ", &["/given/calls"]));
    }
    println!("{asked} answers compared");
    let shown = shown.into_inner().unwrap();
    let stale = KNOWN
        .iter()
        .enumerate()
        .filter(|(place, known)| !shown.contains(place) && is_of_this_machine(known));
    unexpected.extend(stale.map(|(_, known)| {
        format!(
            "no longer shows: [{}] {} ({})",
            known.options, known.asked, known.why
        )
    }));
    assert!(
        unexpected.is_empty(),
        "{} of them:\n{}",
        unexpected.len(),
        unexpected.join("\n")
    );
}

/// A neighbour's processes have no number in here, so there is nothing to trace, whatever the capabilities are.
#[test]
fn a_process_of_another_container_cannot_be_traced() {
    let both = Both::new();
    for host in [&both.docker, &both.ours] {
        host.run("run -d --name victim busybox sleep 1000");
        let victim = host.pid_of("victim").to_string();
        let bind = format!("{}:/given:ro", both.given.path().display());
        for options in [&[][..], &["--cap-add", "SYS_PTRACE"]] {
            let line = [
                &["run", "--rm", "-v", &bind],
                options,
                &["busybox", "/given/calls", "attach", &victim],
            ];
            host.coracle(line.concat()).ok().says("No such process");
        }
        host.run("exec victim true");
    }
}
