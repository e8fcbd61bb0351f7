//! What a monitor serves for its container's places in networks: published ports for local clients. It is told when they
//! change, by the command that changes them.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use netmgr::proxy::{self, Forward};
use netmgr::{Endpoint, Protocol};
use serde::{Deserialize, Serialize};

use crate::wire::{self, Kind};

/// The small stack of a serving thread: it keeps its buffers on the heap, and only while they are used.
const STACK: usize = 128 * 1024;

/// A container's endpoints as they are now.
#[derive(Debug, Serialize, Deserialize)]
struct News {
    endpoints: Vec<Endpoint>,
    /// Of the descriptors that follow.
    forwards: Vec<(Protocol, SocketAddr)>,
}

/// Tells the monitor that listens on `socket` of its container's endpoints, and hands it the listeners of ports that are
/// new. Returns when it has followed.
pub fn tell_of_networks(
    socket: &Path,
    endpoints: Vec<Endpoint>,
    forwards: Vec<Forward>,
) -> io::Result<()> {
    let news = News {
        endpoints,
        forwards: forwards.iter().map(|f| (f.protocol, f.target)).collect(),
    };
    let text = wire::in_memory("networks", &news)?;
    let mut fds: Vec<BorrowedFd<'_>> = vec![text.as_fd()];
    fds.extend(forwards.iter().map(|f| f.listener.as_fd()));
    let socket = wire::connect(socket)?;
    wire::send_all_fds(&socket, Kind::Networks, &fds)?;
    loop {
        match wire::receive(&socket)? {
            Some(message) if message.kind == Kind::Networks => return Ok(()),
            Some(_) => {}
            None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }
}
