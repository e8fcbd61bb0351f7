//! Connections that can be cut: whoever waits for a registry looks up now and then whether anybody still wants the answer, and whether
//! anything worth the wait comes.

use std::io;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::interrupt::Interrupt;

/// How long a wait goes on after it has become pointless.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A server that sends a byte now and then would hold us for ever: no wait for a single read is too long. So less than this in so
/// much waiting is as good as nothing. The slowest of modems had ten times as much.
const LEAST: usize = 6000;
const WINDOW: Duration = Duration::from_secs(60);

/// The last link of a chain of connectors.
#[derive(Debug)]
pub struct Cutter(pub Interrupt);

impl<In: Transport> Connector<In> for Cutter {
    type Out = Cuttable<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Cuttable<In>>, Error> {
        Ok(chained.map(|inner| Cuttable {
            inner,
            stop: self.0.clone(),
            flow: Flow::default(),
        }))
    }
}

#[derive(Debug)]
pub struct Cuttable<T> {
    inner: T,
    stop: Interrupt,
    flow: Flow,
}

/// What has come of one answer, and in how much waiting.
#[derive(Debug, Default)]
struct Flow {
    waited: Duration,
    came: usize,
}

impl Flow {
    /// After a wait; false if it is no use to go on. The wait for an answer's first byte has its own limit.
    fn goes_on(&mut self, waited: Duration, bytes: usize) -> bool {
        if self.came > 0 {
            self.waited += waited;
        }
        self.came += bytes;
        if self.waited < WINDOW {
            return true;
        }
        let enough = self.came >= LEAST;
        // Not 0, which would be an answer that has not begun.
        (self.waited, self.came) = (Duration::ZERO, 1);
        enough
    }
}

impl<T: Transport> Transport for Cuttable<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // What comes next answers this.
        self.flow = Flow::default();
        self.inner.transmit_output(amount, timeout)
    }

    /// A read that has timed out has taken nothing from the connection, so it can be tried again.
    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let whole = *timeout.after;
        let mut waited = Duration::ZERO;
        let (begun, before) = (Instant::now(), self.inner.buffers().input().len());
        loop {
            if self.stop.is_requested() {
                return Err(Error::Io(io::Error::other("nobody waits any more")));
            }
            let step = LOOK_EVERY.min(whole.saturating_sub(waited));
            let slice = NextTimeout {
                after: step.into(),
                per_read: None,
                ..timeout
            };
            match self.inner.await_input(slice) {
                Err(Error::Timeout(_)) if waited + step < whole => waited += step,
                Ok(more) => {
                    let after = self.inner.buffers().input().len();
                    if !self
                        .flow
                        .goes_on(begun.elapsed(), after.saturating_sub(before))
                    {
                        let why = format!("less than {LEAST} bytes came in a minute");
                        return Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, why)));
                    }
                    return Ok(more);
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_drips_is_given_up_and_a_slow_one_is_not() {
        let second = Duration::from_secs(1);
        let lasts = |first: Duration, bytes: usize| {
            let mut flow = Flow::default();
            flow.goes_on(first, 300);
            (0..600).all(|_| flow.goes_on(second, bytes))
        };
        assert!(!lasts(second, 1));
        assert!(!lasts(second, LEAST / 60 - 10));
        assert!(lasts(second, LEAST / 60 + 1));
        assert!(lasts(WINDOW * 10, LEAST), "a late answer is no slow one");
    }
}
