//! The container's standard streams on the monitor's side: FIFOs, or a terminal.
//!
//! FIFOs rather than pipes: a new monitor can open them again when the first was killed, and since each end is opened
//! for both reading and writing, a container that writes meanwhile waits instead of dying of SIGPIPE.

#![allow(unsafe_code)] // ignoring signals

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use rustix::fs::{FileType, Mode, OFlags};

use crate::oci::Stdio;

/// What the monitor reads and writes.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Written to; closing it is the end of file for the program.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    /// Read and written, instead of the three above.
    pub(super) terminal: Option<OwnedFd>,
}

/// Makes the three streams in `directory`, for a program that runs as `uid` and may open `/dev/stdout` by name.
pub(super) fn make(directory: &Path, open_stdin: bool, uid: u32) -> io::Result<(Streams, Stdio)> {
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    for name in ["stdin", "stdout", "stderr"] {
        let path = directory.join(name);
        if name == "stdin" && !open_stdin {
            theirs.push(rustix::fs::open(
                "/dev/null",
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
            ours.push(None);
            continue;
        }
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )?;
        rustix::fs::chown(&path, Some(rustix::process::Uid::from_raw(uid)), None)?;
        ours.push(Some(open(&path, OFlags::NONBLOCK)?));
        theirs.push(match name {
            // Not for writing: the end of file must reach the program when the monitor closes its end.
            "stdin" => rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
            _ => open(&path, OFlags::empty())?,
        });
    }
    let mut ours = ours.into_iter();
    let mut theirs = theirs.into_iter();
    let mut next = || theirs.next().expect("three streams were made");
    let stdio = Stdio::Pipes {
        stdin: next(),
        stdout: next(),
        stderr: next(),
    };
    let streams = Streams {
        stdin: ours.next().flatten(),
        stdout: ours.next().flatten(),
        stderr: ours.next().flatten(),
        terminal: None,
    };
    Ok((streams, stdio))
}

/// Opens the streams of a running container again.
pub(super) fn reopen(directory: &Path) -> Streams {
    let reopen = |name| open(&directory.join(name), OFlags::NONBLOCK).ok();
    Streams {
        stdin: reopen("stdin"),
        stdout: reopen("stdout"),
        stderr: reopen("stderr"),
        terminal: None,
    }
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::RDWR | OFlags::CLOEXEC | flags,
        Mode::empty(),
    )?)
}

/// The socket to which the container's side sends the terminal's master.
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    pub(super) fn listen(directory: &Path) -> io::Result<Console> {
        use std::os::fd::AsRawFd;
        let path = directory.join("console.sock");
        // The name of a socket has 107 bytes at most: reach the directory through a descriptor.
        let opened = rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let short = format!("/proc/self/fd/{}/console.sock", opened.as_raw_fd());
        Ok(Console {
            listener: UnixListener::bind(short)?,
            path,
        })
    }

    pub(super) fn stdio(&self) -> Stdio {
        Stdio::Terminal {
            console_socket: self.path.clone(),
        }
    }

    /// Takes the master, which is there once the container is created, and gives it its first size.
    pub(super) fn master(self, size: Option<(u16, u16)>) -> io::Result<OwnedFd> {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept()?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0u8; 4096];
        let mut parts = [io::IoSliceMut::new(&mut name)];
        rustix::net::recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let _ = std::fs::remove_file(&self.path);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message
                && let Some(master) = fds.next()
            {
                rustix::io::ioctl_fionbio(&master, true)?;
                if let Some((rows, columns)) = size {
                    resize(&master, rows, columns);
                }
                return Ok(master);
            }
        }
        Err(io::Error::other("no terminal arrived from the container"))
    }
}

/// Sets a terminal's size; one that cannot be set stays as it is.
pub(super) fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let _ = rustix::termios::tcsetwinsize(master, size);
}

/// What a terminal, timeout(1) or a service manager send to all of a process group.
const OF_GROUPS: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// Starts a monitor. Until it has a session of its own it is in the caller's process group, and a signal to that group, which
/// is for the caller, would end it: so it begins with these ignored. Here they wait meanwhile: what is blocked is kept by
/// the kernel even while it is ignored.
pub(super) fn while_signals_wait<T>(start: impl FnOnce() -> T) -> T {
    let set: SigSet = OF_GROUPS.into_iter().collect();
    let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    // SAFETY: SIG_IGN installs no handler of ours, and what is put back was there before.
    let handlers = OF_GROUPS.map(|signal| unsafe { sigaction(signal, &ignored()) });
    let started = start();
    for (signal, handler) in OF_GROUPS.into_iter().zip(handlers) {
        if let Ok(handler) = handler {
            // SAFETY: as above.
            let _ = unsafe { sigaction(signal, &handler) };
        }
    }
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    started
}

fn ignored() -> SigAction {
    SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty())
}

/// The monitor outlives its caller's terminal and a service manager's first SIGTERM; a full pipe is no reason to die.
pub(super) fn ignore_signals() {
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGPIPE,
    ] {
        // SAFETY: SIG_IGN installs no handler of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
