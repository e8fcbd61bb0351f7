//! Small servers in the test's own process, listening on a host of ours: an HTTP server that answers as a test says, and a proxy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use harness::Host;

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }
}

/// Status, further headers, body.
pub struct Answer(pub u16, pub Vec<(&'static str, String)>, pub Vec<u8>);

/// What was asked, in order.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<Request>>>);

impl Seen {
    pub fn all(&self) -> Vec<Request> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, request: Request) {
        self.0.lock().unwrap().push(request);
    }
}

/// Its thread waits in accept(2) until the test's process ends.
pub fn serve(
    host: &Host,
    address: &str,
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> Seen {
    let listener = host.netns.enter(|| TcpListener::bind(address)).unwrap();
    let (seen, answer) = (Seen::default(), Arc::new(answer));
    let noted = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (noted, answer) = (noted.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                while let Some(request) = read(&mut reader) {
                    let Answer(status, headers, body) = answer(&request);
                    noted.note(request);
                    let mut head =
                        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
                    for (name, value) in headers {
                        head += &format!("{name}: {value}\r\n");
                    }
                    let head = format!("{head}\r\n").into_bytes();
                    if stream.write_all(&[head, body].concat()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    seen
}

/// A proxy that knows `CONNECT`, and leads wherever it is asked to.
pub fn proxy(host: &Host, address: &str, password: Option<&'static str>) -> Seen {
    let listener = host.netns.enter(|| TcpListener::bind(address)).unwrap();
    let seen = Seen::default();
    let noted = seen.clone();
    let work = move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Some(request) = read(&mut reader) else {
                continue;
            };
            let known = password.is_none_or(|it| request.header("proxy-authorization") == Some(it));
            let target = request.path.clone();
            let connects = request.method == "CONNECT";
            noted.note(request);
            if !known || !connects {
                let status = if connects { 407 } else { 405 };
                let _ = stream.write_all(
                    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes(),
                );
                continue;
            }
            let Ok(onward) = TcpStream::connect(&target) else {
                let _ = stream.write_all(b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n");
                continue;
            };
            stream.write_all(b"HTTP/1.1 200 X\r\n\r\n").unwrap();
            relay(stream.try_clone().unwrap(), onward.try_clone().unwrap());
            relay(onward, stream);
        }
    };
    // A thread begins in the namespace of the one that has made it.
    host.netns.enter(|| drop(std::thread::spawn(work)));
    seen
}

fn relay(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return None;
    }
    let mut words = line.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next()?,
        path: words.next()?,
        ..Request::default()
    };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 {
            return None;
        }
        match header.trim().split_once(':') {
            Some((name, value)) => {
                let pair = (name.to_owned(), value.trim().to_owned());
                request.headers.push(pair);
            }
            None => break,
        }
    }
    let length = request
        .header("content-length")
        .and_then(|it| it.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}
