//! Clients and servers of the tests' own, each a socket inside a given namespace.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Netns;

/// How long one attempt may take. A dropped packet is noticed by this running out.
const ATTEMPT: Duration = Duration::from_secs(2);

fn address(text: &str) -> SocketAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("not an address: {text}"))
}

/// A connection to `to` from inside `from`.
pub fn connect(from: &Netns, to: &str) -> Result<TcpStream> {
    let stream = from.enter(|| TcpStream::connect_timeout(&address(to), ATTEMPT))?;
    stream.set_read_timeout(Some(ATTEMPT))?;
    stream.set_write_timeout(Some(ATTEMPT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The first line that the server at `to` says to whoever connects.
pub fn first_line(from: &Netns, to: &str) -> Result<String> {
    let mut line = String::new();
    BufReader::new(connect(from, to)?).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// The body of `http://TO/`. Anything but a `200` is an error.
pub fn http_get(from: &Netns, to: &str) -> Result<String> {
    let mut stream = connect(from, to)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(Error::new(
            ErrorKind::InvalidData,
            format!("{to} answered {answer:?}"),
        )),
    }
}

/// One datagram there, one back, within the time of one attempt.
pub fn udp_ask(from: &Netns, to: &str, question: &str) -> Result<String> {
    let socket = from.enter(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(ATTEMPT))?;
    // Connected, so that an answer from another address than the one asked is not taken for one.
    from.enter(|| socket.connect(address(to)))?;
    socket.send(question.as_bytes())?;
    let mut answer = [0; 1500];
    let count = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
}

/// A UDP server inside a namespace that answers `PORT PEER-ADDRESS QUESTION`; it ends when dropped.
#[derive(Debug)]
pub struct UdpServer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl UdpServer {
    #[track_caller]
    pub fn start(inside: &Netns, port: u16) -> UdpServer {
        let socket = inside
            .enter(|| UdpSocket::bind(("0.0.0.0", port)))
            .expect("bind a UDP port inside the container");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a time limit on a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut question = [0; 1500];
            while !flag.load(Ordering::Relaxed) {
                if let Ok((count, peer)) = socket.recv_from(&mut question) {
                    let text = String::from_utf8_lossy(&question[..count]);
                    let _ = socket.send_to(format!("{port} {} {text}", peer.ip()).as_bytes(), peer);
                }
            }
        });
        UdpServer {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection that sends a line and wants it back: is a connection that was open before still open now?
#[derive(Debug)]
pub struct Echo {
    stream: BufReader<TcpStream>,
}

impl Echo {
    pub fn connect(from: &Netns, to: &str) -> Result<Echo> {
        let mut echo = Echo {
            stream: BufReader::new(connect(from, to)?),
        };
        echo.ask("are you there")?;
        Ok(echo)
    }

    pub fn ask(&mut self, line: &str) -> Result<()> {
        self.stream
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())?;
        let mut back = String::new();
        self.stream.read_line(&mut back)?;
        if back.trim_end() == line {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::InvalidData,
                format!("sent {line:?}, got {back:?}"),
            ))
        }
    }
}

/// A Redis client that checks each answer (the RESP protocol, just SET and GET).
#[derive(Debug)]
pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    pub fn connect(from: &Netns, to: &str) -> Result<Redis> {
        Ok(Redis {
            stream: BufReader::new(connect(from, to)?),
        })
    }

    /// Sets and then gets each key in turn, `batch` requests on the wire at a time; the number of right answers.
    pub fn set_and_get(&mut self, keys: &[String], batch: usize) -> Result<usize> {
        let mut right = 0;
        for keys in keys.chunks(batch) {
            let mut requests = String::new();
            for key in keys {
                requests += &format!("*3\r\n$3\r\nSET\r\n{}{}", bulk(key), bulk(&value_of(key)));
            }
            for key in keys {
                requests += &format!("*2\r\n$3\r\nGET\r\n{}", bulk(key));
            }
            self.stream.get_mut().write_all(requests.as_bytes())?;
            for _ in keys {
                right += usize::from(self.line()? == "+OK");
            }
            for key in keys {
                let value = value_of(key);
                let head = self.line()?;
                right += usize::from(head == format!("${}", value.len()) && self.line()? == value);
            }
        }
        Ok(right)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "redis hung up"));
        }
        Ok(line.trim_end().to_owned())
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn value_of(key: &str) -> String {
    format!("the value of {key}")
}
