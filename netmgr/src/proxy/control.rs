//! Orders to a proxy that serves: from another thread, one after the other, each carried out when the call returns.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use super::forward::{Forward, Targets};

pub(super) enum Order {
    Add(Vec<Forward>),
    ReplaceTargets(Targets),
    RemoveAll,
    Stop,
}

/// Steers a [`super::Proxy`] that another thread serves. Dropped, it stops the proxy.
///
/// Each call returns when the proxy has carried it out, or has ended: call only when [`super::Proxy::serve`] runs or is
/// about to.
#[derive(Debug)]
pub struct Control {
    orders: Sender<(Order, Sender<()>)>,
    wake: PipeWriter,
}

impl Control {
    /// Relays further ports.
    pub fn add(&self, forwards: Vec<Forward>) {
        self.order(Order::Add(forwards));
    }

    /// Leads all ports to another endpoint of the container. Connections that are established go on as they are, new
    /// ones and those that still wait for the old endpoint's answer go to the new one, and so does every further datagram.
    pub fn replace_targets(&self, targets: Targets) {
        self.order(Order::ReplaceTargets(targets));
    }

    /// Lets go of all ports and ends their connections; [`Control::add`] may bring others.
    pub fn remove_all(&self) {
        self.order(Order::RemoveAll);
    }

    /// The same as to drop it.
    pub fn stop(self) {}

    fn order(&self, order: Order) {
        let (done, wait) = mpsc::channel();
        if self.send(order, done) {
            // Without an answer the proxy has ended, and the order with it.
            let _ = wait.recv();
        }
    }

    fn send(&self, order: Order, done: Sender<()>) -> bool {
        self.orders.send((order, done)).is_ok() && (&self.wake).write_all(&[0]).is_ok()
    }
}

impl Drop for Control {
    /// Said, and not only shown by the closed pipe: a child of this process that has not reached its exec yet holds the
    /// pipe open.
    fn drop(&mut self) {
        self.send(Order::Stop, mpsc::channel().0);
    }
}

/// The proxy's end.
pub(super) struct Orders {
    orders: Receiver<(Order, Sender<()>)>,
    wake: PipeReader,
}

pub(super) fn channel() -> io::Result<(Control, Orders)> {
    let (wait, wake) = io::pipe()?;
    rustix::io::ioctl_fionbio(&wait, true)?;
    let (send, receive) = mpsc::channel();
    let control = Control { orders: send, wake };
    let orders = Orders {
        orders: receive,
        wake: wait,
    };
    Ok((control, orders))
}

impl Orders {
    /// The next order, with whom to tell when it is carried out; `None` when there is none now.
    pub(super) fn next(&self) -> Option<(Order, Sender<()>)> {
        match self.orders.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some((Order::Stop, mpsc::channel().0)),
        }
    }

    /// Before the orders are taken: an order that comes in between wakes again.
    pub(super) fn drain(&self) {
        let _ = (&self.wake).read(&mut [0; 64]);
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
