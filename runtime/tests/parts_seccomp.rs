//! The compiled profile in a real process: what it forbids, what it lets through, and what it costs.
#![allow(unsafe_code)] // Forks, and makes system calls that the C library would refuse to.
#![allow(clippy::undocumented_unsafe_blocks)] // Every block is a raw call whose arguments are plain numbers.

use std::time::{Duration, Instant};

use runtime::seccomp::{self, Filter};
use rustix::io::Errno;

/// Docker's fourteen, of which only CAP_SYS_CHROOT opens a call.
const DOCKERS: &[&str] = &["CAP_CHOWN", "CAP_MKNOD", "CAP_SYS_CHROOT"];

fn filter(capabilities: &[&str]) -> Filter {
    let cache = tempfile::tempdir().unwrap();
    seccomp::default_filter(cache.path(), capabilities).unwrap()
}

/// Runs `check` in a forked child under the filter, and expects it to answer 0. The child allocates nothing: the test
/// program has threads, so a lock may be held in the copy.
fn under(filter: &Filter, check: fn() -> i32) {
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let code = match seccomp::load(filter) {
            Ok(()) => check(),
            Err(_) => 99,
        };
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "the child was killed: {status:#x}");
    assert_eq!(
        libc::WEXITSTATUS(status),
        0,
        "the number of the failed step"
    );
}

/// The errno of a call; 0 for success.
fn errno_of(number: libc::c_long, first: libc::c_long) -> i32 {
    let result = unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) };
    if result == -1 {
        unsafe { *libc::__errno_location() }
    } else {
        0
    }
}

/// The number of the first pair that differs.
fn first_difference(pairs: &[(i32, i32)]) -> i32 {
    for (i, (got, wanted)) in pairs.iter().enumerate() {
        if got != wanted {
            return i as i32 + 1;
        }
    }
    0
}

#[test]
fn namespaces_mounts_and_modules_are_refused_and_ordinary_calls_work() {
    under(&filter(DOCKERS), || {
        let newuser = libc::CLONE_NEWUSER as libc::c_long;
        first_difference(&[
            (errno_of(libc::SYS_unshare, newuser), libc::EPERM),
            (errno_of(libc::SYS_clone, newuser), libc::EPERM),
            (errno_of(libc::SYS_clone3, 0), libc::ENOSYS),
            (errno_of(libc::SYS_mount, 0), libc::EPERM),
            (errno_of(libc::SYS_setns, 0), libc::EPERM),
            (errno_of(libc::SYS_init_module, 0), libc::EPERM),
            (errno_of(libc::SYS_keyctl, 0), libc::EPERM),
            (errno_of(libc::SYS_bpf, 0), libc::EPERM),
            (errno_of(libc::SYS_userfaultfd, 0), libc::EPERM),
            (errno_of(libc::SYS_personality, 0xffff_ffff), 0),
            (errno_of(libc::SYS_personality, 0x40_0000), libc::EPERM),
            (
                errno_of(libc::SYS_socket, libc::AF_VSOCK as libc::c_long),
                libc::EPERM,
            ),
            // Refused by the kernel for its type 0, not by the filter.
            (
                errno_of(libc::SYS_socket, libc::AF_INET as libc::c_long),
                libc::ESOCKTNOSUPPORT,
            ),
            (errno_of(libc::SYS_getpid, 0), 0),
            (errno_of(libc::SYS_umask, 0o22), 0),
            // Younger than the profile, and than the kernel.
            (errno_of(2000, 0), libc::ENOSYS),
        ])
    });
}

#[test]
fn the_kernel_says_that_one_filter_is_in_place() {
    under(&filter(DOCKERS), || {
        if unsafe { libc::prctl(libc::PR_GET_SECCOMP) } != 2 {
            return 1;
        }
        let mut text = [0_u8; 4096];
        let fd = unsafe { libc::open(c"/proc/self/status".as_ptr(), libc::O_RDONLY) };
        let length = unsafe { libc::read(fd, text.as_mut_ptr().cast(), text.len()) };
        let Some(text) = usize::try_from(length).ok().and_then(|n| text.get(..n)) else {
            return 2;
        };
        let has = |line: &[u8]| text.windows(line.len()).any(|w| w == line);
        if !has(b"\nSeccomp:\t2\n") {
            return 3;
        }
        if !has(b"\nSeccomp_filters:\t1\n") {
            return 4;
        }
        0
    });
}

#[test]
fn a_child_of_the_filtered_process_has_the_filter_too() {
    under(&filter(DOCKERS), || {
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let refused = errno_of(libc::SYS_unshare, libc::CLONE_NEWUSER as libc::c_long);
            unsafe { libc::_exit(i32::from(refused != libc::EPERM)) };
        }
        let mut status = 0;
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
            return 9;
        }
        libc::WEXITSTATUS(status)
    });
}

#[test]
fn cap_sys_admin_opens_its_calls() {
    under(&filter(&["CAP_SYS_ADMIN"]), || {
        first_difference(&[
            (errno_of(libc::SYS_unshare, 0), 0),
            (errno_of(libc::SYS_clone3, 0), libc::EINVAL),
            (errno_of(libc::SYS_mount, 0), libc::EFAULT),
            // Not among those of this capability.
            (errno_of(libc::SYS_init_module, 0), libc::EPERM),
            (errno_of(libc::SYS_chroot, 0), libc::EPERM),
        ])
    });
}

/// Another architecture's entry into the same kernel must not be a way around the filter.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_32_bit_programs_are_filtered() {
    /// A call by `int 0x80`, which has i386's numbers whatever the process is.
    fn call32(number: i32, first: i32) -> i32 {
        let mut result = number;
        unsafe {
            std::arch::asm!(
                "xchg rbx, {first:r}", "int 0x80", "xchg rbx, {first:r}",
                first = inout(reg) i64::from(first) => _,
                inout("eax") result, in("ecx") 0, in("edx") 0, in("esi") 0, in("edi") 0,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        result
    }
    under(&filter(DOCKERS), || {
        const I386_GETPID: i32 = 20;
        const I386_MOUNT: i32 = 21;
        const I386_UNSHARE: i32 = 310;
        const I386_CLONE3: i32 = 435;
        if call32(I386_GETPID, 0) == -libc::ENOSYS {
            return 0; // This kernel takes no 32-bit calls at all.
        }
        first_difference(&[
            (call32(I386_UNSHARE, libc::CLONE_NEWUSER), -libc::EPERM),
            (call32(I386_MOUNT, 0), -libc::EPERM),
            (call32(I386_CLONE3, 0), -libc::ENOSYS),
            (call32(I386_GETPID, 0), std::process::id() as i32),
        ])
    });
}

#[test]
fn a_malformed_filter_is_refused_and_nothing_is_loaded() {
    for bad in [Vec::new(), vec![0; 7], vec![0; 8 * 4097], vec![0xff; 16]] {
        assert_eq!(seccomp::load(&Filter(bad)), Err(Errno::INVAL));
    }
    assert_eq!(unsafe { libc::prctl(libc::PR_GET_SECCOMP) }, 0);
}

/// For the record; the reference is a quarter of a millisecond.
#[test]
fn loading_is_fast() {
    let filter = filter(DOCKERS);
    let mut loads: Vec<i32> = (0..20)
        .map(|_| {
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let start = Instant::now();
                let failed = seccomp::load(&filter).is_err();
                let tens = start.elapsed().as_micros() / 10;
                unsafe { libc::_exit(if failed { 255 } else { tens.min(255) as i32 }) };
            }
            let mut status = 0;
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            libc::WEXITSTATUS(status)
        })
        .collect();
    loads.sort_unstable();
    eprintln!("load {} us", loads[10] * 10);
    assert!(loads[10] < 255);
}

/// The promise is under a millisecond; the bound here is looser, so that a busy machine does not fail it.
#[test]
fn a_cached_filter_is_read_fast() {
    let cache = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let filter = seccomp::default_filter(cache.path(), DOCKERS).unwrap();
    let compile = start.elapsed();
    let mut reads: Vec<Duration> = (0..50)
        .map(|_| {
            let start = Instant::now();
            seccomp::default_filter(cache.path(), DOCKERS).unwrap();
            start.elapsed()
        })
        .collect();
    reads.sort();
    eprintln!(
        "compile {compile:?}, cached {:?}, {} instructions",
        reads[25],
        filter.0.len() / 8
    );
    assert!(reads[25] < Duration::from_millis(5), "{:?}", reads[25]);
}
