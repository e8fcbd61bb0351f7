//! A pipe between two threads of one process. Unlike pipe(2), writing to it when nobody reads any more is an error and never a
//! signal.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Chunks that the writer may be ahead.
const AHEAD: usize = 4;

const CHUNK: usize = 256 << 10;

pub fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = sync_channel(AHEAD);
    let writer = PipeWriter {
        sender,
        chunk: Vec::new(),
    };
    let reader = PipeReader {
        receiver,
        chunk: Vec::new(),
        at: 0,
    };
    (writer, reader)
}

/// What is written goes over in chunks; the last one on `flush`.
#[derive(Debug)]
pub struct PipeWriter {
    sender: SyncSender<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
}

impl PipeWriter {
    /// Ends the stream with an error: without it, what was written would pass for all there is.
    pub fn fail(&mut self, why: &dyn std::fmt::Display) {
        // The reader may have gone, and then nobody is deceived.
        let _ = self.sender.send(Err(io::Error::other(why.to_string())));
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.sender
            .send(Ok(chunk))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[derive(Debug)]
pub struct PipeReader {
    receiver: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.chunk, self.at) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_written_arrives_and_an_error_is_one() {
        let (mut writer, mut reader) = pipe();
        let thread = std::thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).map(|_| text)
        });
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        writer.write_all(&bytes).unwrap();
        writer.flush().unwrap();
        drop(writer);
        assert!(thread.join().unwrap().unwrap() == bytes);
        let (mut writer, mut reader) = pipe();
        writer.fail(&"no more");
        assert!(reader.read(&mut [0]).is_err());
        drop(reader);
        writer.write_all(b"x").unwrap();
        assert!(writer.flush().is_err());
    }
}
