//! A small registry in this process, which keeps what it is sent and does as each test says.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use super::common::sha256;

/// A request, of which the body has not been read yet.
pub struct Request {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub length: usize,
}

impl Request {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

/// What goes wrong with a request.
pub enum Fault {
    Answer(u16, Vec<(&'static str, String)>),
    /// A status and a body.
    Say(u16, String),
    /// This many bytes of the body are taken, and no answer comes.
    CutAfter(usize),
}

/// What the registry has, and has been asked.
#[derive(Default)]
pub struct State {
    pub blobs: HashMap<String, Vec<u8>>,
    pub uploads: HashMap<String, Vec<u8>>,
    pub manifests: HashMap<String, Vec<u8>>,
    pub requests: Vec<Request>,
    /// Before the path of an upload, in its location.
    pub host: String,
    pub least: Option<usize>,
}

type Faults = dyn Fn(&Request, &mut State) -> Option<Fault> + Send + Sync;

/// Ends with the test's process; its thread waits in accept(2) until then.
#[derive(Clone)]
pub struct Server {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start(
        faults: impl Fn(&Request, &mut State) -> Option<Fault> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            state: Arc::default(),
        };
        let (faults, answering): (Arc<Faults>, _) = (Arc::new(faults), server.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (faults, server) = (faults.clone(), answering.clone());
                std::thread::spawn(move || server.serve(stream, &*faults));
            }
        });
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        let state = self.state();
        state.requests.iter().filter(|r| r.is(method, part)).count()
    }

    pub fn lengths(&self, method: &str) -> Vec<usize> {
        let state = self.state();
        let requests = state.requests.iter();
        requests
            .filter(|r| r.is(method, "/blobs/uploads/"))
            .map(|r| r.length)
            .collect()
    }

    fn serve(&self, mut stream: TcpStream, faults: &Faults) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = read_head(&mut reader) {
            let fault = faults(&request, &mut self.state());
            let taken = match fault {
                Some(Fault::CutAfter(n)) => n.min(request.length),
                _ => request.length,
            };
            let mut body = vec![0; taken];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let (status, headers, answer) = match fault {
                Some(Fault::Answer(status, headers)) => (status, headers, Vec::new()),
                Some(Fault::Say(status, body)) => (status, Vec::new(), body.into_bytes()),
                Some(Fault::CutAfter(_)) => {
                    let mut state = self.state();
                    let upload = request.path.clone();
                    if let Some(had) = state.uploads.get_mut(&upload) {
                        had.extend(body);
                    }
                    state.requests.push(request);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    return;
                }
                None => self.state().answer(&request, body),
            };
            let mut head = format!("HTTP/1.1 {status} X\r\n");
            if status != 204 {
                head += &format!("Content-Length: {}\r\n", answer.len());
            }
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            let with_body = request.method != "HEAD";
            self.state().requests.push(request);
            let sent = stream.write_all(format!("{head}\r\n").as_bytes());
            if sent.is_err() || (with_body && stream.write_all(&answer).is_err()) {
                return;
            }
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split(' ');
    let mut request = Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        authorization: None,
        range: None,
        length: 0,
    };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = header.trim().split_once(':') else {
            return Some(request);
        };
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value),
            "content-range" => request.range = Some(value),
            "content-length" => request.length = value.parse().unwrap(),
            _ => {}
        }
    }
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

impl State {
    /// As a registry that does all it should.
    fn answer(&mut self, request: &Request, body: Vec<u8>) -> Answer {
        let path = &request.path;
        let bare = path.split('?').next().unwrap();
        let last = bare.rsplit('/').next().unwrap();
        let location = ("Location", format!("{}{path}", self.host));
        let uploading = path.contains("/blobs/uploads/");
        let missing = (404, Vec::new(), Vec::new());
        match request.method.as_str() {
            "POST" => {
                let upload = format!("{bare}{}?state=a%20b", self.requests.len());
                let mut headers = vec![("Location", format!("{}{upload}", self.host))];
                headers.extend(self.least.map(|n| ("OCI-Chunk-Min-Length", n.to_string())));
                self.uploads.insert(upload, Vec::new());
                (202, headers, Vec::new())
            }
            "PATCH" => match self.uploads.get_mut(path) {
                Some(upload) => {
                    let range = format!("{}-{}", upload.len(), upload.len() + body.len() - 1);
                    if request.range.as_deref() != Some(&range) {
                        return (416, Vec::new(), Vec::new());
                    }
                    upload.extend(body);
                    let range = ("Range", format!("0-{}", upload.len() - 1));
                    (202, vec![location, range], Vec::new())
                }
                None => missing,
            },
            "GET" if uploading => match self.uploads.get(path) {
                Some(upload) => {
                    let range = format!("0-{}", upload.len().saturating_sub(1));
                    (204, vec![("Range", range), location], Vec::new())
                }
                None => missing,
            },
            "PUT" if uploading => {
                let (upload, digest) = path.split_once("&digest=").unwrap();
                let Some(mut bytes) = self.uploads.remove(upload) else {
                    return missing;
                };
                bytes.extend(body);
                let digest = digest.replace("%3A", ":");
                if sha256(&bytes) != digest {
                    let why = r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#;
                    return (400, Vec::new(), why.into());
                }
                self.blobs.insert(digest, bytes);
                (201, Vec::new(), Vec::new())
            }
            "PUT" => {
                let digest = sha256(&body);
                self.manifests.insert(last.to_owned(), body);
                (201, vec![("Docker-Content-Digest", digest)], Vec::new())
            }
            "DELETE" => {
                self.uploads.remove(path);
                (202, Vec::new(), Vec::new())
            }
            "HEAD" => match self.blobs.get(last) {
                Some(bytes) => (200, Vec::new(), bytes.clone()),
                None => missing,
            },
            "GET" if bare == "/v2/" => (200, Vec::new(), Vec::new()),
            _ => missing,
        }
    }
}
