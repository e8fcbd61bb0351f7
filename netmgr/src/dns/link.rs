//! One question at one upstream server: its socket, by UDP or TCP.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use hickory_proto::op::ResponseCode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{self, Transport};

/// Before a message by TCP stands its length (RFC 1035, 4.2.2).
pub(super) const PREFIX: usize = 2;

/// The socket to the server that is being asked.
pub(super) enum Link {
    Udp(OwnedFd),
    Tcp {
        socket: OwnedFd,
        sent: usize,
        received: Vec<u8>,
    },
}

/// What came of looking at a server's socket.
pub(super) enum Outcome {
    Wait,
    Answer(Vec<u8>, ResponseCode),
    /// It will not answer.
    Failed,
}

pub(super) fn connect(server: SocketAddr, transport: Transport) -> Result<OwnedFd, Errno> {
    let family = match server {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match transport {
        Transport::Udp => SocketType::DGRAM,
        Transport::Tcp => SocketType::STREAM,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

pub(super) fn send_datagram(socket: &OwnedFd, question: &[u8]) -> Result<(), Errno> {
    match rustix::net::send(socket, &question[PREFIX..], SendFlags::NOSIGNAL) {
        // Without room it is lost, as datagrams may be.
        Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The socket is connected: only its server's datagrams come here. What is no answer to the question is passed over.
pub(super) fn read_datagrams(socket: &OwnedFd, question: &[u8], scratch: &mut [u8]) -> Outcome {
    loop {
        match rustix::net::recv(socket, &mut *scratch, RecvFlags::empty()) {
            Ok((length, _)) => {
                let answer = &scratch[..length];
                if let Some(code) = message::matches(&question[PREFIX..], answer) {
                    return Outcome::Answer(answer.to_vec(), code);
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Outcome::Wait,
            Err(_) => return Outcome::Failed,
        }
    }
}

/// Writes what is left of the question and reads what is there of the answer.
pub(super) fn exchange(
    socket: &OwnedFd,
    question: &[u8],
    sent: &mut usize,
    received: &mut Vec<u8>,
    scratch: &mut [u8],
) -> Outcome {
    while *sent < question.len() {
        match rustix::net::send(socket, &question[*sent..], SendFlags::NOSIGNAL) {
            Ok(length) => *sent += length,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Outcome::Wait,
            Err(_) => return Outcome::Failed,
        }
    }
    loop {
        match rustix::net::recv(socket, &mut *scratch, RecvFlags::empty()) {
            Ok((0, _)) => return Outcome::Failed,
            Ok((length, _)) => received.extend_from_slice(&scratch[..length]),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Outcome::Wait,
            Err(_) => return Outcome::Failed,
        }
        let Some((length, rest)) = received.split_first_chunk::<PREFIX>() else {
            continue;
        };
        if let Some(answer) = rest.get(..u16::from_be_bytes(*length).into()) {
            return match message::matches(&question[PREFIX..], answer) {
                Some(code) => Outcome::Answer(answer.to_vec(), code),
                None => Outcome::Failed,
            };
        }
    }
}
