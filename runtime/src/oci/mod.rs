//! The only place that names libcontainer: creates a container's first process, starts it, and runs commands beside it.
//!
//! Its caller must be single-threaded: libcontainer clones without exec and changes the working directory.

mod links;
mod program;

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libcontainer::container::Container as OciContainer;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::seccomp::Filter;
use program::Program;

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
}

/// A first process that waits for [`Created::start`].
pub struct Created {
    container: OciContainer,
    report: io::PipeReader,
    pub pid: i32,
}

/// Writes `config.json` and creates the container's first process, which waits in its namespaces.
/// `state` is the directory below which libcontainer keeps its own state.
pub fn create(
    id: &str,
    state: &Path,
    bundle: &Path,
    spec: &Spec,
    stdio: Stdio,
    confinement: Confinement,
) -> Result<Created, Failure> {
    spec.save(bundle.join("config.json"))
        .map_err(|e| Failure::internal("write the OCI bundle", &e))?;
    let (report, report_writer) = io::pipe().map_err(|e| Failure::internal("make a pipe", &e))?;
    let builder = builder(id, state, stdio, Program::new(confinement, report_writer))?;
    let container = builder
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|e| {
            reported(&report).unwrap_or_else(|| Failure::internal("create the container", &e))
        })?;
    let pid = container.pid().map(|pid| pid.as_raw()).unwrap_or_default();
    links::name_core(spec, pid);
    Ok(Created {
        container,
        report,
        pid,
    })
}

impl Created {
    /// Lets the program run. Returns once it has been executed.
    pub fn start(mut self) -> Result<(), Failure> {
        self.container
            .start()
            .map_err(|e| Failure::internal("start the container", &e))?;
        // The other end closes when the program is executed (it is close-on-exec), or tells why it was not.
        match read_report(&mut self.report) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

/// Runs a command in a running container; returns its pid once it has been executed. It is a child of the caller.
pub fn exec(
    id: &str,
    state: &Path,
    process_file: &Path,
    process: &Process,
    stdio: Stdio,
    confinement: Confinement,
) -> Result<i32, Failure> {
    let text =
        serde_json::to_vec(process).map_err(|e| Failure::internal("describe the command", &e))?;
    fs::write(process_file, text)
        .map_err(|e| Failure::internal("write the command's description", &e))?;
    let (mut report, report_writer) =
        io::pipe().map_err(|e| Failure::internal("make a pipe", &e))?;
    let builder = builder(id, state, stdio, Program::new(confinement, report_writer))?;
    let built = builder
        .as_tenant()
        .with_process(Some(process_file))
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

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
