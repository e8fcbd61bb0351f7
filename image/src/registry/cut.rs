//! Connections that can be cut: whoever waits for a registry looks up now and then whether anybody still wants the answer.

use std::io;
use std::time::Duration;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::interrupt::Interrupt;

/// How long a wait goes on after it has become pointless.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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
        }))
    }
}

#[derive(Debug)]
pub struct Cuttable<T> {
    inner: T,
    stop: Interrupt,
}

impl<T: Transport> Transport for Cuttable<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.inner.transmit_output(amount, timeout)
    }

    /// A read that has timed out has taken nothing from the connection, so it can be tried again.
    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let whole = *timeout.after;
        let mut waited = Duration::ZERO;
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
                other => return other,
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
