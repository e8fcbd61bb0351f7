//! A small HTTP server in the test's process, which does as the test says: whatever a registry may answer, faults included.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use image::Reference;

/// What is asked, without its body.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// First and last byte that it asks for.
    pub range: Option<(usize, usize)>,
    /// Bytes of its body.
    pub length: usize,
    /// How many there were before of the same path.
    pub number: usize,
}

impl Request {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

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

#[derive(Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close the connection after this many bytes of the body.
    pub cut: Option<usize>,
    /// Pause before each 64 KiB.
    pub pause: Duration,
    /// Before the body's last byte, wait until it opens.
    pub gate: Option<Arc<Gate>>,
}

impl Answer {
    pub fn of(status: u16) -> Answer {
        Answer {
            status,
            ..Answer::default()
        }
    }

    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        let mut answer = Answer::of(status).with("Content-Type", content_type);
        answer.body = body.into();
        answer
    }

    pub fn with(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Answer {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// Its body without a Content-Length, in one chunk.
    pub fn chunked(mut self) -> Answer {
        let head = format!("{:x}\r\n", self.body.len()).into_bytes();
        self.body = [&head, &self.body[..], b"\r\n0\r\n\r\n"].concat();
        self.with("Transfer-Encoding", "chunked")
    }

    fn send(&self, mut stream: &TcpStream, asked: &Request) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\n", self.status);
        let chunked = self.headers.iter().any(|(it, _)| it == "Transfer-Encoding");
        // RFC 9110, 8.6: 204 has none.
        if self.status != 204 && !chunked {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if asked.method == "HEAD" {
            return Ok(());
        }
        let body = &self.body[..self.cut.unwrap_or(self.body.len())];
        let (body, last) = match &self.gate {
            Some(_) => body.split_at(body.len() - 1),
            None => (body, &[][..]),
        };
        for chunk in body.chunks(64 << 10) {
            std::thread::sleep(self.pause);
            stream.write_all(chunk)?;
        }
        if let Some(gate) = &self.gate {
            gate.wait();
        }
        stream.write_all(last)
    }
}

/// Shut until opened.
#[derive(Default)]
pub struct Gate(Mutex<bool>, Condvar);

impl Gate {
    pub fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let shut = self.0.lock().unwrap();
        drop(self.1.wait_while(shut, |open| !*open).unwrap());
    }
}

/// The body of a request, as far as it has not been taken.
pub struct Body<'a> {
    from: &'a mut dyn Read,
    left: usize,
}

impl Body<'_> {
    /// The next bytes, or all that there are; fewer where the client goes away.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let due = length.min(self.left);
        let _ = self.from.take(due as u64).read_to_end(&mut bytes);
        self.left -= bytes.len();
        bytes
    }

    pub fn all(&mut self) -> Vec<u8> {
        self.take(self.left)
    }
}

/// Without an answer, the connection ends.
type Handler = dyn Fn(&Request, &mut Body<'_>) -> Option<Answer> + Send + Sync;

/// Ends with the test's process; its threads wait until then.
#[derive(Clone)]
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
    /// How many answers to ranges are under way, and the most that were at once.
    ranges: Arc<[AtomicUsize; 2]>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        Server::taking(move |request, _| Some(handler(request)))
    }

    /// One that looks at what it is sent. Whatever of a body it leaves is taken before it answers.
    pub fn taking(
        handler: impl Fn(&Request, &mut Body<'_>) -> Option<Answer> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
            ranges: Arc::default(),
        };
        let (handler, answering): (Arc<Handler>, _) = (Arc::new(handler), server.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, server) = (handler.clone(), answering.clone());
                std::thread::spawn(move || server.serve(&stream, &*handler));
            }
        });
        server
    }

    pub fn reference(&self) -> Reference {
        Reference::parse(&format!("127.0.0.1:{}/x:1", self.port)).unwrap()
    }

    /// What was asked, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn requests_for(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path == path);
        requests
    }

    pub fn count(&self, part: &str) -> usize {
        let requests = self.requests();
        requests.iter().filter(|it| it.path.contains(part)).count()
    }

    /// The most answers to ranges that were under way at once.
    pub fn ranges_at_once(&self) -> usize {
        self.ranges[1].load(Ordering::SeqCst)
    }

    fn serve(&self, stream: &TcpStream, handler: &Handler) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = self.next_request(&mut reader) {
            let mut body = Body {
                from: &mut reader,
                left: request.length,
            };
            let Some(answer) = handler(&request, &mut body) else {
                break;
            };
            body.all();
            let ranged = usize::from(answer.status == 206);
            let now = self.ranges[0].fetch_add(ranged, Ordering::SeqCst) + ranged;
            self.ranges[1].fetch_max(now, Ordering::SeqCst);
            let sent = answer.send(stream, &request);
            self.ranges[0].fetch_sub(ranged, Ordering::SeqCst);
            if sent.is_err() || answer.cut.is_some() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn next_request(&self, reader: &mut impl BufRead) -> Option<Request> {
        let mut line = read_line(reader)?;
        let mut words = line.split(' ').map(str::to_owned);
        let mut request = Request {
            method: words.next()?,
            path: words.next()?,
            headers: Vec::new(),
            range: None,
            length: 0,
            number: 0,
        };
        loop {
            line = read_line(reader)?;
            let Some((name, value)) = line.trim().split_once(':') else {
                break;
            };
            let pair = (name.to_owned(), value.trim().to_owned());
            request.headers.push(pair);
        }
        let length = request.header("content-length");
        request.length = length.map_or(0, |text| text.parse().unwrap());
        request.range = request.header("range").map(|text| {
            let (first, last) = text["bytes=".len()..].split_once('-').unwrap();
            (first.parse().unwrap(), last.parse().unwrap())
        });
        let mut seen = self.seen.lock().unwrap();
        request.number = seen.iter().filter(|it| it.path == request.path).count();
        seen.push(request.clone());
        Some(request)
    }
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let count = reader.read_line(&mut line).ok()?;
    (count > 0).then_some(line)
}
