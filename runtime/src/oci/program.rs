//! The last steps inside the container, before its program takes over the process: which file, which filter, which
//! capabilities, and what is reported when it cannot be executed.
//!
//! libcontainer compiles a seccomp profile at each start and forgets it for exec; we load a compiled one ourselves.
//! Loading needs CAP_SYS_ADMIN, so the spec carries it (and CAP_SETPCAP) up to here, and this file takes it away.

#![allow(unsafe_code)] // resetting signal dispositions before exec

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use caps::{CapSet, Capability, CapsHashSet};
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use oci_spec::runtime::Spec;

use super::rlimits::Rlimits;
use super::{Confinement, Failure};
use crate::bundle::Late;
use crate::descriptors::close_all_but;
use crate::error::ErrorKind;
use crate::seccomp;
use crate::spec::INIT;

/// Runs the spec's program, confined. Cloned by libcontainer across its forks.
#[derive(Clone)]
pub(super) struct Program {
    confinement: Arc<Confinement>,
    rlimits: Arc<Rlimits>,
    /// Where failures go; closed by a successful exec.
    report: Arc<io::PipeWriter>,
    /// What is still to be mounted, by whom has CAP_SYS_ADMIN in the container's mount namespace: us, now.
    late: Arc<Vec<Late>>,
}

impl Program {
    pub(super) fn new(
        confinement: Confinement,
        rlimits: Rlimits,
        report: io::PipeWriter,
    ) -> Program {
        Program {
            confinement: Arc::new(confinement),
            rlimits: Arc::new(rlimits),
            report: Arc::new(report),
            late: Arc::default(),
        }
    }

    pub(super) fn with_late(self, late: Vec<Late>) -> Program {
        Program {
            late: Arc::new(late),
            ..self
        }
    }

    /// The working directory is entered again: it may be in one of them.
    fn mount_late(&self, spec: &Spec) -> Result<(), Failure> {
        for late in self.late.iter() {
            late.attach().map_err(|e| {
                let step = format!("mount on {}", late.target().display());
                Failure::internal(&step, &e)
            })?;
        }
        let cwd = spec.process().as_ref().map(|process| process.cwd());
        match cwd.filter(|_| !self.late.is_empty()) {
            Some(cwd) => std::env::set_current_dir(cwd)
                .map_err(|e| Failure::internal("enter the working directory", &e)),
            None => Ok(()),
        }
    }

    fn report(&self, failure: &Failure) -> String {
        let text = serde_json::to_vec(failure).unwrap_or_default();
        // Nobody reads any more when the monitor is gone; then nobody waits for an answer either.
        let _ = (&*self.report).write_all(&text);
        failure.message.clone()
    }

    fn confine(&self) -> Result<(), Failure> {
        crate::process::set_open_files(self.confinement.open_files);
        self.rlimits.set()?;
        let wanted = capability_set(&self.confinement.capabilities)?;
        let failed = |e: caps::errors::CapsError| Failure::internal("drop capabilities", &e);
        for capability in caps::all() {
            if !wanted.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
            {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
            }
        }
        if let Some(label) = &self.confinement.label {
            // proc_pid_attr(5): for the program that is executed next.
            std::fs::write("/proc/thread-self/attr/exec", label)
                .map_err(|e| Failure::internal("set the SELinux label", &e))?;
        }
        if let Some(filter) = &self.confinement.filter {
            seccomp::load(filter)
                .map_err(|e| Failure::internal("load the seccomp filter", &io::Error::from(e)))?;
        }
        caps::set(None, CapSet::Effective, &wanted).map_err(failed)?;
        caps::set(None, CapSet::Permitted, &wanted).map_err(failed)
    }
}

impl Executor for Program {
    /// Nothing is looked at yet: see `exec` for what would be in reach.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The environment is handed to execve(2) as the spec has it, order included.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (args, env) = words(spec);
        // Before a path of the container's choice is looked at: close-on-exec comes too late. execve(2) opens the program
        // and the interpreter of a script first, and libcontainer still holds a procfs of the host's pid namespace. By
        // `/proc/self/fd/N/PID/root` a container would reach the files of every process that runs with no more rights than
        // its own, its neighbours' among them, and by /proc/self/exe write to them.
        let mut kept = vec![self.report.as_fd()];
        kept.extend(self.late.iter().map(Late::fd));
        close_all_but(&kept);
        let ready = self.mount_late(spec).and_then(|()| {
            // With an init the program is looked for all the same, so that a missing one is told as ever.
            match args.strip_prefix(&[INIT.to_owned(), "--".to_owned()]) {
                Some(program) => find(program, env).map(|_| PathBuf::from(INIT)),
                None => find(args, env),
            }
        });
        let failure = match ready {
            Err(failure) => failure,
            Ok(path) => match self.confine() {
                Err(failure) => failure,
                Ok(()) => execute(&path, args, env),
            },
        };
        Err(ExecutorError::Other(self.report(&failure)))
    }
}

pub(super) fn words(spec: &Spec) -> (&[String], &[String]) {
    let process = spec.process().as_ref();
    let args = process
        .and_then(|p| p.args().as_deref())
        .unwrap_or_default();
    let env = process.and_then(|p| p.env().as_deref()).unwrap_or_default();
    (args, env)
}

fn capability_set(names: &[String]) -> Result<CapsHashSet, Failure> {
    names
        .iter()
        .map(|name| Capability::from_str(name))
        .collect::<Result<_, _>>()
        .map_err(|e| Failure {
            kind: ErrorKind::Invalid,
            message: format!("unknown capability: {e}"),
        })
}

/// Executes; returns only if that fails.
pub(super) fn execute(path: &Path, args: &[String], env: &[String]) -> Failure {
    let strings = |list: &[String]| {
        list.iter()
            .map(|s| CString::new(s.as_str()))
            .collect::<Result<Vec<_>, _>>()
    };
    let (Ok(file), Ok(args), Ok(env)) = (
        CString::new(path.as_os_str().as_encoded_bytes()),
        strings(args),
        strings(env),
    ) else {
        return Failure {
            kind: ErrorKind::Invalid,
            message: "a word of the command contains a NUL byte".into(),
        };
    };
    reset_signals();
    let Err(errno) = nix::unistd::execve(&file, &args, &env);
    let name = args
        .first()
        .map(|a| a.to_string_lossy().into_owned())
        .unwrap_or_default();
    program_failure(&name, errno)
}

/// A program must not inherit what this process ignores or blocks: SIGPIPE above all (signal(7), execve(2)). Makes system calls
/// alone.
pub(super) fn reset_signals() {
    // Past the C library, which keeps two signals (32 and 33) to itself and hands on that they are ignored. All fields of
    // the kernel's structure are zero in SIG_DFL, and it has no more than four words on any architecture.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no handler of ours; the structure lives through the call, which only reads it; a signal
        // set has 8 bytes. This process has one thread and is about to exec.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                8,
            )
        };
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// The file that a command stands for, looked up as execvp(3) does with the container's own PATH.
pub(super) fn find(args: &[String], env: &[String]) -> Result<PathBuf, Failure> {
    find_by(args, env, executable)
}

/// The same, with another look at each candidate.
pub(super) fn find_by(
    args: &[String],
    env: &[String],
    executable: impl Fn(&Path) -> Result<(), Errno>,
) -> Result<PathBuf, Failure> {
    let name = args.first().map(String::as_str).unwrap_or_default();
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(Errno::ENOENT) => Err(Failure {
                kind: ErrorKind::CommandNotFound,
                message: format!("exec: {name:?}: stat {name}: no such file or directory"),
            }),
            Err(errno) => Err(program_failure(name, errno)),
        };
    }
    let path = env
        .iter()
        .find_map(|e| e.strip_prefix("PATH="))
        .unwrap_or_default();
    let mut refused = None;
    for directory in path.split(':').filter(|_| !name.is_empty()) {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => refused = Some(program_failure(name, Errno::EACCES)),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| Failure {
        kind: ErrorKind::CommandNotFound,
        message: format!("exec: {name:?}: executable file not found in $PATH"),
    }))
}

fn executable(path: &Path) -> Result<(), Errno> {
    let metadata =
        std::fs::metadata(path).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    if metadata.is_dir() {
        Err(Errno::EISDIR)
    } else if metadata.permissions().mode() & 0o111 == 0 {
        Err(Errno::EACCES)
    } else {
        Ok(())
    }
}

fn program_failure(name: &str, errno: Errno) -> Failure {
    let (kind, text) = match errno {
        Errno::EACCES => (ErrorKind::NotExecutable, "permission denied"),
        Errno::EISDIR => (ErrorKind::NotExecutable, "is a directory"),
        Errno::ENOEXEC => (ErrorKind::NotExecutable, "exec format error"),
        Errno::ENOENT => (ErrorKind::CommandNotFound, "no such file or directory"),
        Errno::ENOTDIR => (ErrorKind::CommandNotFound, "not a directory"),
        Errno::E2BIG => (ErrorKind::NotExecutable, "argument list too long"),
        other => (ErrorKind::NotExecutable, other.desc()),
    };
    Failure {
        kind,
        message: format!("exec: {name:?}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(words: &[&str], path: &str) -> Option<ErrorKind> {
        let args: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        find(&args, &[format!("PATH={path}")]).err().map(|f| f.kind)
    }

    #[test]
    fn a_program_is_found_as_the_shell_finds_it() {
        assert_eq!(kind_of(&["sh"], "/nowhere:/bin"), None);
        assert_eq!(kind_of(&["/bin/sh"], ""), None);
        assert_eq!(
            kind_of(&["no-such-program"], "/bin"),
            Some(ErrorKind::CommandNotFound)
        );
        assert_eq!(kind_of(&[""], "/bin"), Some(ErrorKind::CommandNotFound));
        assert_eq!(
            kind_of(&["/no/such"], "/bin"),
            Some(ErrorKind::CommandNotFound)
        );
        assert_eq!(kind_of(&["/tmp"], "/bin"), Some(ErrorKind::NotExecutable));
        assert_eq!(
            kind_of(&["/etc/passwd"], "/bin"),
            Some(ErrorKind::NotExecutable)
        );
        assert_eq!(kind_of(&["passwd"], "/etc"), Some(ErrorKind::NotExecutable));
    }
}
