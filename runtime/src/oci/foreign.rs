//! Another OCI runtime (crun, runc) in libcontainer's place, called by its command line (`create`, `start`, `exec`, `delete`).
//!
//! What our own last step does to the program, the spec must say to it: capabilities, limits, the seccomp profile.

#![allow(unsafe_code)] // what happens between fork and exec

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ProcessStdio};

use oci_spec::runtime::{
    LinuxSeccomp, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};
use serde_json::Value;

use super::program::reset_signals;
use super::{Confinement, Failure, Stdio};
use crate::error::ErrorKind;
use crate::spec::exact_capability_sets;

/// The other runtime, and the directory below which it keeps its state.
#[derive(Clone, Debug)]
pub struct Foreign {
    program: PathBuf,
    state: PathBuf,
}

impl Foreign {
    pub fn new(program: &Path, state: &Path) -> Foreign {
        Foreign {
            program: program.to_owned(),
            state: state.to_owned(),
        }
    }

    /// Creates the container's first process, which becomes a child of the caller. Its ID.
    pub(super) fn create(
        &self,
        id: &str,
        bundle: &Path,
        spec: &Spec,
        seccomp: Option<LinuxSeccomp>,
        stdio: Stdio,
        confinement: &Confinement,
    ) -> Result<i32, Failure> {
        let mut spec = spec.clone();
        let process = spec.process().as_ref().map(|p| exact(p, confinement));
        spec.set_process(process);
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(seccomp);
        }
        spec.save(bundle.join("config.json"))
            .map_err(|e| Failure::internal("write the OCI bundle", &e))?;
        let args = ["create", "--bundle"].map(Into::into).into_iter();
        let args = args.chain([bundle.to_owned()]);
        self.begin(id, args.collect(), bundle, stdio)
    }

    pub(super) fn start(&self, id: &str, bundle: &Path) -> Result<(), Failure> {
        let args = vec!["start".into(), id.into()];
        self.call(args, bundle, None)
    }

    /// Runs a command in a running container. It becomes a child of the caller. Its ID.
    pub(super) fn exec(
        &self,
        id: &str,
        process_file: &Path,
        process: &Process,
        stdio: Stdio,
        confinement: &Confinement,
    ) -> Result<i32, Failure> {
        let folder = process_file.parent().unwrap_or(Path::new("/"));
        let text = serde_json::to_vec(&exact(process, confinement))
            .map_err(|e| Failure::internal("describe the command", &e))?;
        fs::write(process_file, text)
            .map_err(|e| Failure::internal("write the command's description", &e))?;
        let args = ["exec", "--detach", "--process"]
            .map(Into::into)
            .into_iter();
        let args = args.chain([process_file.to_owned()]);
        let pid = self.begin(id, args.collect(), folder, stdio);
        // The description may hold secrets (the environment).
        let _ = fs::remove_file(process_file);
        pid
    }

    /// Has it forget a container, which has ended. What it does not remove, our own clean-up does.
    pub fn delete(&self, id: &str, folder: &Path) {
        if self.state.join(id).exists() {
            let args = vec!["delete".into(), "--force".into(), id.into()];
            if let Err(failure) = self.call(args, folder, None) {
                eprintln!("{}", failure.message);
            }
        }
    }

    /// `create` and `exec`: the verb and its options, and what both have in common.
    fn begin(
        &self,
        id: &str,
        mut args: Vec<PathBuf>,
        folder: &Path,
        stdio: Stdio,
    ) -> Result<i32, Failure> {
        hide_second_hierarchy()
            .map_err(|e| Failure::internal("hide the host's cgroup v2 from the runtime", &e))?;
        // Its child is orphaned when it ends, and is to be ours then.
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(|e| Failure::internal("become the container's parent", &e))?;
        let pid_file = folder.join("runtime.pid");
        args.extend(["--pid-file".into(), pid_file.clone()]);
        // Held until it has connected: the socket's own path may be longer than a socket's name can be.
        let mut held = None;
        if let Stdio::Terminal { console_socket } = &stdio {
            let opened = fs::File::open(console_socket.parent().unwrap_or(Path::new("/")))
                .map_err(|e| Failure::internal("find the console socket", &e))?;
            let name = console_socket.file_name().unwrap_or_default();
            let directory = format!("/proc/{}/fd/{}", std::process::id(), opened.as_raw_fd());
            args.extend(["--console-socket".into(), Path::new(&directory).join(name)]);
            held = Some(opened);
        }
        args.push(id.into());
        let made = self.call(args, folder, Some(stdio));
        drop(held);
        let text = fs::read_to_string(&pid_file);
        let _ = fs::remove_file(&pid_file);
        made?;
        let pid = text.ok().and_then(|text| text.trim().parse().ok());
        pid.ok_or_else(|| Failure {
            kind: ErrorKind::Internal,
            message: format!("{} has told no process ID", self.program.display()),
        })
    }

    fn call(&self, args: Vec<PathBuf>, folder: &Path, stdio: Option<Stdio>) -> Result<(), Failure> {
        let log = folder.join("runtime.log");
        let _ = fs::remove_file(&log);
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.state)
            .arg("--log")
            .arg(&log);
        command.args(["--log-format", "json"]).args(args);
        match stdio {
            Some(Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            }) => command.stdin(stdin).stdout(stdout).stderr(stderr),
            _ => command
                .stdin(ProcessStdio::null())
                .stdout(ProcessStdio::null())
                .stderr(ProcessStdio::null()),
        };
        // The monitor ignores signals that a container must not, and runtimes hand them on.
        let default_signals = || {
            reset_signals();
            Ok(())
        };
        // SAFETY: between fork and exec, it makes system calls alone, which allocate nothing and take no lock.
        unsafe { command.pre_exec(default_signals) };
        let status = command.status().map_err(|e| Failure {
            kind: ErrorKind::Internal,
            message: format!("cannot run the runtime {}: {e}", self.program.display()),
        })?;
        if status.success() {
            return Ok(());
        }
        let told =
            last_message(&log).unwrap_or_else(|| format!("it failed without a word ({status})"));
        Err(Failure {
            kind: kind_of(&told),
            message: format!("{}: {told}", self.program.display()),
        })
    }
}

/// On a host with cgroup v1 that has version 2 beside it (hybrid), with controllers of its own, crun refuses to do anything.
/// In a mount namespace of our own it finds version 1 alone, which is where our containers are.
fn hide_second_hierarchy() -> io::Result<()> {
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    let controllers = fs::read_to_string(Path::new(UNIFIED).join("cgroup.controllers"));
    if controllers.unwrap_or_default().trim().is_empty() {
        return Ok(());
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    crate::bundle::make_mounts_slave()?;
    Ok(rustix::mount::unmount(
        UNIFIED,
        rustix::mount::UnmountFlags::DETACH,
    )?)
}

/// The process as the program is to have it: our own last step, which takes two capabilities away, does not come.
fn exact(process: &Process, confinement: &Confinement) -> Process {
    let mut process = process.clone();
    process.set_capabilities(Some(exact_capability_sets(&confinement.capabilities)));
    let mut limits = process.rlimits().clone().unwrap_or_default();
    let given = |limit: &PosixRlimit| limit.typ() == PosixRlimitType::RlimitNofile;
    if let Some(soft) = confinement.open_files.filter(|_| !limits.iter().any(given)) {
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let limit = PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .soft(soft)
            .hard(hard.unwrap_or(soft))
            .build();
        limits.extend(limit.ok());
    }
    process.set_rlimits(Some(limits));
    process
}

/// The last error of a log in runc's JSON.
fn last_message(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let mut messages = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some(line["msg"].as_str()?.to_owned())
    });
    messages.next_back()
}

/// What the exit code is to be, from words: no runtime tells it otherwise. Docker and podman do the same.
fn kind_of(message: &str) -> ErrorKind {
    let message = message.to_ascii_lowercase();
    let says = |text: &str| message.contains(text);
    if says("executable file") && says("not found") || says("exec") && says("no such file") {
        ErrorKind::CommandNotFound
    } else if says("exec") && (says("permission denied") || says("is a directory")) {
        ErrorKind::NotExecutable
    } else {
        ErrorKind::Internal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_from_other_failures() {
        for (message, kind) in [
            (
                r#"runc create failed: exec: "nosuch": executable file not found in $PATH"#,
                ErrorKind::CommandNotFound,
            ),
            (
                "executable file `nosuch` not found in $PATH: No such file or directory",
                ErrorKind::CommandNotFound,
            ),
            (
                r#"exec: "/etc/passwd": permission denied"#,
                ErrorKind::NotExecutable,
            ),
            ("mount proc: no such device", ErrorKind::Internal),
        ] {
            assert_eq!(kind_of(message), kind, "{message}");
        }
    }
}
