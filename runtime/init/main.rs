//! The first process of a container with `--init`: runs the program as its child, passes signals on to it, reaps orphans,
//! and ends as the program ends: with its exit code, or 128 and the number of the signal that killed it.
//!
//! `coracle-init -- PROGRAM [ARG...]`. A file of its own, built by the crate's build script without the standard library:
//! it is the one thing of ours in a container, and must run in any root filesystem. No memory is allocated.

#![no_std]
#![no_main]
// The whole file talks to the kernel by hand: there is no library below it.

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const SETPGID: usize = 109;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const WRITE: usize = 64;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const IOCTL: usize = 29;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
    pub const KILL: usize = 129;
    pub const SETPGID: usize = 154;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const PRCTL: usize = 167;
    pub const EXIT_GROUP: usize = 94;
}

// The kernel enters with the stack pointer at argc (System V ABI, Process Initialization). A function of Rust would have
// moved it by then.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x0, sp",
    "bl {main}",
    "brk #1",
    main = sym main,
);

/// # Safety
/// What the call does to memory must be sound: pointers are valid for what the kernel reads and writes there.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: syscall(2) for x86_64: rcx and r11 are clobbered, the fifth argument is always 0.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") 0usize, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: syscall(2) for aarch64: no other register is clobbered, the fifth argument is always 0.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d,
            in("x4") 0usize, options(nostack));
    }
    result
}

const SIGCHLD: usize = 17;
const SIGTTIN: usize = 21;
const SIGTTOU: usize = 22;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
/// `sizeof(sigset_t)` of the kernel.
const SET: usize = 8;
const WNOHANG: usize = 1;
const PR_SET_CHILD_SUBREAPER: usize = 36;
const TIOCSPGRP: usize = 0x5410;
const EINTR: isize = -4;
const ENOENT: isize = -2;
const ENOTDIR: isize = -20;
const EACCES: isize = -13;

/// All signals but those that tell of a fault in this program itself: ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS.
const WAITED_FOR: u64 = !(bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(11) | bit(31));

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

type Strings = *const *const u8;

/// `stack`: argc, the arguments, a null, the environment, a null.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the layout is the kernel's promise (see `_start`), and these pages live as long as the process.
    let (count, arguments) = unsafe { (*stack, stack.add(1) as Strings) };
    // SAFETY: the environment follows the arguments and their null.
    let environment = unsafe { arguments.add(count + 1) };
    if count < 3 {
        end(
            b"coracle-init: usage: coracle-init -- PROGRAM [ARG...]\n",
            127,
        );
    }
    // SAFETY: `count` is 3 at least, so this is inside the array; it ends with the same null.
    let program = unsafe { arguments.add(2) };

    let all = WAITED_FOR;
    let mut before = 0u64;
    // SAFETY: both sets are of the size given and live through the calls. Blocked signals are kept for sigtimedwait(2),
    // and of a first process they would be dropped otherwise.
    unsafe {
        call(
            number::RT_SIGPROCMASK,
            SIG_BLOCK,
            &raw const all as usize,
            &raw mut before as usize,
            SET,
        );
        // Where we are not the first process of the namespace (--pid host), orphans come to us all the same.
        call(number::PRCTL, PR_SET_CHILD_SUBREAPER, 1, 0, 0);
    }
    // SAFETY: clone(2) without flags is fork(2): the child has a copy of everything, on the same stack addresses.
    let child = unsafe { call(number::CLONE, SIGCHLD, 0, 0, 0) };
    if child == 0 {
        become_program(program, environment, before);
    }
    if child < 0 {
        end(b"coracle-init: cannot fork\n", 126);
    }
    loop {
        pass_on(child, all);
        if let Some(code) = reap(child) {
            end(b"", code);
        }
    }
}

/// Waits for a signal, and gives it to the program unless it is ours: a child's end, or the terminal's stop.
fn pass_on(child: isize, all: u64) {
    // SAFETY: the set lives through the call; neither details nor a timeout are asked for.
    let signal = unsafe { call(number::RT_SIGTIMEDWAIT, &raw const all as usize, 0, 0, SET) };
    match usize::try_from(signal) {
        Ok(SIGCHLD | SIGTTIN | SIGTTOU) | Err(_) => {}
        // SAFETY: kill(2) touches no memory. The child is not reaped yet, so the number is still its own.
        Ok(signal) => drop(unsafe { call(number::KILL, child as usize, signal, 0, 0) }),
    }
}

/// Buries whoever has ended; the code to end with, if the program is among them.
fn reap(child: isize) -> Option<i32> {
    let mut code = None;
    loop {
        let mut status = 0i32;
        // SAFETY: the status lives through the call.
        let ended = unsafe {
            call(
                number::WAIT4,
                usize::MAX,
                &raw mut status as usize,
                WNOHANG,
                0,
            )
        };
        match ended {
            EINTR => continue,
            ended if ended <= 0 => return code,
            // wait(2): the signal in the low seven bits, else the exit code above.
            ended if ended == child => {
                code = Some(match status & 0x7f {
                    0 => status >> 8 & 0xff,
                    signal => 128 + signal,
                });
            }
            _ => {}
        }
    }
}

/// The child's side: a process group of its own, in the terminal's foreground if there is one, and the signals as they were.
fn become_program(program: Strings, environment: Strings, mask: u64) -> ! {
    // SAFETY: 0 is this process itself; the group's number and the set live through the calls. SIGTTOU is still blocked,
    // so a terminal takes the new group without stopping it. Without a terminal ioctl(2) fails, and that is fine.
    unsafe {
        call(number::SETPGID, 0, 0, 0, 0);
        let own_group = own_group();
        call(
            number::IOCTL,
            0,
            TIOCSPGRP,
            &raw const own_group as usize,
            0,
        );
        call(
            number::RT_SIGPROCMASK,
            SIG_SETMASK,
            &raw const mask as usize,
            0,
            SET,
        );
    }
    let errno = execute(program, environment);
    let code = if errno == ENOENT || errno == ENOTDIR {
        127
    } else {
        126
    };
    end(b"coracle-init: cannot execute the program\n", code)
}

/// After setpgid(0, 0) the group has the number of the process, as the container counts.
fn own_group() -> i32 {
    #[cfg(target_arch = "x86_64")]
    const GETPID: usize = 39;
    #[cfg(target_arch = "aarch64")]
    const GETPID: usize = 172;
    // SAFETY: getpid(2) touches no memory.
    unsafe { call(GETPID, 0, 0, 0, 0) as i32 }
}

/// execvp(3): returns only if nothing could be executed.
fn execute(program: Strings, environment: Strings) -> isize {
    // SAFETY: the first argument is there and ends with a NUL.
    let name = unsafe { *program };
    let run = |path: *const u8| {
        // SAFETY: a string that ends with a NUL, and two arrays that end with a null, all from the kernel or made below.
        unsafe {
            call(
                number::EXECVE,
                path as usize,
                program as usize,
                environment as usize,
                0,
            )
        }
    };
    // SAFETY: `name` ends with a NUL, so no byte past its end is read.
    if (0..)
        .map(|i| unsafe { *name.add(i) })
        .take_while(|byte| *byte != 0)
        .any(|byte| byte == b'/')
    {
        return run(name);
    }
    let Some(mut path) = search_path(environment) else {
        return ENOENT;
    };
    let mut worst = ENOENT;
    loop {
        let mut file = [0u8; 4096];
        let mut length = 0;
        let mut put = |byte: u8| {
            if let Some(place) = file.get_mut(length) {
                *place = byte;
                length += 1;
            }
        };
        // SAFETY: `path` ends with a NUL and is not moved past it.
        let mut byte = unsafe { *path };
        while byte != 0 && byte != b':' {
            put(byte);
            // SAFETY: as above: the last byte was not the NUL.
            path = unsafe { path.add(1) };
            // SAFETY: likewise.
            byte = unsafe { *path };
        }
        put(b'/');
        let mut at = name;
        // SAFETY: `name` ends with a NUL and is not read past it.
        while unsafe { *at } != 0 {
            // SAFETY: likewise.
            put(unsafe { *at });
            // SAFETY: likewise.
            at = unsafe { at.add(1) };
        }
        put(0);
        // One that does not fit, with its NUL, is passed over.
        if length < file.len() {
            let errno = run(file.as_ptr());
            if errno == EACCES {
                worst = errno;
            }
        }
        if byte == 0 {
            return worst;
        }
        // SAFETY: past the colon is the rest, or the NUL.
        path = unsafe { path.add(1) };
    }
}

/// The value of PATH.
fn search_path(mut environment: Strings) -> Option<*const u8> {
    loop {
        // SAFETY: the array ends with a null, and is not read past it.
        let entry = unsafe { *environment };
        if entry.is_null() {
            return None;
        }
        // SAFETY: the comparison stops at the first byte that differs, a NUL among them.
        if b"PATH="
            .iter()
            .enumerate()
            .all(|(i, wanted)| unsafe { *entry.add(i) } == *wanted)
        {
            // SAFETY: five bytes of it were there.
            return Some(unsafe { entry.add(5) });
        }
        // SAFETY: this was not the null yet.
        environment = unsafe { environment.add(1) };
    }
}

fn end(message: &[u8], code: i32) -> ! {
    // SAFETY: the message lives through the call; exit_group(2) does not return.
    unsafe {
        if !message.is_empty() {
            call(
                number::WRITE,
                2,
                message.as_ptr() as usize,
                message.len(),
                0,
            );
        }
        call(number::EXIT_GROUP, code as usize, 0, 0, 0);
    }
    loop {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    end(b"coracle-init: broken\n", 125)
}

/// What the compiler may call to copy, where the C library would have it.
///
/// # Safety
/// `from` and `to` are valid for `count` bytes and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for i in 0..count {
        // SAFETY: the caller's promise. Volatile, or the compiler would see a memcpy here and call itself.
        unsafe { to.add(i).write_volatile(*from.add(i)) };
    }
    to
}

/// Likewise, for an array of zeros.
///
/// # Safety
/// `to` is valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    for i in 0..count {
        // SAFETY: as above.
        unsafe { to.add(i).write_volatile(byte as u8) };
    }
    to
}
