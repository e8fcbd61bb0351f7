//! One question, one answer, over either protocol and either family.

use std::io::{BufRead, BufReader, Error, ErrorKind, Result, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::Netns;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long silence is listened to, where there must be silence.
const SILENCE: Duration = Duration::from_millis(700);

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "v4",
            Family::V6 => "v6",
        }
    }
}

/// `NAME PEER` on one line: who answered, and whom it saw asking.
fn answer(name: &str, peer: SocketAddr) -> String {
    format!("{name} {}\n", peer.ip().to_canonical())
}

/// Answers `NAME PEER` to whoever asks, at every address of a namespace and over both families; ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    #[track_caller]
    pub fn start(inside: &Netns, protocol: Protocol, port: u16, name: &str) -> Server {
        Server::at(
            inside,
            protocol,
            SocketAddr::new("::".parse().unwrap(), port),
            name,
        )
    }

    #[track_caller]
    pub fn at(inside: &Netns, protocol: Protocol, at: SocketAddr, name: &str) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, name) = (Arc::clone(&stop), name.to_owned());
        let pause = Duration::from_millis(20);
        let thread = match protocol {
            Protocol::Tcp => {
                let listener = inside.enter(|| TcpListener::bind(at)).expect("listen");
                listener.set_nonblocking(true).expect("nonblocking");
                std::thread::spawn(move || {
                    while !flag.load(Ordering::Relaxed) {
                        match listener.accept() {
                            Ok((mut stream, peer)) => {
                                let _ = stream.write_all(answer(&name, peer).as_bytes());
                            }
                            Err(_) => std::thread::sleep(pause),
                        }
                    }
                })
            }
            Protocol::Udp => {
                let socket = inside.enter(|| UdpSocket::bind(at)).expect("bind");
                socket.set_read_timeout(Some(pause)).expect("a time limit");
                std::thread::spawn(move || {
                    let mut question = [0; 64];
                    while !flag.load(Ordering::Relaxed) {
                        if let Ok((_, peer)) = socket.recv_from(&mut question) {
                            let _ = socket.send_to(answer(&name, peer).as_bytes(), peer);
                        }
                    }
                })
            }
        };
        Server {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Who answered, and whom it saw asking.
#[derive(Debug)]
pub struct Answer {
    pub name: String,
    pub peer: IpAddr,
}

/// One try, within this time.
pub fn ask(from: &Netns, protocol: Protocol, to: SocketAddr, limit: Duration) -> Result<Answer> {
    let line = match protocol {
        Protocol::Tcp => {
            let stream = from.enter(|| TcpStream::connect_timeout(&to, limit))?;
            stream.set_read_timeout(Some(limit))?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            line
        }
        Protocol::Udp => {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            // Connected: an answer from another address than the one asked is not taken for one.
            let socket = from.enter(|| {
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                Ok::<_, Error>(socket)
            })?;
            let mut data = [0; 256];
            // A first datagram may be lost while a neighbour's address is looked up; each try has its part of the time.
            socket.set_read_timeout(Some(limit / 3))?;
            let mut last = Error::from(ErrorKind::TimedOut);
            let mut got = None;
            for _ in 0..3 {
                match socket.send(b"?").and_then(|_| socket.recv(&mut data)) {
                    Ok(count) => {
                        got = Some(count);
                        break;
                    }
                    Err(error) => last = error,
                }
            }
            let Some(count) = got else { return Err(last) };
            String::from_utf8_lossy(&data[..count]).into_owned()
        }
    };
    let malformed = || Error::new(ErrorKind::InvalidData, format!("answered {line:?}"));
    let (name, peer) = line.trim_end().split_once(' ').ok_or_else(malformed)?;
    Ok(Answer {
        name: name.to_owned(),
        peer: peer.parse().map_err(|_| malformed())?,
    })
}

/// `name` must answer. Asked again for a while: a proxy or a port that has just come may need a moment.
#[track_caller]
pub fn answers(from: &Netns, protocol: Protocol, to: SocketAddr, name: &str) -> Answer {
    let what = format!("{name} answers at {to}/{}", protocol.as_str());
    harness::eventually(&what, || {
        let answer = ask(from, protocol, to, PATIENCE)?;
        match answer.name == name {
            true => Ok(answer),
            false => Err(Error::other(format!("{answer:?} answered instead"))),
        }
    })
}

/// Nobody may answer. Only as good as a positive control beside it: the same question on a path that is open.
#[track_caller]
pub fn silent(from: &Netns, protocol: Protocol, to: SocketAddr) {
    if let Ok(answer) = ask(from, protocol, to, SILENCE) {
        panic!("{to}/{} must not be reached: {answer:?}", protocol.as_str());
    }
}

/// A UDP client that keeps its port, as a resolver or a game does: the kernel keeps its connection in mind.
pub struct Flow {
    socket: UdpSocket,
}

impl Flow {
    pub fn open(from: &Netns, to: SocketAddr) -> Flow {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = from
            .enter(|| {
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                Ok::<_, Error>(socket)
            })
            .expect("a UDP client");
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("a time limit");
        Flow { socket }
    }

    /// Sends one datagram, whatever comes of it.
    pub fn send(&self) {
        let _ = self.socket.send(b"?");
    }

    /// Who answers now.
    pub fn ask(&self) -> Result<String> {
        let mut data = [0; 256];
        self.socket.send(b"?")?;
        let count = self.socket.recv(&mut data)?;
        let text = String::from_utf8_lossy(&data[..count]);
        Ok(text.split(' ').next().unwrap_or_default().to_owned())
    }
}
