//! Running a program inside a namespace, with a time limit, and judging what came of it.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::Netns;
use crate::wait::scaled;

/// No command of ours takes a tenth of this on a quiet machine.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// How long after a program's end its output may stay open. Longer means that something it left behind holds the caller's pipes, and
/// `$(coracle run -d ...)` in a script would hang.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// A program to run.
#[derive(Clone, Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        Cmd {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: Vec::new(),
            limit: TIME_LIMIT,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Cmd {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Cmd {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What the program reads. Without it standard input is empty.
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Cmd {
        self.stdin = bytes.as_ref().to_owned();
        self
    }

    /// How long it may take on a usual machine ([`scaled`]).
    pub fn limit(mut self, limit: Duration) -> Cmd {
        self.limit = limit;
        self
    }

    /// Puts another program in front of this one: `nsenter ... THIS`.
    pub fn wrapped_in<A: AsRef<OsStr>>(
        mut self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Cmd {
        let own = std::mem::take(&mut self.args);
        let inner = std::mem::replace(&mut self.program, program.into());
        self = self.args(args);
        self.args.push(inner);
        self.args.extend(own);
        self
    }

    /// As one would type it: for messages, and for `script -c`.
    pub fn line(&self) -> String {
        std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| quoted(&word.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[track_caller]
    pub fn run_in(&self, netns: &Netns) -> Output {
        self.spawn_in(netns).wait()
    }

    /// Runs it in the caller's own namespace.
    #[track_caller]
    pub fn run(&self) -> Output {
        self.start().wait()
    }

    #[track_caller]
    pub fn spawn_in(&self, netns: &Netns) -> Running {
        netns.enter(|| self.start())
    }

    #[track_caller]
    fn start(&self) -> Running {
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.line()));
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        let bytes = self.stdin.clone();
        // A program that ends without reading all of its input is no failure.
        std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        Running {
            line: self.line(),
            limit: scaled(self.limit),
            started: Instant::now(),
            stdout: collect(child.stdout.take().expect("stdout is a pipe")),
            stderr: collect(child.stderr.take().expect("stderr is a pipe")),
            child: Some(child),
        }
    }
}

/// A program that runs. Dropped without a `wait`, it is killed.
#[derive(Debug)]
pub struct Running {
    line: String,
    limit: Duration,
    started: Instant,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    child: Option<Child>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends a signal to the program alone, not to its group: what it has started must look after itself.
    pub fn signal(&self, signal: Signal) {
        if self.child.is_some() {
            // The program may have ended already; it is not reaped yet, so the number is still its own.
            let _ = kill(Pid::from_raw(self.pid().cast_signed()), signal);
        }
    }

    /// Waits for its end; past its time limit it is killed and the test fails with what it had printed.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let mut child = self.child.take().expect("waited for once");
        let end = self.started + self.limit;
        let status = loop {
            match child.try_wait().expect("wait for a child") {
                Some(status) => break Some(status),
                None if Instant::now() >= end => break None,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let elapsed = self.started.elapsed();
        if status.is_none() {
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
        }
        let (stdout, out_closed) = self.drain(&self.stdout);
        let (stderr, err_closed) = self.drain(&self.stderr);
        let line = &self.line;
        let Some(status) = status else {
            panic!(
                "`{line}` did not end within {:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}",
                self.limit
            );
        };
        assert!(
            out_closed && err_closed,
            "`{line}` has ended ({status}), but something it left behind still holds its output\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        );
        Output {
            line: self.line.clone(),
            status,
            stdout,
            stderr,
            elapsed,
        }
    }

    fn drain(&self, chunks: &Receiver<Vec<u8>>) -> (String, bool) {
        let end = Instant::now() + scaled(DRAIN_LIMIT);
        let mut all = Vec::new();
        let closed = loop {
            match chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(chunk) => all.extend(chunk),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break true,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => break false,
            }
        };
        (String::from_utf8_lossy(&all).into_owned(), closed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How a program ended and what it said.
#[derive(Clone, Debug)]
pub struct Output {
    pub line: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Output {
    /// The exit code; 128 and the signal where one ended it, as a shell has it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Fails the test unless it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert!(self.code() == code, "expected exit code {code}, got {self}");
        self
    }

    /// Standard output without the white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// The one line that a command prints on standard output.
    #[track_caller]
    pub fn says(self, expected: &str) -> Output {
        assert!(
            self.text() == expected,
            "expected on stdout: {expected}\ngot {self}"
        );
        self
    }

    /// Fails the test unless standard error holds this text.
    #[track_caller]
    pub fn complains(self, text: &str) -> Output {
        assert!(
            self.stderr.contains(text),
            "expected on stderr: {text}\ngot {self}"
        );
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}`: {} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.status, self.elapsed, self.stdout, self.stderr
        )
    }
}

fn collect(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if send.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receive
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
