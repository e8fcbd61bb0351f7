//! What can fail between this crate and the kernel, by operation and object.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::ErrorKind;

/// A failed operation on the kernel or on one of its commands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket")]
    OpenNetlink { source: io::Error },
    #[error("cannot make a network namespace")]
    CreateNetns { source: io::Error },
    #[error("cannot set lo up in the container's network namespace")]
    LoopbackUp { source: io::Error },
    #[error("cannot listen for DNS queries on {address} in the container's network namespace")]
    ListenDns {
        address: std::net::SocketAddr,
        source: io::Error,
    },
    #[error("cannot enter a network namespace")]
    EnterNetns { source: io::Error },

    #[error("cannot create bridge {name}")]
    CreateBridge { name: String, source: io::Error },
    #[error("cannot give bridge {name} the address {address}")]
    AddressBridge {
        name: String,
        address: IpAddr,
        source: io::Error,
    },
    #[error(
        "interface {name} cannot have the address {address}, because IPv6 is switched off (net.ipv6.conf.*.disable_ipv6): switch it on, or use a network without --ipv6"
    )]
    Ipv6Off {
        name: String,
        address: Ipv6Addr,
        source: io::Error,
    },
    #[error("cannot remove interface {name}")]
    RemoveLink { name: String, source: io::Error },
    #[error("cannot find bridge {bridge} for container {container}")]
    FindBridge {
        bridge: String,
        container: String,
        source: io::Error,
    },
    #[error("cannot find the veth {name} of container {container}")]
    FindVeth {
        name: String,
        container: String,
        source: io::Error,
    },
    #[error("cannot create the veth {name} of container {container}")]
    CreateVeth {
        name: String,
        container: String,
        source: io::Error,
    },
    #[error("cannot {step} of container {container} (veth {name})")]
    ConfigureVeth {
        name: String,
        container: String,
        /// `set the address`, `set the default route` and so on.
        step: &'static str,
        source: io::Error,
    },
    #[error("cannot {action} the default route of interface {interface} over {gateway}")]
    DefaultRoute {
        /// `set` or `remove`.
        action: &'static str,
        interface: String,
        gateway: IpAddr,
        source: io::Error,
    },
    #[error("the network namespace of container {container} is not at hand")]
    NetnsUnknown { container: String },

    #[error("cannot list the host's {what}")]
    List {
        /// `interfaces`, `addresses`, `routes` or `connections`.
        what: &'static str,
        source: io::Error,
    },

    #[error("cannot delete a connection to {protocol} port {port} on {destination}")]
    ForgetConnection {
        protocol: &'static str,
        destination: IpAddr,
        port: u16,
        source: io::Error,
    },
    #[error("cannot list the sockets in {}", path.display())]
    ListSockets { path: PathBuf, source: io::Error },

    #[error("cannot read {}", path.display())]
    ReadSysctl { path: PathBuf, source: io::Error },
    #[error("cannot set {} to {value}", path.display())]
    WriteSysctl {
        path: PathBuf,
        value: &'static str,
        source: io::Error,
    },
    #[error("cannot reserve ports in {}", path.display())]
    ReservePorts { path: PathBuf, source: io::Error },
    #[error("cannot note the host's own settings in {}", path.display())]
    RememberHost { path: PathBuf, source: io::Error },
    #[error("cannot read the host's own settings back from {}", path.display())]
    RecallHost { path: PathBuf, source: io::Error },

    #[error(
        "{name} is neither in PATH nor in /usr/sbin or /sbin: install the package {}, or run with --iptables=false",
        if *name == "nft" { "nftables" } else { "iptables" }
    )]
    MissingCommand { name: &'static str },
    #[error("cannot run {}", path.display())]
    RunCommand { path: PathBuf, source: io::Error },
    /// `line` is the line of the input that the command complains about, where it names one.
    #[error("{name} failed ({status}){}: {stderr}", line.as_ref().map(|l| format!(" at `{l}`")).unwrap_or_default())]
    CommandFailed {
        name: &'static str,
        status: String,
        line: Option<String>,
        stderr: String,
    },

    /// Docker's own text, to the letter: it is part of the command line's contract, IPv6 without brackets included.
    #[error("Bind for {ip}:{port} failed: port is already allocated")]
    PortTaken { ip: IpAddr, port: u16 },
    #[error("cannot publish on {ip}: no interface of this host has that address")]
    AddressNotOnHost { ip: IpAddr },
    #[error("cannot hold port {port}/{protocol} on {ip}")]
    HoldPort {
        ip: IpAddr,
        port: u16,
        protocol: &'static str,
        source: io::Error,
    },
    #[error("ports {first} and the {count} after it go beyond 65535")]
    PortBeyondRange { first: u16, count: u16 },
    #[error("no run of {count} free {protocol} ports on this host")]
    NoFreePorts { protocol: &'static str, count: u16 },
    /// The last four words are Docker's.
    #[error("Bind for {ip}:{first}-{last} failed: all ports are allocated")]
    AllPortsTaken { ip: IpAddr, first: u16, last: u16 },
    #[error(
        "cannot publish {count} ports without a firewall: each needs a socket, and the limit of open files leaves room for {most}. Publish fewer ports, or use a firewall, which needs one socket for all"
    )]
    RunTooLong { count: u16, most: u64 },

    /// `cause` failed, and then so did part of taking back what had been done before it.
    #[error(
        "{cause}; and taking back what was done before it failed too: {}",
        join(undo)
    )]
    RollBack {
        #[source]
        cause: Box<Error>,
        undo: Vec<Error>,
    },
    /// Several independent steps of a tear-down failed; all the others were done.
    #[error("{}", join(.0))]
    Several(Vec<Error>),
}

impl Error {
    /// What sort of failure it is, for the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::PortTaken { .. } | Error::AllPortsTaken { .. } => ErrorKind::Conflict,
            Error::AddressNotOnHost { .. } | Error::PortBeyondRange { .. } => ErrorKind::Invalid,
            Error::NoFreePorts { .. } | Error::RunTooLong { .. } => ErrorKind::Exhausted,
            Error::Ipv6Off { .. } => ErrorKind::Invalid,
            Error::FindVeth { .. } => ErrorKind::NotFound,
            Error::RollBack { cause, .. } => cause.kind(),
            Error::CreateBridge { source, .. }
            | Error::CreateVeth { source, .. }
            | Error::HoldPort { source, .. } => kind_of(source),
            _ => ErrorKind::Internal,
        }
    }
}

/// `EXFULL` is a bridge's answer to its 1,024th port (`net/bridge/br_if.c`, `BR_MAX_PORTS`).
fn kind_of(source: &io::Error) -> ErrorKind {
    match Errno::from_io_error(source) {
        Some(Errno::EXIST) => ErrorKind::Conflict,
        Some(Errno::XFULL | Errno::MFILE | Errno::NFILE) => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    }
}

/// Each error with its own cause, as these have no chain of their own to be printed from.
fn join(errors: &[Error]) -> String {
    let one = |error: &Error| match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    errors.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_port_speaks_docker() {
        let v4 = Error::PortTaken {
            ip: "0.0.0.0".parse().unwrap(),
            port: 8080,
        };
        assert_eq!(
            v4.to_string(),
            "Bind for 0.0.0.0:8080 failed: port is already allocated"
        );
        assert_eq!(v4.kind(), ErrorKind::Conflict);
        let v6 = Error::PortTaken {
            ip: "::".parse().unwrap(),
            port: 80,
        };
        assert_eq!(
            v6.to_string(),
            "Bind for :::80 failed: port is already allocated"
        );
    }

    #[test]
    fn failed_roll_back_tells_both_causes_and_keeps_the_first_kind() {
        let cause = Error::CreateVeth {
            name: "veth1".into(),
            container: "c1".into(),
            source: Errno::XFULL.into(),
        };
        let undo = vec![Error::RemoveLink {
            name: "br1".into(),
            source: Errno::PERM.into(),
        }];
        let both = Error::RollBack {
            cause: Box::new(cause),
            undo,
        };
        assert_eq!(both.kind(), ErrorKind::Exhausted);
        let text = both.to_string();
        assert!(
            text.contains("veth1") && text.contains("br1"),
            "one cause is missing: {text}"
        );
    }
}
