//! The pause of a container before its policy starts it again. The monitor listens meanwhile: who calls the restart off
//! changes the row, and then connects.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with};

use super::launch::{self, Launch};
use super::relay::timespec;
use crate::engine::{self, finish};
use crate::process;
use crate::restart;
use crate::wire;

/// Waits, and starts the container with a monitor of its own; this one then has nothing left to do.
pub(super) fn wait_and_start(launch: &Launch, ran: Duration) -> i32 {
    let id = &launch.container.id;
    let pause = restart::pause(launch.paused, ran);
    match wait(launch, pause) {
        Ok(true) => {}
        // Called off: the container, and with it this directory, is another's affair.
        Ok(false) => return 0,
        // It goes without listening; the row decides in any case.
        Err(e) => eprintln!("cannot listen while waiting: {e}"),
    }
    // This process has raised it; the container gets what the user's command had.
    process::set_open_files(launch.open_files);
    match engine::start_again(launch.settings(), id, pause) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("cannot start the container again: {e}");
            1
        }
    }
}

/// False if the restart has been called off.
fn wait(launch: &Launch, pause: Duration) -> io::Result<bool> {
    let until = Instant::now() + pause;
    let settings = launch.settings();
    let id = &launch.container.id;
    let waits = || engine::is_waiting(&settings, id).map_err(io::Error::other);
    let directory = launch::directory(&launch.run_root, id);
    std::fs::create_dir_all(&directory)?;
    let socket = directory.join(finish::SOCKET);
    let _ = std::fs::remove_file(&socket);
    let listener = wire::listen(&socket)?;
    // They wait for the end, or for the start: both show when this process goes.
    let mut clients: Vec<OwnedFd> = Vec::new();
    // After listening: who has changed the row before may have found nobody to tell.
    while waits()? {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(true);
        }
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => clients.extend(accept_with(&listener, SocketFlags::CLOEXEC)),
            Err(e) => return Err(e.into()),
        }
    }
    drop(listener);
    let _ = std::fs::remove_file(&socket);
    let _ = std::fs::remove_dir(&directory);
    Ok(false)
}
