//! The loopback proxy: relays host ports to containers for local clients, whose packets to 127/8 no DNAT may touch.
//!
//! Runs on one thread of a container's monitor and serves all of its ports.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::model::Protocol;

/// A bound (and, for TCP, listening) socket on the host and where its traffic goes.
#[derive(Debug)]
pub struct Forward {
    pub protocol: Protocol,
    pub listener: OwnedFd,
    pub target: SocketAddr,
}

/// Serves until `stop` becomes readable or its other end is closed. Never returns early: a failing connection is
/// dropped and the others go on.
pub fn serve(forwards: Vec<Forward>, stop: OwnedFd) {
    let _ = (forwards, stop);
    todo!()
}
