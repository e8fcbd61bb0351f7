//! The only place that names libcontainer: creates a container's first process, starts it, and runs commands beside it.
//!
//! Its caller must be single-threaded: libcontainer clones without exec and changes the working directory.

pub mod bundle;
mod bundle_program;
mod foreign;
mod links;
mod program;
mod rlimits;

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libcontainer::container::Container as OciContainer;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{LinuxSeccomp, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::bundle::Late;
use crate::error::{ErrorKind, chain};
use crate::seccomp::Filter;
use program::Program;
use rlimits::Rlimits;

pub use bundle_program::BundleConfinement;
pub use foreign::Foreign;

/// Why a program could not be run. Crosses process boundaries as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: ErrorKind,
    pub message: String,
}

impl Failure {
    pub fn internal(step: &str, error: &dyn std::error::Error) -> Failure {
        Failure {
            kind: ErrorKind::Internal,
            message: format!("cannot {step}: {}", chain(error)),
        }
    }
}

/// What the program gets as its streams.
pub enum Stdio {
    /// Three descriptors of their own.
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The path of a listening socket, to which the terminal's master is sent.
    Terminal { console_socket: PathBuf },
}

/// How the program is confined beyond what the spec says.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// The capabilities that it really gets (`CAP_...`); the spec holds two more, to load the filter with.
    pub capabilities: Vec<String>,
    /// `None`: unconfined.
    pub filter: Option<Filter>,
    /// The soft limit of open files: ours is raised for the published ports.
    pub open_files: Option<u64>,
    /// SELinux's label; libcontainer knows none.
    pub label: Option<String>,
}

/// A first process that waits for [`Created::start`].
pub struct Created {
    waiting: Waiting,
    pub pid: i32,
}

/// By whom it was created, and is to be started.
enum Waiting {
    Ours {
        container: OciContainer,
        report: io::PipeReader,
    },
    Foreign {
        runtime: Foreign,
        id: String,
        bundle: PathBuf,
    },
}

/// The same by another runtime. `seccomp` is the profile of the confinement's filter, which it compiles itself.
pub fn create_by(
    runtime: Foreign,
    id: &str,
    bundle: &Path,
    spec: &Spec,
    seccomp: Option<LinuxSeccomp>,
    stdio: Stdio,
    confinement: &Confinement,
) -> Result<Created, Failure> {
    let pid = runtime.create(id, bundle, spec, seccomp, stdio, confinement)?;
    let (id, bundle) = (id.to_owned(), bundle.to_owned());
    let waiting = Waiting::Foreign {
        runtime,
        id,
        bundle,
    };
    Ok(Created { waiting, pid })
}

/// [`exec`] by another runtime.
pub fn exec_by(
    runtime: &Foreign,
    id: &str,
    process_file: &Path,
    process: &Process,
    stdio: Stdio,
    confinement: &Confinement,
) -> Result<i32, Failure> {
    runtime.exec(id, process_file, process, stdio, confinement)
}

/// Writes `config.json` and creates the container's first process, which waits in its namespaces.
/// `state` is the directory below which libcontainer keeps its own state. The `late` mounts are put in place right before the
/// program runs.
pub fn create(
    id: &str,
    state: &Path,
    bundle: &Path,
    spec: &Spec,
    stdio: Stdio,
    confinement: Confinement,
    late: Vec<Late>,
) -> Result<Created, Failure> {
    let mut spec = spec.clone();
    let rlimits = match spec.process_mut() {
        Some(process) => Rlimits::take(process),
        None => Rlimits::default(),
    };
    spec.save(bundle.join("config.json"))
        .map_err(|e| Failure::internal("write the OCI bundle", &e))?;
    let (report, report_writer) = io::pipe().map_err(|e| Failure::internal("make a pipe", &e))?;
    let program = Program::new(confinement, rlimits, report_writer).with_late(late);
    let builder = builder(id, state, stdio, program)?;
    let container = builder
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|e| {
            reported(&report).unwrap_or_else(|| Failure::internal("create the container", &e))
        })?;
    let pid = container.pid().map(|pid| pid.as_raw()).unwrap_or_default();
    links::name_core(&spec, pid);
    let waiting = Waiting::Ours { container, report };
    Ok(Created { waiting, pid })
}

impl Created {
    /// Lets the program run. Returns once it has been executed.
    pub fn start(self) -> Result<(), Failure> {
        let (mut container, mut report) = match self.waiting {
            Waiting::Ours { container, report } => (container, report),
            Waiting::Foreign {
                runtime,
                id,
                bundle,
            } => return runtime.start(&id, &bundle),
        };
        container
            .start()
            .map_err(|e| Failure::internal("start the container", &e))?;
        // The other end closes when the program is executed (it is close-on-exec), or tells why it was not.
        match read_report(&mut report) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

/// Runs a command in a running container; returns its pid once it has been executed. It is a child of the caller.
/// `sub_cgroup`: below the container's own, if it cannot be in that (see `cgroup::below_own`).
pub fn exec(
    id: &str,
    state: &Path,
    process_file: &Path,
    process: &Process,
    sub_cgroup: Option<String>,
    stdio: Stdio,
    confinement: Confinement,
) -> Result<i32, Failure> {
    let mut process = process.clone();
    let rlimits = Rlimits::take(&mut process);
    let (report, report_writer) = io::pipe().map_err(|e| Failure::internal("make a pipe", &e))?;
    let program = Program::new(confinement, rlimits, report_writer);
    let builder = builder(id, state, stdio, program)?;
    run_beside(builder, process_file, &process, sub_cgroup, report)
}

/// Runs a described command in the container of `builder`; returns its pid once it has been executed. `report` is the other end of its
/// program's.
fn run_beside(
    builder: ContainerBuilder,
    process_file: &Path,
    process: &Process,
    sub_cgroup: Option<String>,
    mut report: io::PipeReader,
) -> Result<i32, Failure> {
    let text =
        serde_json::to_vec(process).map_err(|e| Failure::internal("describe the command", &e))?;
    fs::write(process_file, text)
        .map_err(|e| Failure::internal("write the command's description", &e))?;
    let built = builder
        .as_tenant()
        .with_process(Some(process_file))
        .with_sub_cgroup(sub_cgroup)
        .with_detach(true)
        .build();
    // The description may hold secrets (the environment).
    let _ = fs::remove_file(process_file);
    match built {
        Ok(pid) => match read_report(&mut report) {
            Some(failure) => Err(failure),
            None => Ok(pid.as_raw()),
        },
        Err(e) => Err(reported(&report)
            .unwrap_or_else(|| Failure::internal("run the command in the container", &e))),
    }
}

fn builder(
    id: &str,
    state: &Path,
    stdio: Stdio,
    program: Program,
) -> Result<ContainerBuilder, Failure> {
    let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(state)
        .map_err(|e| Failure::internal("use the state directory", &e))?
        .with_executor(program);
    Ok(match stdio {
        Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => builder
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr),
        Stdio::Terminal { console_socket } => builder.with_console_socket(Some(console_socket)),
    })
}

/// What the program's process has reported so far, without waiting: after an error it may still hold the pipe.
fn reported(report: &io::PipeReader) -> Option<Failure> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(report, PollFlags::IN)];
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .ok()
    .filter(|n| *n > 0)?;
    let mut buffer = [0u8; 4096];
    let length = rustix::io::read(report, &mut buffer).ok()?;
    serde_json::from_slice(&buffer[..length]).ok()
}

fn read_report(report: &mut io::PipeReader) -> Option<Failure> {
    let mut text = Vec::new();
    report.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
