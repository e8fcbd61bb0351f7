//! Which system calls a container may make: the names and conditions of Docker 20.10's default profile, as data.
//!
//! Taken from what a live Docker 20.10 hands to its runtime for a container with no option and for one with each
//! `--cap-add`. Nothing here touches the kernel.

use std::collections::BTreeSet;

use super::rules::{Action, Argument, Rule, Rules};

/// Part of the cache's key: to be changed with every change of this file.
pub const VERSION: &str = "docker-20.10+vsock.1";

/// The architectures a process can enter on this machine: it may change from one to another with each call, so a
/// filter for the first alone would be none.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_NATIVE"];

/// A call that is allowed whatever its arguments are.
const PLAIN: &str = "
    accept accept4 access adjtimex alarm bind brk capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
    epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
    fanotify_mark fchdir fchmod fchmodat fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_time64 futex_waitv futimesat getcpu getcwd getdents getdents64 getegid getegid32
    geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list
    getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents
    io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit io_uring_enter
    io_uring_register io_uring_setup ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr llistxattr _llseek
    lremovexattr lseek lsetxattr lstat lstat64 madvise membarrier memfd_create memfd_secret mincore mkdir
    mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat _newselect open openat openat2 pause
    pidfd_open pidfd_send_signal pipe pipe2 poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease ptrace pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
    readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr rename renameat
    renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity
    sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send
    sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area
    set_tid_address setuid setuid32 setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd
    signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statx symlink
    symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask
    uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
    writev
";

/// Of one architecture only; other architectures have no such call, or no need of it.
#[cfg(target_arch = "x86_64")]
const OF_THIS_ARCHITECTURE: &str = "arch_prctl modify_ldt";
#[cfg(target_arch = "aarch64")]
const OF_THIS_ARCHITECTURE: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OF_THIS_ARCHITECTURE: &str = "";

/// Calls that a capability opens: to a process that holds it they are allowed whatever their arguments are.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
         move_mount name_to_handle_at open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname \
         setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    ),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    (
        "CAP_SYS_TIME",
        "settimeofday stime clock_settime clock_settime64",
    ),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

const SYS_ADMIN: &str = "CAP_SYS_ADMIN";

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Equal(u64),
    NotEqual(u64),
    /// None of these bits is set.
    NoneOf(u64),
}

/// A call allowed under a condition on its argument 0; several entries for one call are alternatives.
#[derive(Clone, Copy, Debug)]
struct Conditional {
    name: &'static str,
    condition: Condition,
    /// A capability in `BY_CAPABILITY` that allows the call as a whole, so that the condition is not wanted.
    unless: Option<&'static str>,
}

const AF_VSOCK: u64 = 40;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET: no namespace without CAP_SYS_ADMIN.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

const CONDITIONAL: &[Conditional] = &[
    // A virtual machine's socket to its host passes every network namespace. Docker 20.10 lets it through; later
    // ones do not, and neither do we.
    allow_if("socket", Condition::NotEqual(AF_VSOCK)),
    // PER_LINUX and PER_LINUX32, both also with UNAME26, and the query. The rest (READ_IMPLIES_EXEC,
    // ADDR_NO_RANDOMIZE, ...) weakens what protects the program.
    allow_if("personality", Condition::Equal(0)),
    allow_if("personality", Condition::Equal(0x8)),
    allow_if("personality", Condition::Equal(0x2_0000)),
    allow_if("personality", Condition::Equal(0x2_0008)),
    allow_if("personality", Condition::Equal(0xffff_ffff)),
    Conditional {
        name: "clone",
        condition: Condition::NoneOf(CLONE_NAMESPACES),
        unless: Some(SYS_ADMIN),
    },
];

/// Calls that are answered with ENOSYS, unless the capability is held.
///
/// clone3(2) takes its flags in memory, where a filter cannot look. ENOSYS makes the C library fall back to clone(2);
/// with EPERM no thread would start.
const NOT_IMPLEMENTED: &[(&str, &str)] = &[("clone3", SYS_ADMIN)];

/// The profile for a process that holds these capabilities, on any architecture that it can enter.
pub fn rules(held: &[&str]) -> Rules {
    let refused = Action::Errno(libc::EPERM as u32);
    let mut rules = vec![Rule::plain(plain_names(held), Action::Allow)];
    let holds = |gate: Option<&str>| gate.is_some_and(|gate| held.contains(&gate));
    for conditional in CONDITIONAL.iter().filter(|r| !holds(r.unless)) {
        rules.push(Rule {
            names: vec![conditional.name.to_owned()],
            action: Action::Allow,
            arguments: vec![conditional.condition.argument()],
        });
    }
    for (name, _) in NOT_IMPLEMENTED
        .iter()
        .filter(|(_, gate)| !held.contains(gate))
    {
        rules.push(Rule::plain([*name], Action::Errno(libc::ENOSYS as u32)));
    }
    // What only a capability opens is known too: it is answered with EPERM, not as a newer call is.
    let gated = BY_CAPABILITY
        .iter()
        .filter(|(gate, _)| !held.contains(gate));
    let gated = gated.flat_map(|(_, names)| names.split_whitespace());
    rules.push(Rule::plain(gated, refused));
    Rules {
        default: refused,
        architectures: ARCHITECTURES.iter().map(|&name| name.to_owned()).collect(),
        rules,
    }
}

/// All names that are allowed without a condition to a holder of these capabilities, once each.
fn plain_names(held: &[&str]) -> BTreeSet<&'static str> {
    let gated = BY_CAPABILITY
        .iter()
        .filter(|(gate, _)| held.contains(gate))
        .flat_map(|(_, names)| names.split_whitespace());
    PLAIN
        .split_whitespace()
        .chain(OF_THIS_ARCHITECTURE.split_whitespace())
        .chain(gated)
        .collect()
}

/// Those of the capabilities that the profile asks for, sorted: other ones make no difference to it.
pub fn relevant<'a>(capabilities: &[&'a str]) -> Vec<&'a str> {
    let mut held: Vec<&str> = capabilities
        .iter()
        .copied()
        .filter(|name| BY_CAPABILITY.iter().any(|(gate, _)| gate == name))
        .collect();
    held.sort_unstable();
    held.dedup();
    held
}

impl Condition {
    fn argument(self) -> Argument {
        let (op, value) = match self {
            Condition::Equal(value) => ("SCMP_CMP_EQ", value),
            Condition::NotEqual(value) => ("SCMP_CMP_NE", value),
            Condition::NoneOf(mask) => ("SCMP_CMP_MASKED_EQ", mask),
        };
        Argument {
            index: 0,
            value,
            value_two: 0,
            op: op.to_owned(),
        }
    }
}

const fn allow_if(name: &'static str, condition: Condition) -> Conditional {
    Conditional {
        name,
        condition,
        unless: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_profile_is_known_to_libseccomp_or_younger_than_it() {
        let rules = rules(&[]);
        let unknown: Vec<&str> = rules
            .known()
            .filter(|name| libseccomp::ScmpSyscall::from_name(name).is_err())
            .collect();
        // A spelling mistake would silently forbid a call.
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn no_call_is_both_allowed_and_conditional() {
        let plain = plain_names(&[]);
        for rule in CONDITIONAL {
            assert!(!plain.contains(rule.name), "{}", rule.name);
        }
    }
}
