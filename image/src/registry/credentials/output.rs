//! What a program prints while somebody waits for it: read to a limit, for so long, and only as long as its end is of interest.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::registry::Watcher;

/// Credentials are shorter by far.
const MAX_OUTPUT: u64 = 1 << 20;
/// Somebody may have to type the passphrase of a key first.
pub const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// From when on it is told who is waited for.
const TELL_AFTER: Duration = Duration::from_secs(3);
/// How long an end goes unnoticed of which no stream tells.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How the wait has ended. But for `Itself` the program was killed.
pub enum Ended {
    Itself(Output),
    Cancelled,
    /// After [`PATIENCE`].
    TooSlow,
}

/// Runs a program, `what` for messages. Its standard output and error go to memory, up to [`MAX_OUTPUT`] of each: one that prints for
/// ever is ended by the pipe that nobody reads any more. What it leaves running is not waited for, even with the pipes in hand.
pub fn of(command: &mut Command, what: &str, watcher: &dyn Watcher) -> io::Result<Ended> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdout = Stream::new(child.stdout.take())?;
    let mut stderr = Stream::new(child.stderr.take())?;
    let begun = Instant::now();
    let mut told = false;
    loop {
        // In this order: all that was printed before the end is in the pipes by then.
        let status = child.try_wait()?;
        stdout.take_in();
        stderr.take_in();
        if let Some(status) = status {
            return Ok(Ended::Itself(Output {
                status,
                stdout: stdout.bytes,
                stderr: stderr.bytes,
            }));
        }
        if watcher.cancelled() {
            return kill(child, Ended::Cancelled);
        }
        if begun.elapsed() > PATIENCE {
            return kill(child, Ended::TooSlow);
        }
        if !told && begun.elapsed() > TELL_AFTER {
            told = true;
            watcher.notice(format!("waiting for `{what}`"));
        }
        wait(&[&stdout, &stderr])?;
    }
}

fn kill(mut child: Child, ended: Ended) -> io::Result<Ended> {
    child.kill()?;
    child.wait()?;
    Ok(ended)
}

/// Until one of them has something, or an end of one, or for [`LOOK_EVERY`].
fn wait(streams: &[&Stream]) -> io::Result<()> {
    let open = streams.iter().filter_map(|stream| stream.fd());
    let mut fds: Vec<_> = open
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    let most = Timespec {
        tv_sec: 0,
        tv_nsec: LOOK_EVERY.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&most)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// One of the pipes, and what has come out of it.
struct Stream {
    pipe: Option<Box<dyn Pipe>>,
    bytes: Vec<u8>,
}

trait Pipe: Read + AsFd {}
impl<T: Read + AsFd> Pipe for T {}

impl Stream {
    fn new(pipe: Option<impl Pipe + 'static>) -> io::Result<Stream> {
        if let Some(pipe) = &pipe {
            let flags = fcntl_getfl(pipe)?;
            fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?;
        }
        Ok(Stream {
            pipe: pipe.map(|pipe| Box::new(pipe) as Box<dyn Pipe>),
            bytes: Vec::new(),
        })
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(|pipe| pipe.as_fd())
    }

    /// What is there now. At its end, or at the limit, the pipe is closed.
    fn take_in(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let left = MAX_OUTPUT - self.bytes.len() as u64;
        match pipe.take(left).read_to_end(&mut self.bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // What was read before an error is what it has said.
            _ => self.pipe = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Gives up after the first notice, if it is to.
    #[derive(Default)]
    struct Impatient {
        gives_up: bool,
        told: Mutex<Vec<String>>,
    }

    impl Watcher for Impatient {
        fn notice(&self, text: String) {
            self.told.lock().unwrap().push(text);
        }

        fn cancelled(&self) -> bool {
            self.gives_up && !self.told.lock().unwrap().is_empty()
        }
    }

    fn run(script: &str, watcher: &Impatient) -> Ended {
        of(Command::new("sh").args(["-c", script]), "sh get", watcher).unwrap()
    }

    #[test]
    fn a_program_that_prints_for_ever_is_cut_off() {
        for (script, streams) in [
            ("exec yes", [MAX_OUTPUT, 0]),
            ("exec yes >&2", [0, MAX_OUTPUT]),
        ] {
            let Ended::Itself(output) = run(script, &Impatient::default()) else {
                panic!("it ends by itself");
            };
            assert!(!output.status.success());
            let lengths = [&output.stdout, &output.stderr].map(|bytes| bytes.len() as u64);
            assert_eq!(lengths, streams);
        }
    }

    #[test]
    fn what_a_program_leaves_running_is_not_waited_for() {
        let watcher = Impatient::default();
        let Ended::Itself(output) = run("sleep 30 & echo said", &watcher) else {
            panic!("it ends by itself");
        };
        assert_eq!(output.stdout, b"said\n");
    }

    #[test]
    fn who_waits_is_told_and_can_give_up() {
        let watcher = Impatient {
            gives_up: true,
            ..Impatient::default()
        };
        let ended = run("exec >&- 2>&-; exec sleep 1000", &watcher);
        assert!(matches!(ended, Ended::Cancelled));
        assert_eq!(*watcher.told.lock().unwrap(), ["waiting for `sh get`"]);
    }
}
