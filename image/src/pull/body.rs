//! A blob's bytes in order, whatever happens to connections: one that breaks off is followed by another that goes on at the byte
//! where it ended. Knows nothing of what the bytes mean; the digest judges that.

use std::io::{self, Read};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::ahead::{Ahead, Budget, PIECE};
use crate::error::Error;
use crate::registry::manifest::Blob;
use crate::registry::{Backoff, BlobBody, Client};

/// What has to have come since the last break for it to count as the first one again.
const PROGRESS: u64 = 64 << 10;

/// Blobs from this size on may be fetched by several connections.
const LARGE: u64 = 16 << 20;

/// How long the network's share of the time is measured, and from which share on it is what the layer waits for.
const WINDOW: Duration = Duration::from_millis(500);
const STARVING: f64 = 0.8;

pub struct Body<'scope, 'env> {
    client: &'env Client<'env>,
    blob: &'env Blob,
    position: u64,
    stream: Option<BlobBody>,
    etag: Option<String>,
    backoff: Backoff,
    /// Where the last break was.
    broken_at: u64,
    window: Window,
    ahead: Option<Ahead<'env>>,
    /// Several connections have been tried.
    tried_ahead: bool,
    budget: &'env Budget,
    scope: &'scope Scope<'scope, 'env>,
}

impl<'scope, 'env> Body<'scope, 'env> {
    pub fn new(
        client: &'env Client<'env>,
        blob: &'env Blob,
        budget: &'env Budget,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Self {
        Body {
            client,
            blob,
            position: 0,
            stream: None,
            etag: None,
            backoff: Backoff::new(),
            broken_at: 0,
            window: Window::new(),
            ahead: None,
            tried_ahead: false,
            budget,
            scope,
        }
    }

    fn what(&self) -> String {
        format!("blob {}", self.blob.digest)
    }

    /// As `Read::read`. May give more than the blob's size, if the registry sends more: the caller counts.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let size = self.blob.size;
        loop {
            if self.client.watcher().cancelled() {
                return Err(Error::Cancelled);
            }
            if buf.is_empty() {
                return Ok(0);
            }
            let Some(stream) = &mut self.stream else {
                if self.position == size && self.position > 0 {
                    return Ok(0);
                }
                match self.read_ahead(buf) {
                    0 => self.open()?,
                    n => return Ok(n),
                }
                continue;
            };
            // Only at the blob's end is it of interest whether more comes.
            let most = match stream.end {
                end if end == size => buf.len(),
                end => buf
                    .len()
                    .min(usize::try_from(end - self.position).unwrap_or(usize::MAX)),
            };
            let begun = Instant::now();
            match stream.reader.read(&mut buf[..most]) {
                Ok(0) if self.position == size => return Ok(0),
                Ok(0) if self.position == stream.end => self.stream = None,
                Ok(0) => self.broken(&io::Error::other("it ended too early"))?,
                Ok(n) => {
                    self.position += n as u64;
                    self.window.waited += begun.elapsed();
                    self.look_ahead();
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.broken(&e)?,
            }
        }
    }

    /// Asks for the rest. What a registry that knows no ranges sends again is skipped.
    fn open(&mut self) -> Result<(), Error> {
        let rest = self.position..self.blob.size;
        let mut stream = self.client.blob(self.blob, rest, self.etag.as_deref())?;
        let skip = self.position - stream.start;
        let skipped = io::copy(&mut stream.reader.by_ref().take(skip), &mut io::sink());
        match skipped {
            Ok(n) if n == skip => {
                if stream.etag.is_some() {
                    self.etag.clone_from(&stream.etag);
                }
                self.stream = Some(stream);
                Ok(())
            }
            Ok(_) => self.broken(&io::Error::other("it ended too early")),
            Err(e) => self.broken(&e),
        }
    }

    /// Waits before the next try; an error if there have been enough without progress.
    fn broken(&mut self, why: &io::Error) -> Result<(), Error> {
        self.stream = None;
        if self.client.watcher().cancelled() {
            return Err(Error::Cancelled);
        }
        let (position, size) = (self.position, self.blob.size);
        if position - self.broken_at >= PROGRESS {
            self.backoff = Backoff::new();
        }
        self.broken_at = position;
        let why = io::Error::other(format!("{why}, after {position} of {size} bytes"));
        let error = self.client.broken_off(&self.what(), &why);
        self.backoff.wait(error, None, self.client.watcher())
    }

    /// Reads from the pieces, if there are some; otherwise 0.
    fn read_ahead(&mut self, buf: &mut [u8]) -> usize {
        let Some(ahead) = &mut self.ahead else {
            return 0;
        };
        let n = ahead.read(self.position, buf);
        if n == 0 {
            self.ahead = None;
        }
        self.position += n as u64;
        n
    }

    /// Whether further connections would help, and whether they do.
    fn look_ahead(&mut self) {
        let Some(stream) = &self.stream else { return };
        if let Some(ahead) = &self.ahead {
            // Until pieces come, one connection goes on.
            if self.position >= ahead.begin() && ahead.is_confirmed() {
                self.stream = None;
            }
            return;
        }
        let left = self.blob.size - self.position.min(self.blob.size);
        if self.tried_ahead
            || self.blob.size < LARGE
            || left < 4 * PIECE
            || !stream.takes_ranges
            || !self.window.is_starving()
        {
            return;
        }
        let begin = self.position + PIECE;
        let (client, blob, etag) = (self.client, self.blob, self.etag.clone());
        self.ahead = Ahead::start(client, blob, etag, begin, self.budget, self.scope);
        self.tried_ahead = self.ahead.is_some();
    }
}

/// How much of the time has gone by waiting for the network.
struct Window {
    begun: Instant,
    waited: Duration,
}

impl Window {
    fn new() -> Self {
        Window {
            begun: Instant::now(),
            waited: Duration::ZERO,
        }
    }

    /// True where a whole window went by in waiting; begins another one.
    fn is_starving(&mut self) -> bool {
        let elapsed = self.begun.elapsed();
        if elapsed < WINDOW {
            return false;
        }
        let starving = self.waited.as_secs_f64() > STARVING * elapsed.as_secs_f64();
        *self = Window::new();
        starving
    }
}
