//! The command's side of a monitor: starting it, handing it what it needs, and hearing how it went.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netmgr::Protocol;
use netmgr::dns::Listening;
use netmgr::proxy::{Forward, Run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::joined::Joined;
use super::networks::responder_fds;
use super::streams;
use crate::bundle;
use crate::engine::{self, Settings};
use crate::error::{Error, ErrorKind};
use crate::oci::Failure;
use crate::process::{self, Identity};
use crate::record::Container;
use crate::request::ExecRequest;
use crate::wire::{self, Kind};

/// Everything a monitor needs to know. Goes over as JSON; descriptors follow beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    pub root: PathBuf,
    pub run_root: PathBuf,
    pub network: netmgr::Settings,
    pub container: Container,
    pub kind: LaunchKind,
    /// Of a container that is to be created.
    pub joined: Joined,
    /// How long its policy has waited before this start; `None`: it is not by its policy.
    #[serde(default)]
    pub paused: Option<Duration>,
    /// The command's soft limit of open files, before it was raised.
    pub open_files: Option<u64>,
    /// Which descriptors follow, in this order: network namespace, client, listeners.
    pub has_netns: bool,
    pub has_client: bool,
    pub forwards: Vec<(Protocol, SocketAddr, Option<Run>)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LaunchKind {
    /// Create and run the container.
    Run {
        /// Unpacked layers, the uppermost first.
        layers: Vec<PathBuf>,
        /// New volumes to fill from the image: data directory, target in the container.
        populate: Vec<(PathBuf, String)>,
    },
    /// The container runs, but its monitor was killed: take its place.
    Adopt { init: Identity },
    /// A command beside a running container.
    Exec { id: String, request: ExecRequest },
    /// A health check of a running container.
    Probe { id: String },
}

/// The descriptors that go with a launch.
#[derive(Default)]
pub struct Descriptors {
    pub netns: Option<OwnedFd>,
    pub client: Option<OwnedFd>,
    pub forwards: Vec<Forward>,
}

impl Launch {
    /// Raises this process's limit of open files, which the monitor inherits: both hold a descriptor for each port.
    pub fn new(settings: &Settings, container: Container, kind: LaunchKind) -> Launch {
        Launch {
            root: settings.root.clone(),
            run_root: settings.run_root.clone(),
            network: settings.network.clone(),
            container,
            kind,
            joined: Joined::default(),
            paused: None,
            open_files: process::raise_open_files(),
            has_netns: false,
            has_client: false,
            forwards: Vec::new(),
        }
    }

    pub fn settings(&self) -> Settings {
        Settings {
            root: self.root.clone(),
            run_root: self.run_root.clone(),
            network: netmgr::Settings {
                // Nothing that goes over a pipe.
                namespace_of: Some(engine::namespace_by_row),
                ..self.network.clone()
            },
        }
    }
}

/// A monitor that this process has started. Dropped before it is released, it is told to undo what it has made, and the
/// drop returns when it has.
#[derive(Debug)]
pub struct Handle {
    control: Option<OwnedFd>,
    child: Option<Child>,
    container: String,
    log: PathBuf,
    pub process: Identity,
}

/// Starts a monitor. `directory` exists and takes its messages.
pub fn spawn(
    mut launch: Launch,
    descriptors: Descriptors,
    directory: &Path,
) -> Result<Handle, Error> {
    let id = launch.container.id.clone();
    let failed = |step| {
        let container = id.clone();
        move |source| Error::Io {
            step,
            container,
            source,
        }
    };
    let log = directory.join("monitor.log");
    let messages = File::create(&log).map_err(failed("open the monitor's log"))?;
    let program = bundle::seal_self().map_err(failed("seal this program"))?;
    let (control, theirs) = wire::pair().map_err(failed("make the monitor's socket"))?;
    let word = match launch.kind {
        LaunchKind::Exec { .. } | LaunchKind::Probe { .. } => super::EXEC,
        _ => super::CONTAINER,
    };
    let mut command = Command::new(descriptor_path(&program));
    command
        .args([word, &id])
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(messages);
    // It must find the same iptables as this command: the two flavours do not see each other's rules.
    for variable in ["RUST_BACKTRACE", "CORACLE_LOG", "PATH"] {
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
    let child = streams::while_signals_wait(|| command.spawn());
    let mut child = child.map_err(failed("start the monitor"))?;
    drop(command);
    let Some(process) = Identity::of(child.id() as i32) else {
        let _ = child.wait();
        return Err(Error::MonitorBroke {
            container: id,
            step: "started",
            messages: read_messages(&log),
        });
    };
    let fds = launch_descriptors(&mut launch, descriptors)
        .map_err(failed("describe the container to its monitor"))?;
    let handle = Handle {
        control: Some(control),
        child: Some(child),
        container: id.clone(),
        log,
        process,
    };
    handle
        .send_launch(&fds)
        .map_err(failed("hand the container to its monitor"))?;
    Ok(handle)
}

fn descriptor_path(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn launch_descriptors(
    launch: &mut Launch,
    descriptors: Descriptors,
) -> io::Result<VecDeque<OwnedFd>> {
    launch.has_netns = descriptors.netns.is_some();
    launch.has_client = descriptors.client.is_some();
    launch.forwards = descriptors
        .forwards
        .iter()
        .map(|f| (f.protocol, f.target, f.run))
        .collect();
    let mut fds = VecDeque::from([wire::in_memory("launch", launch)?]);
    fds.extend(descriptors.netns);
    fds.extend(descriptors.client);
    fds.extend(descriptors.forwards.into_iter().map(|f| f.listener));
    Ok(fds)
}

impl Handle {
    fn send_launch(&self, fds: &VecDeque<OwnedFd>) -> io::Result<()> {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        wire::send_all_fds(self.control(), Kind::Launch, &borrowed)
    }

    fn control(&self) -> BorrowedFd<'_> {
        self.control
            .as_ref()
            .expect("the control socket is open until the handle is dropped")
            .as_fd()
    }

    /// Waits until the container's first process exists; it waits in turn for [`Handle::go`].
    pub fn created(&self) -> Result<Identity, Error> {
        let payload = self.expect(Kind::Created, "created the container")?;
        serde_json::from_slice(&payload).map_err(|e| Error::CorruptRow {
            what: "an answer",
            source: e.into(),
        })
    }

    /// Lets the program run; returns once it does. Its names are served at these sockets, if it is on a user network.
    pub fn go(&self, responder: Option<&Listening>) -> Result<(), Error> {
        let fds: Vec<BorrowedFd<'_>> = responder.iter().flat_map(|l| responder_fds(l)).collect();
        let sent = wire::send_with_fds(self.control(), Kind::Go, &[], &fds);
        sent.map_err(|source| Error::Io {
            step: "let the program run",
            container: self.container.clone(),
            source,
        })?;
        self.started()
    }

    /// Waits until the program runs.
    pub fn started(&self) -> Result<(), Error> {
        self.expect(Kind::Started, "started the program")
            .map(|_| ())
    }

    fn expect(&self, kind: Kind, step: &'static str) -> Result<Vec<u8>, Error> {
        let broke = || self.broke(step);
        if !self.answers() {
            return Err(broke());
        }
        let message = wire::receive(self.control())
            .map_err(|_| broke())?
            .ok_or_else(broke)?;
        match message.kind {
            Kind::Failed => {
                let failure: Failure =
                    serde_json::from_slice(&message.payload).unwrap_or_else(|_| Failure {
                        kind: ErrorKind::Internal,
                        message: "the monitor failed".into(),
                    });
                Err(Error::Program {
                    kind: failure.kind,
                    message: failure.message,
                })
            }
            k if k == kind => Ok(message.payload),
            _ => Err(broke()),
        }
    }

    /// It has gone before it had done `step`.
    pub fn broke(&self, step: &'static str) -> Error {
        Error::MonitorBroke {
            container: self.container.clone(),
            step,
            messages: read_messages(&self.log),
        }
    }

    /// Waits for a message; false if the monitor has ended without one. The socket alone would not tell: what the monitor
    /// has cloned holds it open too.
    fn answers(&self) -> bool {
        let Some(monitor) = self.process.open() else {
            return has_message(self.control());
        };
        let mut fds = [
            PollFd::from_borrowed_fd(self.control(), PollFlags::IN),
            PollFd::from_borrowed_fd(monitor.as_fd(), PollFlags::IN),
        ];
        loop {
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return false,
                Ok(_) if !fds[0].revents().is_empty() => return true,
                // It may have said its last word between the two looks.
                Ok(_) => return has_message(self.control()),
            }
        }
    }

    /// Lets the monitor go on alone. Should it end before this process does, it stays a zombie until then.
    pub fn release(mut self) {
        self.control = None;
        self.child = None;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            let _ = wire::send(&control, Kind::Abort, &[]);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

fn has_message(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
}

fn read_messages(log: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(log) {
        let _ = file.take(4096).read_to_string(&mut text);
    }
    let text = text.trim().replace('\n', "; ");
    if text.is_empty() { "none".into() } else { text }
}

/// The monitor's side: the launch and its descriptors. `None` if the command has gone before it sent them.
pub(super) fn receive(control: &OwnedFd) -> io::Result<Option<(Launch, Descriptors)>> {
    let mut fds = VecDeque::new();
    loop {
        let Some(message) = wire::receive(control)? else {
            return Ok(None);
        };
        if message.kind != Kind::Launch {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        fds.extend(message.fds);
        if message.payload == [1] {
            break;
        }
    }
    let missing = || io::Error::other("a descriptor of the launch is missing");
    let launch: Launch = wire::from_memory(fds.pop_front().ok_or_else(missing)?)?;
    let mut take = |wanted: bool| {
        if wanted {
            fds.pop_front().ok_or_else(missing).map(Some)
        } else {
            Ok(None)
        }
    };
    let netns = take(launch.has_netns)?;
    let client = take(launch.has_client)?;
    let forwards = launch
        .forwards
        .iter()
        .map(|(protocol, target, run)| {
            let listener = fds.pop_front().ok_or_else(missing)?;
            Ok(Forward {
                protocol: *protocol,
                listener,
                target: *target,
                run: *run,
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    Ok(Some((
        launch,
        Descriptors {
            netns,
            client,
            forwards,
        },
    )))
}

/// The directory of a running container: bundle, sockets, streams.
pub fn directory(run_root: &Path, id: &str) -> PathBuf {
    run_root.join("containers").join(id)
}

/// Where libcontainer keeps its own state.
pub fn oci_state(run_root: &Path) -> PathBuf {
    run_root.join("oci")
}

/// In a container's run directory: where its root filesystem is mounted, in the monitor's mount namespace.
pub const ROOTFS: &str = "rootfs";

/// Removes what a start has made outside the database. Missing pieces are no error.
///
/// The root filesystem's directory is empty for everyone but the monitor, who unmounts before. It is never descended
/// into: what is there, should anything be, is the container's data.
pub fn remove_directories(run_root: &Path, id: &str) -> io::Result<()> {
    let directory = directory(run_root, id);
    missing_is_fine(fs::remove_dir(directory.join(ROOTFS)))?;
    missing_is_fine(fs::remove_dir_all(directory))?;
    missing_is_fine(fs::remove_dir_all(oci_state(run_root).join(id)))
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
