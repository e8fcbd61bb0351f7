//! The servers that are asked for what is not in the zone: those of `--dns`, or the host's own.
//!
//! Questions leave from the host's side, so a server on the host's loopback is as good as any: systemd-resolved's stub
//! is used as it is, and with it the host's split DNS.

use std::fs::{self, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const PORT: u16 = 53;

/// `resolv.conf(5)`, MAXNS; Docker asks no more either.
const MOST: usize = 3;

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// In this order (`--dns`).
    Fixed(Vec<SocketAddr>),
    /// The servers of this file, `/etc/resolv.conf`, as they are when a question comes.
    Host(PathBuf),
}

/// One server as `--dns` and resolv.conf write it: `10.0.0.1`, `fd00::1`, `fe80::1%eth0`. An interface must exist.
pub fn parse_server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, PORT));
    }
    let (address, scope) = text.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let scope = match scope.parse() {
        Ok(index) => index,
        Err(_) => nix::net::if_::if_nametoindex(scope).ok()?,
    };
    Some(SocketAddrV6::new(address, PORT, 0, scope).into())
}

/// The servers of a resolv.conf. A file that names none means the host itself (`resolv.conf(5)`, nameserver).
fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => parse_server(words.next()?),
            _ => None,
        }
    };
    let mut servers: Vec<SocketAddr> = text.lines().filter_map(server).take(MOST).collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    servers
}

/// The servers as they are now.
pub(super) struct Current {
    upstreams: Upstreams,
    read_from: Option<Stamp>,
    servers: Rc<[SocketAddr]>,
}

/// By which a file that was written or replaced is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            changed: (meta.ctime(), meta.ctime_nsec()),
            size: meta.size(),
        }
    }
}

impl Current {
    pub(super) fn new(upstreams: Upstreams) -> Current {
        let servers = match &upstreams {
            Upstreams::Fixed(servers) => servers.iter().take(MOST).copied().collect(),
            Upstreams::Host(_) => Rc::default(),
        };
        Current {
            upstreams,
            read_from: None,
            servers,
        }
    }

    /// In the order in which they are to be asked.
    pub(super) fn servers(&mut self) -> Rc<[SocketAddr]> {
        if let Upstreams::Host(path) = &self.upstreams {
            // Taken before the file is read: a change in between is seen the next time.
            let stamp = fs::metadata(path).ok().map(|meta| Stamp::of(&meta));
            if stamp.is_none() || stamp != self.read_from {
                self.servers = match read(path) {
                    Ok(text) => parse(&text).into(),
                    Err(error) => {
                        tracing::warn!(%error, path = %path.display(), "the host's DNS servers are not known");
                        Rc::default()
                    }
                };
                self.read_from = stamp;
            }
        }
        self.servers.clone()
    }
}

/// No file is an empty one.
fn read(path: &Path) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        let servers: Vec<String> = parse(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, expect, "{text:?}");
    }

    #[test]
    fn first_three_servers_count_and_none_is_this_host() {
        check("", &["127.0.0.1:53"]);
        check("search a\n# nameserver 10.0.0.1\n", &["127.0.0.1:53"]);
        check("nameserver 127.0.0.53\noptions edns0\n", &["127.0.0.53:53"]);
        check(
            "nameserver\nnameserver x\n nameserver\t10.0.0.1 # first\nnameserver fd00::1\nnameserver fe80::1%7\n\
             nameserver 10.0.0.4\n",
            &["10.0.0.1:53", "[fd00::1]:53", "[fe80::1%7]:53"],
        );
    }

    #[test]
    fn scope_may_be_an_interface() {
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        let expect = SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, lo);
        assert_eq!(parse_server("fe80::1%lo"), Some(expect.into()));
        assert_eq!(parse_server("fe80::1%no-such-link"), None);
        assert_eq!(parse_server("10.0.0.1%lo"), None);
    }

    #[test]
    fn changed_or_replaced_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut current = Current::new(Upstreams::Host(path.clone()));
        let mut check = |expect: &str| {
            assert_eq!(&*current.servers(), [expect.parse().unwrap()]);
        };
        check("127.0.0.1:53");
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        check("10.0.0.1:53");
        check("10.0.0.1:53");
        // Of the same length and in the same moment.
        let new = dir.path().join("new");
        fs::write(&new, "nameserver 10.0.0.2\n").unwrap();
        fs::rename(&new, &path).unwrap();
        check("10.0.0.2:53");
        fs::remove_file(&path).unwrap();
        check("127.0.0.1:53");
    }
}
