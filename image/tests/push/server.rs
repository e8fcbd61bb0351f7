//! A registry that keeps what it is sent, and does as each test says.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use super::common::server::{Answer, Request, Server};
use super::common::sha256;

/// What goes wrong with a request.
pub enum Fault {
    Answer(Answer),
    /// This many bytes of the body are taken, and no answer comes.
    CutAfter(usize),
}

/// What the registry has.
#[derive(Default)]
pub struct State {
    pub blobs: HashMap<String, Vec<u8>>,
    pub uploads: HashMap<String, Vec<u8>>,
    pub manifests: HashMap<String, Vec<u8>>,
    /// Uploads that were begun so far.
    begun: usize,
    /// Before the path of an upload, in its location.
    pub host: String,
    pub least: Option<usize>,
}

#[derive(Clone)]
pub struct Registry {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Deref for Registry {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Registry {
    pub fn start(
        faults: impl Fn(&Request, &mut State) -> Option<Fault> + Send + Sync + 'static,
    ) -> Registry {
        let state = Arc::new(Mutex::new(State::default()));
        let kept = state.clone();
        let server = Server::taking(move |request, body| {
            let fault = faults(request, &mut kept.lock().unwrap());
            match fault {
                Some(Fault::Answer(answer)) => Some(answer),
                Some(Fault::CutAfter(bytes)) => {
                    let taken = body.take(bytes);
                    if let Some(had) = kept.lock().unwrap().uploads.get_mut(&request.path) {
                        had.extend(taken);
                    }
                    None
                }
                None => {
                    let taken = body.all();
                    // What was cut by the client is no request.
                    (taken.len() == request.length)
                        .then(|| kept.lock().unwrap().answer(request, taken))
                }
            }
        });
        Registry { server, state }
    }

    /// One without faults.
    pub fn honest() -> Registry {
        Registry::start(|_, _| None)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn asked(&self, method: &str, part: &str) -> usize {
        let requests = self.requests();
        requests.iter().filter(|it| it.is(method, part)).count()
    }

    /// How long the bodies of an upload's requests were.
    pub fn lengths(&self, method: &str) -> Vec<usize> {
        let mut requests = self.requests();
        requests.retain(|it| it.is(method, "/blobs/uploads/"));
        requests.iter().map(|it| it.length).collect()
    }
}

impl State {
    /// As a registry that does all it should.
    fn answer(&mut self, request: &Request, body: Vec<u8>) -> Answer {
        let path = &request.path;
        let bare = path.split('?').next().unwrap();
        let last = bare.rsplit('/').next().unwrap();
        let location = format!("{}{path}", self.host);
        let uploading = path.contains("/blobs/uploads/");
        let missing = Answer::of(404);
        match request.method.as_str() {
            "POST" => {
                self.begun += 1;
                let upload = format!("{bare}{}?state=a%20b", self.begun);
                let answer = Answer::of(202).with("Location", &format!("{}{upload}", self.host));
                self.uploads.insert(upload, Vec::new());
                match self.least {
                    Some(bytes) => answer.with("OCI-Chunk-Min-Length", &bytes.to_string()),
                    None => answer,
                }
            }
            "PATCH" => match self.uploads.get_mut(path) {
                Some(upload) => {
                    let range = format!("{}-{}", upload.len(), upload.len() + body.len() - 1);
                    if request.header("content-range") != Some(&range) {
                        return Answer::of(416);
                    }
                    upload.extend(body);
                    let range = format!("0-{}", upload.len() - 1);
                    Answer::of(202)
                        .with("Location", &location)
                        .with("Range", &range)
                }
                None => missing,
            },
            "GET" if uploading => match self.uploads.get(path) {
                Some(upload) => {
                    let range = format!("0-{}", upload.len().saturating_sub(1));
                    Answer::of(204)
                        .with("Range", &range)
                        .with("Location", &location)
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
                    return Answer::new(400, "application/json", why);
                }
                self.blobs.insert(digest, bytes);
                Answer::of(201)
            }
            "PUT" => {
                let digest = sha256(&body);
                self.manifests.insert(last.to_owned(), body);
                Answer::of(201).with("Docker-Content-Digest", &digest)
            }
            "DELETE" => {
                self.uploads.remove(path);
                Answer::of(202)
            }
            "HEAD" => match self.blobs.get(last) {
                Some(bytes) => Answer::new(200, "application/octet-stream", bytes.clone()),
                None => missing,
            },
            "GET" if bare == "/v2/" => Answer::of(200),
            _ => missing,
        }
    }
}
