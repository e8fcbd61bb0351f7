//! The responder's sockets in the container's namespace, and the nat rules there that lead 127.0.0.11:53 to them.
//!
//! Port 53 itself stays free: a container may run a name server of its own, on any address. The rules are the
//! container's, not the host's; they go with its namespace.

use std::io::{self, Write};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::ADDRESS;
use crate::change::Netns;
use crate::kernel::{Error, commands, netns};
use crate::plan::Tool;

const PORT: u16 = 53;

const BACKLOG: i32 = 128;

/// For a thousand questions at once. The kernel takes it only while it is used.
const BURST: usize = 1 << 20;

/// Not the tag of the engine's own rules: an engine inside the container would take these for leftovers of its own.
const COMMENT: &str = "coracle-dns: queries go to the responder of this container";

/// The responder's sockets. They may be sent to another process.
#[derive(Debug)]
pub struct Listening {
    pub udp: OwnedFd,
    /// Listening.
    pub tcp: OwnedFd,
    pub reach: Reach,
}

/// How 127.0.0.11:53 leads to the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By nat rules: port 53 is the container's own.
    Redirected,
    /// They are bound to it, so the container cannot bind port 53 of every address.
    Bound,
}

/// Makes the sockets inside `netns`, whose `lo` must be up, and the rules with one call of `tool`. Without a tool, or
/// where it fails, the sockets are bound to 127.0.0.11:53 itself.
///
/// May be called again for the same namespace, after the process that had the sockets was killed.
pub fn listen(netns: &Netns, tool: Option<Tool>) -> Result<Listening, Error> {
    netns::run_in(netns, || {
        if let Some(tool) = tool {
            match redirected(tool) {
                Ok(listening) => return Ok(listening),
                Err(error) => {
                    tracing::warn!(%error, "no nat rules for DNS in the container: port 53 of 127.0.0.11 is bound");
                }
            }
        }
        let (udp, tcp) = sockets(PORT)?;
        Ok(Listening {
            udp,
            tcp,
            reach: Reach::Bound,
        })
    })?
}

fn redirected(tool: Tool) -> Result<Listening, Error> {
    let (udp, tcp) = sockets(0)?;
    let (udp_port, tcp_port) = (port(&udp)?, port(&tcp)?);
    match tool {
        Tool::Iptables | Tool::Ip6tables => commands::restore(&iptables(udp_port, tcp_port))?,
        Tool::Nft => run_nft(&nft(udp_port, tcp_port))?,
    }
    Ok(Listening {
        udp,
        tcp,
        reach: Reach::Redirected,
    })
}

/// Chains of our own, as Docker has them: sent once more they are emptied and filled anew, and a second jump to them
/// does nothing.
fn iptables(udp: u16, tcp: u16) -> String {
    let comment = format!("-m comment --comment \"{COMMENT}\"");
    let mut text = format!(
        "*nat\n:CORACLE_OUTPUT - [0:0]\n:CORACLE_POSTROUTING - [0:0]\n\
         -A OUTPUT -d {ADDRESS}/32 {comment} -j CORACLE_OUTPUT\n\
         -A POSTROUTING -s {ADDRESS}/32 {comment} -j CORACLE_POSTROUTING\n"
    );
    for (protocol, port) in [("udp", udp), ("tcp", tcp)] {
        // An answer finds its way back by conntrack; the second rule is for one that comes after its entry has gone.
        text += &format!(
            "-A CORACLE_OUTPUT -d {ADDRESS}/32 -p {protocol} --dport {PORT} {comment} -j DNAT --to-destination {ADDRESS}:{port}\n\
             -A CORACLE_POSTROUTING -s {ADDRESS}/32 -p {protocol} --sport {port} {comment} -j SNAT --to-source :{PORT}\n"
        );
    }
    text + "COMMIT\n"
}

/// Emptied before it is filled, in one transaction: so it replaces what was there. Not deleted, which would cost a grace
/// period of the kernel even where there was none.
fn nft(udp: u16, tcp: u16) -> String {
    const TABLE: &str = "table ip coracle_dns";
    let mut output = String::new();
    let mut postrouting = String::new();
    for (protocol, port) in [("udp", udp), ("tcp", tcp)] {
        output += &format!(
            "ip daddr {ADDRESS} {protocol} dport {PORT} dnat to {ADDRESS}:{port} comment \"{COMMENT}\"\n"
        );
        postrouting += &format!(
            "ip saddr {ADDRESS} {protocol} sport {port} snat to {ADDRESS}:{PORT} comment \"{COMMENT}\"\n"
        );
    }
    format!(
        "add {TABLE}\nflush {TABLE}\n{TABLE} {{\n\
         chain output {{\ntype nat hook output priority -100\n{output}}}\n\
         chain postrouting {{\ntype nat hook postrouting priority 100\n{postrouting}}}\n}}\n"
    )
}

fn run_nft(batch: &str) -> Result<(), Error> {
    const NAME: &str = "nft";
    let path = commands::path(NAME).ok_or(Error::MissingCommand { name: NAME })?;
    let failed = |source| Error::RunCommand {
        path: path.clone(),
        source,
    };
    // The batch is far smaller than a pipe: writing it waits for nobody.
    let (input, mut feed) = io::pipe().map_err(failed)?;
    feed.write_all(batch.as_bytes()).map_err(failed)?;
    drop(feed);
    let output = Command::new(&path)
        .args(["-f", "-"])
        .env("LC_ALL", "C")
        .stdin(input)
        .stdout(Stdio::null())
        .output()
        .map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::CommandFailed {
        name: NAME,
        status: output.status.to_string(),
        line: None,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// UDP and TCP; for the port 0, one that is free, each.
fn sockets(port: u16) -> Result<(OwnedFd, OwnedFd), Error> {
    let address = SocketAddrV4::new(ADDRESS, port);
    let failed = |errno: rustix::io::Errno| Error::ListenDns {
        address: address.into(),
        source: errno.into(),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let bound = |kind| {
        let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
        if kind == SocketType::STREAM {
            // Connections of a responder before this one may linger.
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        Ok(socket)
    };
    let udp = bound(SocketType::DGRAM).map_err(failed)?;
    let tcp = bound(SocketType::STREAM).map_err(failed)?;
    rustix::net::listen(&tcp, BACKLOG).map_err(failed)?;
    // The default has room for some 270 small datagrams. Best effort: it takes CAP_NET_ADMIN over the host.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&udp, BURST);
    Ok((udp, tcp))
}

fn port(socket: &OwnedFd) -> Result<u16, Error> {
    let unknown = |source: io::Error| Error::ListenDns {
        address: SocketAddrV4::new(ADDRESS, 0).into(),
        source,
    };
    let address = rustix::net::getsockname(socket).map_err(|errno| unknown(errno.into()))?;
    let address = SocketAddr::try_from(address).map_err(|errno| unknown(errno.into()))?;
    Ok(address.port())
}
