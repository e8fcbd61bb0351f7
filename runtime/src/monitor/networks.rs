//! What a monitor serves for its container's places in networks: published ports for local clients, and names. It is told
//! when they change, by the command that changes them.

use std::collections::VecDeque;
use std::io::{self, PipeWriter};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use netmgr::dns::{self, Listening, Reach, Upstreams};
use netmgr::proxy::{Control, Forward, Proxy, Run, Targets};
use netmgr::{Endpoint, Protocol};
use serde::{Deserialize, Serialize};

use super::launch::Launch;
use crate::wire::{self, Kind};

/// The small stack of a serving thread: it keeps its buffers on the heap, and only while they are used.
const STACK: usize = 128 * 1024;

/// Where a container's published ports lead to. One of its endpoints has all of them. Where none has, they wait for one
/// and stay ours, but must not lead to the address that it had: that may be another container's by now. Nobody can
/// connect to the broadcast address (`ip(7)`, Address format), so clients are turned away.
pub fn targets(endpoints: &[Endpoint]) -> Targets {
    let nowhere = Targets {
        v4: Ipv4Addr::BROADCAST,
        v6: None,
    };
    let publishing = endpoints.iter().find(|e| !e.ports.is_empty());
    publishing.map_or(nowhere, Targets::of)
}

/// A container's endpoints as they are now.
#[derive(Debug, Serialize, Deserialize)]
struct News {
    endpoints: Vec<Endpoint>,
    /// Of the descriptors that follow: the responder's two first, if there are any.
    has_responder: bool,
    forwards: Vec<(Protocol, SocketAddr, Option<Run>)>,
}

/// What a monitor is given to serve.
#[derive(Debug, Default)]
pub struct Served {
    /// Ports that are new.
    pub forwards: Vec<Forward>,
    /// The container has come to a user network, its first.
    pub responder: Option<Listening>,
}

/// Tells the monitor that listens on `socket` of its container's endpoints. Returns when it has followed.
pub fn tell_of_networks(
    socket: &Path,
    endpoints: Vec<Endpoint>,
    served: &Served,
) -> io::Result<()> {
    let forwards = &served.forwards;
    let news = News {
        endpoints,
        has_responder: served.responder.is_some(),
        forwards: forwards
            .iter()
            .map(|f| (f.protocol, f.target, f.run))
            .collect(),
    };
    let text = wire::in_memory("networks", &news)?;
    let mut fds: Vec<BorrowedFd<'_>> = vec![text.as_fd()];
    fds.extend(served.responder.iter().flat_map(responder_fds));
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

/// The order in which [`listening`] takes them.
pub(super) fn responder_fds(listening: &Listening) -> [BorrowedFd<'_>; 2] {
    [listening.udp.as_fd(), listening.tcp.as_fd()]
}

/// The responder's sockets out of a message, if they are in it.
pub(super) fn listening(fds: &mut VecDeque<OwnedFd>) -> Option<Listening> {
    Some(Listening {
        udp: fds.pop_front()?,
        tcp: fds.pop_front()?,
        // Told in the log of who made them; serving is the same.
        reach: Reach::Redirected,
    })
}

/// The threads that serve a container, each from the first thing on that it has to do.
#[derive(Debug)]
pub(super) struct Services {
    root: PathBuf,
    container: String,
    upstreams: Upstreams,
    proxy: Option<(JoinHandle<()>, Control)>,
    /// Stops when the pipe is closed.
    responder: Option<(JoinHandle<()>, PipeWriter)>,
}

impl Services {
    pub(super) fn of(launch: &Launch) -> Services {
        let servers = &launch.container.request.dns;
        Services {
            root: launch.root.clone(),
            container: launch.container.id.clone(),
            upstreams: match servers.is_empty() {
                true => Upstreams::Host(PathBuf::from("/etc/resolv.conf")),
                false => {
                    let servers = servers.iter().filter_map(|s| dns::parse_server(s));
                    Upstreams::Fixed(servers.collect())
                }
            },
            proxy: None,
            responder: None,
        }
    }

    /// What cannot be served is said in the log: the container runs all the same.
    pub(super) fn start(&mut self, served: Served) {
        if let Err(e) = self.publish(served.forwards) {
            eprintln!("cannot start the loopback proxy: {e}");
        }
        if let Some(listening) = served.responder
            && let Err(e) = self.respond(listening)
        {
            eprintln!("cannot start the DNS responder: {e}");
        }
    }

    fn publish(&mut self, forwards: Vec<Forward>) -> io::Result<()> {
        if forwards.is_empty() {
            return Ok(());
        }
        if let Some((_, control)) = &self.proxy {
            control.add(forwards);
            return Ok(());
        }
        let (proxy, control) = Proxy::new(forwards)?;
        self.proxy = Some((thread("proxy", move || proxy.serve())?, control));
        Ok(())
    }

    fn respond(&mut self, listening: Listening) -> io::Result<()> {
        // New sockets take the place of old ones, which nothing leads to any more.
        self.stop_responder();
        let (stop, stopper) = io::pipe()?;
        let config = dns::Config {
            upstreams: self.upstreams.clone(),
        };
        let names = dns::Database::new(self.root.join("coracle.db"), self.container.clone());
        let serve = move || dns::serve(listening, config, names, stop.into());
        self.responder = Some((thread("dns", serve)?, stopper));
        Ok(())
    }

    /// What a message of [`tell_of_networks`] says.
    pub(super) fn follow(&mut self, handed: Vec<OwnedFd>) -> io::Result<()> {
        let mut fds = VecDeque::from(handed);
        let missing = || io::Error::other("a descriptor of the message is missing");
        let news: News = wire::from_memory(fds.pop_front().ok_or_else(missing)?)?;
        let responder = match news.has_responder {
            true => Some(listening(&mut fds).ok_or_else(missing)?),
            false => None,
        };
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
            control.replace_targets(targets(&news.endpoints));
        }
        self.publish(forwards)?;
        match responder {
            Some(listening) => self.respond(listening),
            None => Ok(()),
        }
    }

    fn stop_responder(&mut self) {
        if let Some((thread, stopper)) = self.responder.take() {
            drop(stopper);
            let _ = thread.join();
        }
    }

    pub(super) fn stop(&mut self) {
        self.stop_responder();
        if let Some((thread, control)) = self.proxy.take() {
            control.stop();
            let _ = thread.join();
        }
    }
}

fn thread(name: &str, serve: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(serve)
}
