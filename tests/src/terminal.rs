//! A program on a terminal of its own, and the hands on the keyboard.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::wait::PATIENCE;
use crate::{Cmd, Host};

/// What the terminal says of itself at first: rows and columns.
pub const SIZE: (u16, u16) = (31, 97);

pub struct Terminal {
    master: File,
    seen: Receiver<Vec<u8>>,
    screen: String,
    child: Child,
}

impl Terminal {
    /// Runs a line of shell, with the program under test as `$CORACLE`.
    #[track_caller]
    pub fn run(host: &Host, line: &str) -> Terminal {
        let size = Winsize {
            ws_row: SIZE.0,
            ws_col: SIZE.1,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("a terminal");
        let coracle = host.command([] as [&str; 0]).line();
        let slave = || Stdio::from(pty.slave.try_clone().expect("the terminal"));
        let mut command = Command::new("setsid");
        command
            .args(["-c", "-w", "sh", "-c", &line.replace("$CORACLE", &coracle)])
            .env("HOME", host.folder())
            .stdin(slave())
            .stdout(slave())
            .stderr(slave());
        let child = host.netns.enter(|| command.spawn()).expect("setsid");
        let master = File::from(pty.master);
        let mut reader = master.try_clone().expect("the terminal");
        let (send, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: the last one who held the terminal has ended.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal {
            master,
            seen,
            screen: String::new(),
            child,
        }
    }

    #[track_caller]
    pub fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("type");
    }

    /// Waits until the screen shows this, and forgets what stands up to there.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.screen.find(text) {
                self.screen.drain(..at + text.len());
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(bytes) => self.screen += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("{text:?} was not shown: {:?}", self.screen),
            }
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        Cmd::new("stty")
            .args(["-F", &format!("/proc/{}/fd/0", self.child.id())])
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .run()
            .ok();
    }

    /// Lines are edited and keys shown: it is nobody's raw terminal.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(self.master.as_fd()).expect("the terminal's modes");
        modes
            .local_flags
            .contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
