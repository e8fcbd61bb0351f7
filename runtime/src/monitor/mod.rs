//! The monitor: one small process for each running container (and each exec), which owns its streams, its log, its exit
//! code and its loopback proxy.
//!
//! It is this same program, executed again from a sealed descriptor, so that libcontainer finds a single thread and a
//! container cannot reach the program's file through `/proc/PID/exe` (CVE-2019-5736).

mod again;
mod container;
pub mod exec;
mod health;
mod joined;
mod launch;
mod limits;
mod networks;
mod probe;
mod relay;
mod streams;
mod sysctls;

pub use joined::Joined;
pub use launch::{Descriptors, Handle, Launch, LaunchKind, directory, remove_directories, spawn};
pub use networks::{Served, targets, tell_of_networks};

use std::os::fd::{AsFd, OwnedFd};

use crate::descriptors::close_all_but;
use crate::oci::Failure;
use crate::process::{self, Identity};

/// The first word of a monitor's command line. The container's ID is the second: repair looks for it.
const CONTAINER: &str = "monitor";
/// Likewise for the monitor of an exec.
const EXEC: &str = "exec-monitor";

/// The monitors of a container, and what they have cloned but not yet executed. Slow: for repair only.
pub fn processes(id: &str) -> Vec<Identity> {
    [CONTAINER, EXEC]
        .into_iter()
        .flat_map(|word| process::with_arguments(word, id))
        .collect()
}

/// Runs as a monitor if that is what this process was started for; call it first thing in `main`.
pub fn reexec() -> Option<i32> {
    let mut args = std::env::args_os().skip(1);
    let kind = args.next()?;
    if kind != CONTAINER && kind != EXEC {
        return None;
    }
    // Standard input is the control socket. Typed by hand, it is something else.
    let control = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) if is_control(&fd) => fd,
        _ => {
            eprintln!("coracle: {kind:?} is not a command to type: `run` starts it");
            return Some(1);
        }
    };
    Some(run(control))
}

/// Any monitor's life: what it is to do comes with the launch.
fn run(control: OwnedFd) -> i32 {
    settle(&control);
    if let Err(e) = crate::keyring::join_new() {
        let failure = Failure::internal("leave the caller's session keyring", &e);
        container::fail(&control, &failure);
        return 1;
    }
    let (launch, descriptors) = match launch::receive(&control) {
        Ok(Some(received)) => received,
        // The command has gone already; it had made nothing that the next command would not find.
        Ok(None) => return 0,
        Err(e) => {
            eprintln!("cannot read the launch: {e}");
            return 1;
        }
    };
    match launch.kind.clone() {
        LaunchKind::Run { layers, populate } => {
            container::run_new(control, launch, descriptors, &layers, &populate)
        }
        LaunchKind::Adopt { init } => container::adopt(control, launch, descriptors, init),
        LaunchKind::Probe { id } => probe::run(control, &launch, &id),
        LaunchKind::Exec { id, request } => exec::run(control, launch, descriptors, &id, &request),
    }
}

fn is_control(fd: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_type(fd).is_ok_and(|t| t == rustix::net::SocketType::SEQPACKET)
}

/// What every monitor does first: leave the caller's session, and survive what the caller does not.
fn settle(control: &OwnedFd) {
    use rustix::fs::{Mode, OFlags};
    // A shell's pipes, say, whose readers would otherwise wait for this process's end.
    close_all_but(&[control.as_fd()]);
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"coracle");
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let _ = rustix::process::chdir("/");
    streams::ignore_signals();
    // The control socket has its own descriptor now; a container must not inherit it as its standard input.
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
}
