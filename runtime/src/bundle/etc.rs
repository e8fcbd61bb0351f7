//! The files that are bound over the image's own: /etc/hosts and /etc/resolv.conf. All but `host_resolv_conf` is pure.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// What Docker writes into every container's /etc/hosts.
const HOSTS_HEAD: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// /etc/hosts: loopback, then `--add-host` as (name, address), then the container itself, at each of its addresses.
pub fn hosts_file(hostname: &str, addresses: &[IpAddr], extra: &[(String, String)]) -> String {
    let mut text = HOSTS_HEAD.to_owned();
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    hosts_with(text, hostname, addresses)
}

/// The file of a container that has come to further addresses. What else is in it, the container may have written.
pub fn hosts_with(mut text: String, hostname: &str, addresses: &[IpAddr]) -> String {
    if !addresses.is_empty() && !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for address in addresses {
        text.push_str(&own_line(hostname, *address));
    }
    text
}

/// The file without the container's own lines of addresses that it has no more.
pub fn hosts_without(text: &str, hostname: &str, addresses: &[IpAddr]) -> String {
    let gone: Vec<String> = addresses
        .iter()
        .map(|address| own_line(hostname, *address))
        .collect();
    text.split_inclusive('\n')
        .filter(|line| !gone.iter().any(|own| own.trim_end() == line.trim_end()))
        .collect()
}

/// The file without any of the container's own lines, whatever their addresses.
pub fn hosts_of_others(text: &str, hostname: &str) -> String {
    let is_own = |line: &str| {
        let address = line.split('\t').next().and_then(|word| word.parse().ok());
        address.is_some_and(|address| line.trim_end() == own_line(hostname, address).trim_end())
    };
    text.split_inclusive('\n')
        .filter(|line| !is_own(line))
        .collect()
}

fn own_line(hostname: &str, address: IpAddr) -> String {
    // `web.example.com` is also called `web`.
    let alias = match hostname.split_once('.') {
        Some((first, _)) if !first.is_empty() => format!(" {first}"),
        _ => String::new(),
    };
    format!("{address}\t{hostname}{alias}\n")
}

/// The host's own file, and `--add-host` below it: what a container in the host's network sees.
pub fn extended_hosts(mut text: String, extra: &[(String, String)]) -> String {
    if !extra.is_empty() && !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// Who answers the container's DNS queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// The host's own network namespace: everything that the host's file names can be reached.
    SameAsHost,
    /// A namespace of its own on the default network: the host's servers, but for those on its loopback.
    HostsServers,
    /// A user network: the responder at this address in the container, which knows the other containers.
    Own(Ipv4Addr),
}

/// What Docker falls back on when the host names no server that a container can reach.
const FALLBACK: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// `--dns`, `--dns-search`, `--dns-option`: where they are given they replace the host's. A search list of `.` is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub servers: &'a [String],
    pub search: &'a [String],
    pub options: &'a [String],
}

/// /etc/resolv.conf.
///
/// IPv6 servers of the host are left out on the default network, which is IPv4 only; elsewhere a responder of ours asks
/// them, from the host's side.
pub fn resolv_conf(host_text: &str, asked: Asked<'_>, resolver: Resolver) -> String {
    let (dns, search) = (asked.servers, asked.search);
    if resolver == Resolver::SameAsHost
        && dns.is_empty()
        && search.is_empty()
        && asked.options.is_empty()
    {
        return host_text.to_owned();
    }
    let host = Parsed::of(host_text);
    let mut servers: Vec<String> = if let Resolver::Own(address) = resolver {
        vec![address.to_string()]
    } else if dns.is_empty() {
        let reachable = |server: &&&str| resolver == Resolver::SameAsHost || is_reachable(server);
        host.servers
            .iter()
            .filter(reachable)
            .map(|s| (*s).to_owned())
            .collect()
    } else {
        dns.to_vec()
    };
    if servers.is_empty() {
        servers = FALLBACK.map(str::to_owned).to_vec();
    }
    let search = if search.is_empty() {
        host.search.join(" ")
    } else {
        search.join(" ")
    };
    let mut options = match asked.options.is_empty() {
        true => host.options,
        false => asked.options.iter().map(String::as_str).collect(),
    };
    if matches!(resolver, Resolver::Own(_)) && !options.iter().any(|o| o.starts_with("ndots:")) {
        // A container's bare name is looked up as it is, before the search list is tried.
        options.push("ndots:0");
    }
    let mut text = String::new();
    if !search.is_empty() && search != "." {
        text.push_str(&format!("search {search}\n"));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

fn is_reachable(server: &str) -> bool {
    server
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_ipv4() && !address.is_loopback())
}

/// resolv.conf(5), what of it we pass on.
#[derive(Default)]
struct Parsed<'a> {
    servers: Vec<&'a str>,
    /// The last `search` or `domain` counts.
    search: Vec<&'a str>,
    options: Vec<&'a str>,
}

impl<'a> Parsed<'a> {
    fn of(text: &'a str) -> Parsed<'a> {
        let mut parsed = Parsed::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => parsed.servers.extend(words.next()),
                Some("search" | "domain") => parsed.search = words.collect(),
                Some("options") => parsed.options.extend(words),
                _ => {}
            }
        }
        parsed
    }
}

/// systemd-resolved's stub, which listens on the host's loopback, and the file with the servers behind it.
const STUB: &str = "127.0.0.53";
const BEHIND_THE_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// The host's resolv.conf as far as a container can use it. No file is an empty one.
pub fn host_resolv_conf(resolver: Resolver) -> io::Result<String> {
    let text = read(Path::new("/etc/resolv.conf"))?;
    if resolver == Resolver::SameAsHost || Parsed::of(&text).servers != [STUB] {
        return Ok(text);
    }
    let behind = read(Path::new(BEHIND_THE_STUB))?;
    Ok(if behind.is_empty() { text } else { behind })
}

fn read(path: &Path) -> io::Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, dns: &[&str], search: &[&str], resolver: Resolver, expect: &str) {
        let own =
            |words: &[&str]| -> Vec<String> { words.iter().map(|w| (*w).to_owned()).collect() };
        let (servers, search) = (own(dns), own(search));
        let asked = Asked {
            servers: &servers,
            search: &search,
            options: &[],
        };
        assert_eq!(
            resolv_conf(host, asked, resolver),
            expect,
            "{host:?} {dns:?} {search:?} {resolver:?}"
        );
    }

    use Resolver::{HostsServers, Own, SameAsHost};

    #[test]
    fn hosts_file_is_dockers() {
        let extra = [("db".to_owned(), "10.0.0.9".to_owned())];
        let address = [IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2))];
        let text = hosts_file("web", &address, &extra);
        let tail = text.strip_prefix(HOSTS_HEAD).unwrap();
        assert_eq!(tail, "10.0.0.9\tdb\n172.17.0.2\tweb\n");
        assert_eq!(hosts_file("web", &[], &[]), HOSTS_HEAD);
        let long = hosts_file("web.example.com", &address, &[]);
        assert!(
            long.ends_with("\n172.17.0.2\tweb.example.com web\n"),
            "{long}"
        );
        assert_eq!(
            extended_hosts("::1 x".into(), &extra),
            "::1 x\n10.0.0.9\tdb\n"
        );
    }

    #[test]
    fn hosts_follow_the_addresses_and_keep_what_the_container_wrote() {
        let first = [IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2))];
        let second: [IpAddr; 2] = [[10, 5, 0, 2].into(), "fd00:5::2".parse().unwrap()];
        let mut text = hosts_file("web", &first, &[]);
        assert_eq!(hosts_of_others(&text, "web"), HOSTS_HEAD);
        assert_eq!(hosts_of_others(&text, "we"), text);
        text.push_str("172.17.0.2\tmine\n1.2.3.4 also-mine");
        let both = hosts_with(text, "web", &second);
        assert!(
            both.ends_with("also-mine\n10.5.0.2\tweb\nfd00:5::2\tweb\n"),
            "{both}"
        );
        let left = hosts_without(&both, "web", &first);
        let tail = left.strip_prefix(HOSTS_HEAD).unwrap();
        assert_eq!(
            tail,
            "172.17.0.2\tmine\n1.2.3.4 also-mine\n10.5.0.2\tweb\nfd00:5::2\tweb\n"
        );
    }

    #[test]
    fn options_that_are_asked_for_replace_the_hosts() {
        let options = ["timeout:2".to_owned()];
        let asked = Asked {
            options: &options,
            ..Asked::default()
        };
        let host = "nameserver 10.0.0.1\noptions ndots:2 rotate\n";
        assert_eq!(
            resolv_conf(host, asked, HostsServers),
            "nameserver 10.0.0.1\noptions timeout:2\n"
        );
    }

    #[test]
    fn servers_that_a_container_cannot_reach_are_left_out() {
        let host = "# by hand\nsearch a.example b.example\nnameserver 127.0.0.1\nnameserver ::1\n\
                    nameserver 10.0.0.1 # first\nnameserver fe80::1%eth0\noptions timeout:1\n";
        check(
            host,
            &[],
            &[],
            HostsServers,
            "search a.example b.example\nnameserver 10.0.0.1\noptions timeout:1\n",
        );
        check(host, &[], &[], SameAsHost, host);
    }

    #[test]
    fn public_servers_stand_in_when_none_is_left() {
        let expect = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        check("", &[], &[], HostsServers, expect);
        check("nameserver 127.0.0.53\n", &[], &[], HostsServers, expect);
    }

    #[test]
    fn options_of_the_request_replace_the_hosts() {
        let host = "domain old.example\nnameserver 10.0.0.1\n";
        check(
            host,
            &["1.1.1.1", "fd00::1"],
            &["new.example"],
            HostsServers,
            "search new.example\nnameserver 1.1.1.1\nnameserver fd00::1\n",
        );
        check(host, &[], &["."], HostsServers, "nameserver 10.0.0.1\n");
        check(
            host,
            &["127.0.0.1"],
            &[],
            SameAsHost,
            "search old.example\nnameserver 127.0.0.1\n",
        );
    }

    #[test]
    fn a_user_network_asks_its_own_responder_alone() {
        let own = Own(Ipv4Addr::new(127, 0, 0, 11));
        check(
            "search x\nnameserver 10.0.0.1\n",
            &[],
            &[],
            own,
            "search x\nnameserver 127.0.0.11\noptions ndots:0\n",
        );
        // Servers of the request are where the responder forwards to.
        check(
            "options ndots:2\n",
            &["1.1.1.1"],
            &[],
            own,
            "nameserver 127.0.0.11\noptions ndots:2\n",
        );
    }
}
