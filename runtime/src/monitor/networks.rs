//! What a monitor serves for its container's places in networks: published ports for local clients. It is told when they
//! change, by the command that changes them.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use netmgr::proxy::{Control, Forward, Proxy, Run, Targets};
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
    forwards: Vec<(Protocol, SocketAddr, Option<Run>)>,
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
        forwards: forwards
            .iter()
            .map(|f| (f.protocol, f.target, f.run))
            .collect(),
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

/// The proxy of a container's published ports, on a thread of its own from the first port on.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    proxy: Option<(JoinHandle<()>, Control)>,
}

impl Publishing {
    /// What cannot be served is said in the log: the container runs all the same.
    pub(super) fn start(forwards: Vec<Forward>) -> Publishing {
        let mut publishing = Publishing::default();
        if let Err(e) = publishing.add(forwards) {
            eprintln!("cannot start the loopback proxy: {e}");
        }
        publishing
    }

    fn add(&mut self, forwards: Vec<Forward>) -> io::Result<()> {
        if forwards.is_empty() {
            return Ok(());
        }
        if let Some((_, control)) = &self.proxy {
            control.add(forwards);
            return Ok(());
        }
        let (proxy, control) = Proxy::new(forwards)?;
        let thread = std::thread::Builder::new()
            .name("proxy".into())
            .stack_size(STACK)
            .spawn(move || proxy.serve())?;
        self.proxy = Some((thread, control));
        Ok(())
    }

    /// What a message of [`tell_of_networks`] says.
    pub(super) fn follow(&mut self, handed: Vec<OwnedFd>) -> io::Result<()> {
        let mut fds = VecDeque::from(handed);
        let missing = || io::Error::other("a descriptor of the message is missing");
        let news: News = serde_json::from_reader(File::from(fds.pop_front().ok_or_else(missing)?))?;
        let forwards = news.forwards.into_iter().map(|(protocol, target, run)| {
            Ok(Forward {
                protocol,
                target,
                run,
                listener: fds.pop_front().ok_or_else(missing)?,
            })
        });
        let forwards = forwards.collect::<io::Result<Vec<_>>>()?;
        if let Some((_, control)) = &self.proxy {
            // One endpoint has all of a container's ports. Where none has, they wait for one, and stay ours.
            if let Some(endpoint) = news.endpoints.iter().find(|e| !e.ports.is_empty()) {
                control.replace_targets(Targets::of(endpoint));
            }
        }
        self.add(forwards)
    }

    pub(super) fn stop(self) {
        if let Some((thread, control)) = self.proxy {
            control.stop();
            let _ = thread.join();
        }
    }
}
