//! The next pieces of a large blob, fetched by further connections into bounded memory: for a network that gives one connection less
//! than it has.
//!
//! Whatever goes wrong here only ends it: the pull goes on with one connection, which then meets the same trouble and judges it.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use crate::error::Error;
use crate::registry::manifest::Blob;
use crate::registry::{Backoff, Client};

pub const PIECE: u64 = 2 << 20;
/// Connections of one layer.
const CONNECTIONS: usize = 4;
/// Pieces of one layer in memory: one at each connection, and the one that is being read.
const PIECES: usize = CONNECTIONS + 1;

/// The memory that a pull may use for pieces: those of two layers.
pub struct Budget(AtomicUsize);

impl Default for Budget {
    fn default() -> Self {
        Budget(AtomicUsize::new(2))
    }
}

impl Budget {
    fn take(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let result = (self.0).fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        result.is_ok()
    }
}

/// The reader's end; the connections end when it is dropped.
pub struct Ahead<'env> {
    pieces: Arc<Pieces>,
    budget: &'env Budget,
    /// The piece being read.
    current: Option<(u64, Vec<u8>)>,
}

struct Pieces {
    /// The first byte of the first piece.
    begin: u64,
    count: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next piece to ask for.
    next: u64,
    /// The piece that the reader is at.
    wanted: u64,
    done: BTreeMap<u64, Vec<u8>>,
    /// The registry has answered with a range.
    confirmed: bool,
    failed: bool,
    /// Nobody reads any more.
    dropped: bool,
}

impl<'env> Ahead<'env> {
    /// Begins to fetch from `begin` on. `None` if other layers have the memory.
    pub fn start<'scope>(
        client: &'env Client<'env>,
        blob: &'env Blob,
        etag: Option<String>,
        begin: u64,
        budget: &'env Budget,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Option<Self> {
        if !budget.take() {
            return None;
        }
        let pieces = Arc::new(Pieces {
            begin,
            count: (blob.size - begin).div_ceil(PIECE),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        for number in 0..CONNECTIONS {
            let (pieces, etag) = (pieces.clone(), etag.clone());
            scope.spawn(move || pieces.fetch_all(client, blob, etag.as_deref(), number == 0));
        }
        Some(Ahead {
            pieces,
            budget,
            current: None,
        })
    }

    /// The first byte that pieces have.
    pub fn begin(&self) -> u64 {
        self.pieces.begin
    }

    /// Whether pieces come: only then may the first connection be given up.
    pub fn is_confirmed(&self) -> bool {
        let state = self.pieces.lock();
        state.confirmed && !state.failed
    }

    /// Reads at `position`, which only grows; 0 once the connections have failed.
    pub fn read(&mut self, position: u64, buf: &mut [u8]) -> usize {
        let offset = position - self.pieces.begin;
        let (wanted, at) = (offset / PIECE, (offset % PIECE) as usize);
        if self.current.as_ref().is_none_or(|(i, _)| *i != wanted) {
            self.current = None;
            self.current = self.pieces.wait_for(wanted).map(|bytes| (wanted, bytes));
        }
        let Some((_, bytes)) = &self.current else {
            return 0;
        };
        let n = buf.len().min(bytes.len() - at);
        buf[..n].copy_from_slice(&bytes[at..at + n]);
        n
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        self.pieces.lock().dropped = true;
        self.pieces.changed.notify_all();
        self.budget.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Pieces {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        // The time is for nothing but a notification that was lost with its thread.
        let result = self.changed.wait_timeout(state, Duration::from_secs(1));
        result.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Gives the piece out, and room for those after it.
    fn wait_for(&self, wanted: u64) -> Option<Vec<u8>> {
        let mut state = self.lock();
        state.wanted = wanted;
        state.done.retain(|i, _| *i >= wanted);
        self.changed.notify_all();
        loop {
            if let Some(bytes) = state.done.remove(&wanted) {
                return Some(bytes);
            }
            if state.failed {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// One connection's work: the `first` finds out whether the registry takes ranges, the others wait for that.
    fn fetch_all(&self, client: &Client<'_>, blob: &Blob, etag: Option<&str>, first: bool) {
        while let Some(piece) = self.next(first) {
            let result = self.fetch(client, blob, etag, piece);
            let mut state = self.lock();
            match result {
                Ok(bytes) => drop(state.done.insert(piece, bytes)),
                Err(error) => {
                    tracing::debug!(%error, piece, "going on with one connection");
                    state.failed = true;
                }
            }
            self.changed.notify_all();
        }
    }

    fn next(&self, first: bool) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.failed || state.dropped || state.next >= self.count {
                return None;
            }
            let room = state.next < state.wanted + PIECES as u64;
            if room && (first || state.confirmed) {
                // What the first connection has read meanwhile is not fetched again.
                let piece = state.next.max(state.wanted);
                state.next = piece + 1;
                return Some(piece);
            }
            state = self.wait(state);
        }
    }

    fn fetch(
        &self,
        client: &Client<'_>,
        blob: &Blob,
        etag: Option<&str>,
        piece: u64,
    ) -> Result<Vec<u8>, Error> {
        let start = self.begin + piece * PIECE;
        let end = blob.size.min(start + PIECE);
        let what = format!("blob {}", blob.digest);
        let mut bytes = Vec::with_capacity((end - start) as usize);
        let mut backoff = Backoff::new();
        loop {
            let from = start + bytes.len() as u64;
            if from == end {
                return Ok(bytes);
            }
            let body = client.blob(blob, from..end, etag)?;
            if body.start != from {
                return Err(Error::untrusted(what, "the registry ignores ranges"));
            }
            self.lock().confirmed = true;
            self.changed.notify_all();
            let before = bytes.len();
            let result = body.reader.take(body.end - from).read_to_end(&mut bytes);
            if client.watcher().cancelled() || self.lock().dropped {
                return Err(Error::Cancelled);
            }
            match result {
                Ok(_) if bytes.len() > before => {}
                Ok(_) => {
                    let short = std::io::Error::other("it ended too early");
                    backoff.wait(client.broken_off(&what, &short), None, client.watcher())?;
                }
                Err(e) => backoff.wait(client.broken_off(&what, &e), None, client.watcher())?,
            }
        }
    }
}
