//! SIGINT and SIGTERM while something long runs that can be ended in good order: the first asks it to end, a second kills.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;

use image::Interrupt;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::failure::{self, Failure};

/// What has not ended by then waits for something that nothing can cut short, a name server perhaps.
const PATIENCE_MS: u16 = 30_000;

/// From when this is made until it is dropped, the two signals go to `interrupt`. To be made before threads are.
pub struct Interruptible {
    interrupt: Interrupt,
    /// The signal that came; 0: none.
    signal: Arc<AtomicI32>,
    before: SigSet,
    thread: Option<JoinHandle<()>>,
    /// Closed to end the thread.
    end: Option<OwnedFd>,
}

impl Interruptible {
    pub fn begin() -> Result<Interruptible, Failure> {
        let cannot = |error: nix::Error| Failure::Own(anyhow::anyhow!("catch signals: {error}"));
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        let before = set
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(cannot)?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(cannot)?;
        let (ended, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Failure::Own(error.into()))?;
        let (interrupt, signal) = (Interrupt::default(), Arc::new(AtomicI32::new(0)));
        let (asked, came) = (interrupt.clone(), signal.clone());
        let thread = std::thread::spawn(move || watch(&signals, &ended, &asked, &came, set));
        Ok(Interruptible {
            interrupt,
            signal,
            before,
            thread: Some(thread),
            end: Some(end),
        })
    }

    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// The failure of what was interrupted, with a shell's exit code for the signal.
    pub fn failure(&self, error: runtime::Error) -> Failure {
        match self.signal.load(Ordering::Relaxed) {
            0 => error.into(),
            signal => Failure::Plain {
                text: format!("coracle: {}", failure::chain(&error)),
                code: 128 + signal,
            },
        }
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic.
            let _ = thread.join();
        }
        // What is pending now has its usual effect.
        let _ = self.before.thread_set_mask();
    }
}

fn watch(signals: &SignalFd, ended: &OwnedFd, asked: &Interrupt, came: &AtomicI32, set: SigSet) {
    let mut first = None;
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        let patience = match first {
            None => PollTimeout::NONE,
            Some(_) => PollTimeout::from(PATIENCE_MS),
        };
        let ready = poll(&mut fds, patience);
        if fds[1].revents().is_some_and(|events| !events.is_empty()) {
            return;
        }
        let next = match (ready, signals.read_signal()) {
            (Ok(0), _) => first,
            (_, Ok(Some(info))) => Signal::try_from(info.ssi_signo as i32).ok(),
            _ => continue,
        };
        let Some(signal) = next else { continue };
        if first.is_some() {
            // As if it had never been caught: a shell must see what killed us.
            let _ = set.thread_unblock();
            let _ = raise(signal);
        }
        first = Some(signal);
        came.store(signal as i32, Ordering::Relaxed);
        asked.request();
    }
}
