//! One question, one answer: who answers at an address, and whom it sees asking.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::Netns;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub const ALL: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// How long silence is listened to. What differs is asked again with more patience, so that a slow machine is not taken for silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    Little,
    Much,
}

impl Patience {
    pub fn limit(self) -> Duration {
        match self {
            Patience::Little => Duration::from_millis(600),
            Patience::Much => Duration::from_secs(3),
        }
    }
}

/// Answers on some ports of a namespace, at all addresses, over TCP and UDP and both families; ends when dropped.
pub struct Servers {
    netns: u64,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    #[track_caller]
    pub fn start(inside: &Netns, name: &str, ports: &[u16]) -> Servers {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tcp = Vec::new();
        let mut udp = Vec::new();
        inside.enter(|| {
            for port in ports {
                let at = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), *port);
                let listener = TcpListener::bind(at).expect("listen");
                listener.set_nonblocking(true).expect("nonblocking");
                tcp.push((format!("{name}:{port}/tcp"), listener));
                let socket = UdpSocket::bind(at).expect("bind");
                socket.set_nonblocking(true).expect("nonblocking");
                udp.push((format!("{name}:{port}/udp"), socket));
            }
        });
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                serve(&tcp, &udp);
            }
        });
        Servers {
            netns: inside.id(),
            stop,
            thread: Some(thread),
        }
    }

    /// [`Netns::id`] of where they are.
    pub fn netns(&self) -> u64 {
        self.netns
    }
}

fn serve(tcp: &[(String, TcpListener)], udp: &[(String, UdpSocket)]) {
    let tcp_fds = tcp.iter().map(|(_, listener)| listener.as_fd());
    let udp_fds = udp.iter().map(|(_, socket)| socket.as_fd());
    let mut fds: Vec<_> = tcp_fds
        .chain(udp_fds)
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    // Woken now and then to see whether to stop.
    if poll(&mut fds, PollTimeout::from(100_u8)).unwrap_or(0) == 0 {
        return;
    }
    for (name, listener) in tcp {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = stream.write_all(answer(name, peer).as_bytes());
        }
    }
    let mut question = [0; 64];
    for (name, socket) in udp {
        while let Ok((_, peer)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(answer(name, peer).as_bytes(), peer);
        }
    }
}

fn answer(name: &str, peer: SocketAddr) -> String {
    format!("{name} sees {}", peer.ip().to_canonical())
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is heard at an address: `web:80/tcp sees 192.0.2.2`, or the way in which nothing is.
pub fn ask(from: &Netns, protocol: Protocol, to: SocketAddr, patience: Patience) -> String {
    let heard = match protocol {
        Protocol::Tcp => ask_tcp(from, to, patience.limit()),
        Protocol::Udp => ask_udp(from, to, patience.limit()),
    };
    match heard {
        Ok(text) if text.is_empty() => "hung up".to_owned(),
        Ok(text) => text,
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "silence".to_owned(),
            ErrorKind::ConnectionRefused => "refused".to_owned(),
            ErrorKind::ConnectionReset => "hung up".to_owned(),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
            kind => format!("{kind}"),
        },
    }
}

fn ask_tcp(from: &Netns, to: SocketAddr, limit: Duration) -> Result<String> {
    let mut stream = from.enter(|| TcpStream::connect_timeout(&to, limit))?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_udp(from: &Netns, to: SocketAddr, limit: Duration) -> Result<String> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    // Connected: an answer from another address than the one asked is not taken for one.
    let socket = from.enter(|| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        Ok::<_, std::io::Error>(socket)
    })?;
    let mut data = [0; 256];
    // A first datagram may be lost while a neighbour's address is looked up; each try has its part of the time.
    socket.set_read_timeout(Some(limit / 3))?;
    let mut last = ErrorKind::TimedOut.into();
    for _ in 0..3 {
        match socket.send(b"?").and_then(|_| socket.recv(&mut data)) {
            Ok(count) => return Ok(String::from_utf8_lossy(&data[..count]).into_owned()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
