//! Messages between a command, a monitor and its clients: SEQPACKET sockets, so that each message arrives whole.
//!
//! The first byte says what a message is; the rest is its payload. Must not know what happens with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The most payload of one data message; a send buffer takes several.
pub const CHUNK: usize = 32 * 1024;

/// Descriptors in one message; the kernel's own limit is 253 (SCM_MAX_FD).
pub const FDS_PER_MESSAGE: usize = 200;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Command to monitor: the launch (as JSON in the first descriptor) and its descriptors; several in a row if need be.
    Launch = b'L',
    /// Command to monitor: the network stands and the record is written: run the program. With the two sockets of the
    /// container's DNS responder, if it has one.
    Go = b'G',
    /// Command to monitor, instead: undo what you made; the record and the network are mine to restore.
    Abort = b'A',
    /// Monitor to command: the program's process exists and waits (JSON of its identity).
    Created = b'C',
    /// Monitor to command: the program runs.
    Started = b'S',
    /// Monitor to command: it could not be run (JSON of a failure).
    Failed = b'F',
    /// Client to monitor: bytes for stdin; without payload: end of stdin.
    Stdin = b'i',
    /// Client to monitor: send me what the program writes from now on.
    Attach = b'a',
    /// Client to monitor: the container's endpoints have changed (JSON in the first descriptor, new listeners in the
    /// others); in a row as with a launch. The monitor answers with the same kind when it has followed.
    Networks = b'n',
    /// Client to monitor: rows and columns, two bytes each, little endian.
    Resize = b'r',
    /// Monitor to client.
    Stdout = b'o',
    Stderr = b'e',
    /// Monitor to client: the exit code, four bytes, little endian. Sent when everything is cleaned up.
    Exit = b'x',
}

impl Kind {
    fn parse(byte: u8) -> Option<Kind> {
        use Kind::*;
        [
            Launch, Go, Abort, Created, Started, Failed, Stdin, Attach, Networks, Resize, Stdout,
            Stderr, Exit,
        ]
        .into_iter()
        .find(|k| *k as u8 == byte)
    }
}

/// A message as received.
#[derive(Debug)]
pub struct Message {
    pub kind: Kind,
    pub payload: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// A connected pair: one end stays here, the other goes to the monitor.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message; blocks as the socket does. A peer that has gone is an error, never a signal.
pub fn send(socket: impl AsFd, kind: Kind, payload: &[u8]) -> io::Result<()> {
    send_with_fds(socket, kind, payload, &[])
}

/// Sends one message with descriptors, at most [`FDS_PER_MESSAGE`].
pub fn send_with_fds(
    socket: impl AsFd,
    kind: Kind,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let byte = [kind as u8];
    let parts = [IoSlice::new(&byte), IoSlice::new(payload)];
    loop {
        match rustix::net::sendmsg(socket.as_fd(), &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
    }
}

/// Sends any number of descriptors in messages of one kind; the payload of the last is 1.
pub fn send_all_fds(socket: impl AsFd, kind: Kind, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut chunks = fds.chunks(FDS_PER_MESSAGE).peekable();
    while let Some(chunk) = chunks.next() {
        let last = [u8::from(chunks.peek().is_none())];
        send_with_fds(socket.as_fd(), kind, &last, chunk)?;
    }
    Ok(())
}

/// Something to read, as the first descriptor of such messages.
pub fn in_memory(name: &str, value: &impl serde::Serialize) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let memory = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&serde_json::to_vec(value)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// What [`in_memory`] has put there.
pub fn from_memory<T: serde::de::DeserializeOwned>(memory: OwnedFd) -> io::Result<T> {
    use std::io::Read;
    let mut text = Vec::new();
    // At once: serde_json would read an unbuffered file byte by byte.
    std::fs::File::from(memory).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Receives one message; `None` when the other end is closed. `WouldBlock` on a non-blocking socket without one.
pub fn receive(socket: impl AsFd) -> io::Result<Option<Message>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    let mut payload = vec![0u8; CHUNK];
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut byte), IoSliceMut::new(&mut payload)];
        match rustix::net::recvmsg(
            socket.as_fd(),
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(r) => break r,
            // Reset: the other end closed without reading all that it was sent. The kernel says so once, before it hands
            // out what still waits for us.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => continue,
            Err(e) => return Err(e.into()),
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    payload.truncate(received.bytes - 1);
    let kind = Kind::parse(byte[0]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Some(Message { kind, payload, fds }))
}

/// Listens on `path`. A socket's path has at most 107 bytes (unix(7)), so the directory is named by a descriptor.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let (_directory, address) = short_address(path)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// Connects to the monitor that listens on `path`.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = new_socket(SocketFlags::CLOEXEC)?;
    let (_directory, address) = short_address(path)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

fn new_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

fn short_address(path: &Path) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    use std::os::fd::AsRawFd;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let directory = rustix::fs::open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    let address = SocketAddrUnix::new(&short)?;
    Ok((directory, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_boundaries_and_their_descriptors() {
        let (a, b) = pair().unwrap();
        let (read, write) = std::io::pipe().unwrap();
        send(&a, Kind::Stdin, b"one").unwrap();
        send(&a, Kind::Stdin, b"").unwrap();
        send_with_fds(&a, Kind::Launch, b"three", &[write.as_fd()]).unwrap();
        drop((a, write));
        let first = receive(&b).unwrap().unwrap();
        assert_eq!(
            (first.kind, first.payload.as_slice()),
            (Kind::Stdin, b"one".as_slice())
        );
        assert_eq!(receive(&b).unwrap().unwrap().payload, b"");
        let third = receive(&b).unwrap().unwrap();
        assert_eq!(third.fds.len(), 1);
        rustix::io::write(&third.fds[0], b"x").unwrap();
        drop(third);
        assert!(receive(&b).unwrap().is_none());
        assert_eq!(std::io::read_to_string(read).unwrap(), "x");
    }

    #[test]
    fn a_socket_in_a_directory_with_a_very_long_name_can_be_reached() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&long).unwrap();
        let listener = listen(&long.join("attach.sock")).unwrap();
        let client = connect(&long.join("attach.sock")).unwrap();
        let accepted = rustix::net::accept(&listener).unwrap();
        send(&client, Kind::Go, b"").unwrap();
        assert_eq!(receive(&accepted).unwrap().unwrap().kind, Kind::Go);
    }
}
