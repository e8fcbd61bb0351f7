//! A registry that misbehaves as a test says: a small HTTP server of ours, which remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Netns;

/// Nobody of ours waits longer for the next request on an open connection.
const IDLE: Duration = Duration::from_secs(30);

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// What of it is no text is replaced.
    pub body: String,
}

impl Request {
    /// The value of a header, in whatever case its name was written.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }
}

/// The part of the body that comes before the connection ends, if that is not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    CutAt(usize),
}

/// What is answered, faults included.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The body is written so often, one after the other.
    times: usize,
    end: End,
    /// `None`: what the body has.
    length: Option<u64>,
    chunked: bool,
    pause: Duration,
}

impl Answer {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            headers: vec![("Content-Type".into(), content_type.into())],
            body: body.into(),
            times: 1,
            end: End::Whole,
            length: None,
            chunked: false,
            pause: Duration::ZERO,
        }
    }

    /// Without a body.
    pub fn of(status: u16) -> Answer {
        Answer::new(status, "text/plain", "")
    }

    pub fn json(status: u16, text: impl Into<Vec<u8>>) -> Answer {
        Answer::new(status, "application/json", text)
    }

    pub fn with(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The connection is closed after this many bytes of the body.
    pub fn cut_at(mut self, bytes: usize) -> Answer {
        self.end = End::CutAt(bytes);
        self
    }

    /// A Content-Length that is not the body's.
    pub fn claiming(mut self, length: u64) -> Answer {
        self.length = Some(length);
        self
    }

    /// The body once more and once more: what is too large to be held.
    pub fn repeated(mut self, times: usize) -> Answer {
        self.times = times;
        self
    }

    /// Without a Content-Length.
    pub fn chunked(mut self) -> Answer {
        self.chunked = true;
        self
    }

    /// Nothing is said for so long.
    pub fn after(mut self, pause: Duration) -> Answer {
        self.pause = pause;
        self
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Its last byte is another one.
    pub fn altered(mut self) -> Answer {
        if let Some(last) = self.body.last_mut() {
            *last ^= 1;
        }
        self
    }

    fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        std::thread::sleep(self.pause);
        let mut head = format!("HTTP/1.1 {} X\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let length = self.length.unwrap_or((self.body.len() * self.times) as u64);
        head += &match self.chunked {
            true => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
            false => format!("Content-Length: {length}\r\n\r\n"),
        };
        stream.write_all(head.as_bytes())?;
        if let End::CutAt(bytes) = self.end {
            stream.write_all(&self.body[..bytes.min(self.body.len())])?;
            return Ok(());
        }
        for _ in 0..self.times {
            if self.chunked {
                stream.write_all(format!("{:x}\r\n", self.body.len()).as_bytes())?;
            }
            stream.write_all(&self.body)?;
            if self.chunked {
                stream.write_all(b"\r\n")?;
            }
        }
        if self.chunked {
            stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(())
    }

    /// Whether the client may ask again on the same connection.
    fn is_whole(&self) -> bool {
        self.end == End::Whole
            && (self.chunked || self.length.is_none_or(|n| n == self.body.len() as u64))
    }
}

type Handler = dyn Fn(&Request) -> Option<Answer> + Send + Sync;

/// Serves until dropped.
pub struct Mock {
    /// `127.0.0.1:PORT`
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    inside: std::fs::File,
}

impl std::fmt::Debug for Mock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mock")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Mock {
    /// A server on an address of a namespace, on a port of its choice. Without an answer it says 404.
    #[track_caller]
    pub fn start(
        inside: &Netns,
        ip: &str,
        handler: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Mock {
        Mock::listen(inside, (ip, 0), handler)
    }

    /// The same on a port of the test's choice.
    #[track_caller]
    pub fn listen(
        inside: &Netns,
        at: impl ToSocketAddrs + Send,
        handler: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Mock {
        let listener = inside
            .enter(|| TcpListener::bind(at))
            .expect("listen on an address of the namespace");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (handler, seen, end): (Arc<Handler>, _, _) =
            (Arc::new(handler), Arc::clone(&requests), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, &*handler, &seen));
            }
        });
        let inside = std::fs::File::open(inside.path()).expect("a namespace");
        Mock {
            address,
            requests,
            stop,
            inside,
        }
    }

    /// What has been asked so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }

    /// Those whose path has this in it.
    pub fn asked(&self, part: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path.contains(part));
        requests
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread waits in accept(2): one more connection wakes it.
        let (address, inside) = (self.address.clone(), &self.inside);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let entered = nix::sched::setns(inside, nix::sched::CloneFlags::CLONE_NEWNET);
                if entered.is_ok() {
                    drop(TcpStream::connect(address));
                }
            });
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection: requests and answers until either side ends it.
fn serve(mut stream: TcpStream, handler: &Handler, seen: &Mutex<Vec<Request>>) {
    let _ = stream.set_read_timeout(Some(IDLE));
    let _ = stream.set_nodelay(true);
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    while let Some(request) = read_request(&mut reader) {
        let answer = handler(&request).unwrap_or(Answer::new(404, "text/plain", "no"));
        lock(seen).push(request);
        if answer.write(&mut stream).is_err() || !answer.is_whole() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// The next request of a connection, if there is one.
pub fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut request = Request {
        method: words.next()?,
        path: words.next()?,
        headers: Vec::new(),
        body: String::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let pair = (name.to_owned(), value.trim().to_owned());
        request.headers.push(pair);
    }
    let length = request
        .header("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = Vec::new();
    reader
        .take(length.unwrap_or(0))
        .read_to_end(&mut body)
        .ok()?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Some(request)
}
