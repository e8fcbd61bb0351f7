//! `-p`: port specs as people write them, and Docker's words for what is wrong with them. Pure.

use std::net::IpAddr;

use netmgr::{PortRequest, Protocol};

/// Why a `-p` spec was refused. The texts are Docker's: people script against them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortSpecError {
    #[error("no port specified: {0}<empty>")]
    NoPort(String),
    #[error("invalid IP address: {0}")]
    Address(String),
    /// Brackets that do not enclose the address.
    #[error("invalid IP address {address}: address {address}:: {why}")]
    Brackets { address: String, why: &'static str },
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    #[error("invalid proto: {0}")]
    Protocol(String),
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges { container: String, host: String },
    /// Any free port of a range is asked for, and one of the range is none.
    #[error("invalid port range: {0}")]
    HostRange(String),
}

/// Parses `[[IP:][HOST]:]CONTAINER[/PROTOCOL]`, with ranges on both sides. A run of ephemeral ports comes back as one
/// request a port, because each gets a port of its own; every other spec is one request.
pub fn parse(spec: &str) -> Result<Vec<PortRequest>, PortSpecError> {
    let (address, host, container) = split(spec);
    let (container, protocol) = match container.split_once('/') {
        Some((port, name)) => (port, Some(name)),
        None => (container, None),
    };
    // What is complained about first is what Docker complains about first.
    let host_ip = parse_address(address)?;
    if container.is_empty() {
        return Err(PortSpecError::NoPort(spec.to_owned()));
    }
    let (first, last) = container_ports(container)?;
    let host_ports = match host {
        // Host port 0 means the same as none: any free port, as bind(2) has it.
        "" => (0, 0),
        text => range(text).ok_or_else(|| PortSpecError::HostPort(text.to_owned()))?,
    };
    let (low, high) = host_ports;
    if high != 0 && high - low != last - first && first != last {
        return Err(PortSpecError::Ranges {
            container: container.to_owned(),
            host: host.to_owned(),
        });
    }
    let protocol = parse_protocol(protocol.unwrap_or_default())?;
    let request = |host_port, container_port, count| PortRequest {
        protocol,
        host_ip,
        host_port,
        host_port_last: None,
        container_port,
        count,
    };
    let ephemeral = |port| request(None, port, 1);
    match host_ports {
        (0, 0) => Ok((first..=last).map(ephemeral).collect()),
        (0, high) if first == last => Err(PortSpecError::HostRange(format!("0-{high}"))),
        (0, high) => Ok(vec![ephemeral(first), request(Some(1), first + 1, high)]),
        // At most 65,535: neither range contains port 0.
        (low, high) if high - low == last - first => {
            Ok(vec![request(Some(low), first, high - low + 1)])
        }
        (low, high) => Ok(vec![PortRequest {
            host_port_last: Some(high),
            ..request(Some(low), first, 1)
        }]),
    }
}

fn container_ports(text: &str) -> Result<(u16, u16), PortSpecError> {
    range(text)
        .filter(|(first, _)| *first != 0)
        .ok_or_else(|| PortSpecError::ContainerPort(text.to_owned()))
}

/// Address, host port and container port, split at the last colons: an IPv6 address has colons of its own.
fn split(spec: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = spec.rsplit_once(':') else {
        return ("", "", spec);
    };
    match rest.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", rest, container),
    }
}

/// An IPv4 address in IPv6's form is that IPv4 address.
fn parse_address(text: &str) -> Result<Option<IpAddr>, PortSpecError> {
    let bare = match text.starts_with('[') {
        true => unbracket(text)?,
        false => text,
    };
    if bare.is_empty() {
        return Ok(None);
    }
    bare.parse()
        .map(|address: IpAddr| Some(address.to_canonical()))
        .map_err(|_| PortSpecError::Address(bare.to_owned()))
}

/// What is between the brackets; the reasons are those of Go's `net.SplitHostPort`, which Docker asks.
fn unbracket(text: &str) -> Result<&str, PortSpecError> {
    let wrong = |why| PortSpecError::Brackets {
        address: text.to_owned(),
        why,
    };
    let (inner, rest) = text[1..]
        .split_once(']')
        .ok_or_else(|| wrong("missing ']' in address"))?;
    match rest {
        "" if inner.contains('[') => Err(wrong("unexpected '[' in address")),
        "" => Ok(inner),
        _ if rest.starts_with(':') => Err(wrong("too many colons in address")),
        _ => Err(wrong("missing port in address")),
    }
}

fn parse_protocol(name: &str) -> Result<Protocol, PortSpecError> {
    match name.to_ascii_lowercase().as_str() {
        "" | "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(PortSpecError::Protocol(name.to_owned())),
    }
}

/// `N` or `N-M` with N <= M.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = port(first)?;
    let last = port(last)?;
    (first <= last).then_some((first, last))
}

/// Digits only: `str::parse` would take `+80`.
fn port(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(
        host_ip: Option<&str>,
        host_port: Option<u16>,
        container_port: u16,
        count: u16,
        protocol: Protocol,
    ) -> PortRequest {
        PortRequest {
            host_port_last: None,
            protocol,
            host_ip: host_ip.map(|text| text.parse().unwrap()),
            host_port,
            container_port,
            count,
        }
    }

    #[test]
    fn specs_are_read_as_docker_reads_them() {
        use Protocol::{Sctp, Tcp, Udp};
        let table = [
            ("8080:80", one(None, Some(8080), 80, 1, Tcp)),
            ("8080:80/tcp", one(None, Some(8080), 80, 1, Tcp)),
            ("8080:80/", one(None, Some(8080), 80, 1, Tcp)),
            ("8080:80/TCP", one(None, Some(8080), 80, 1, Tcp)),
            ("53:53/udp", one(None, Some(53), 53, 1, Udp)),
            ("1:1/sctp", one(None, Some(1), 1, 1, Sctp)),
            ("80", one(None, None, 80, 1, Tcp)),
            (":80", one(None, None, 80, 1, Tcp)),
            ("0:80", one(None, None, 80, 1, Tcp)),
            ("80/udp", one(None, None, 80, 1, Udp)),
            (
                "127.0.0.1:8080:80",
                one(Some("127.0.0.1"), Some(8080), 80, 1, Tcp),
            ),
            ("127.0.0.1::80", one(Some("127.0.0.1"), None, 80, 1, Tcp)),
            ("0.0.0.0:1:2", one(Some("0.0.0.0"), Some(1), 2, 1, Tcp)),
            ("[::1]:8080:80", one(Some("::1"), Some(8080), 80, 1, Tcp)),
            ("[::1]::80", one(Some("::1"), None, 80, 1, Tcp)),
            ("::1:8080:80", one(Some("::1"), Some(8080), 80, 1, Tcp)),
            ("8000-8010:9000-9010", one(None, Some(8000), 9000, 11, Tcp)),
            (
                "7000-7003:7000-7003/udp",
                one(None, Some(7000), 7000, 4, Udp),
            ),
            ("1-65535:1-65535", one(None, Some(1), 1, 65535, Tcp)),
            ("8000-8000:80", one(None, Some(8000), 80, 1, Tcp)),
            ("2000:2000/Tcp", one(None, Some(2000), 2000, 1, Tcp)),
            ("8080:80/UDP", one(None, Some(8080), 80, 1, Udp)),
            ("08080:080", one(None, Some(8080), 80, 1, Tcp)),
            ("0-0:80", one(None, None, 80, 1, Tcp)),
            (":8080:80", one(None, Some(8080), 80, 1, Tcp)),
            ("::80", one(None, None, 80, 1, Tcp)),
            ("[]:8080:80", one(None, Some(8080), 80, 1, Tcp)),
            ("[::]:8080:80", one(Some("::"), Some(8080), 80, 1, Tcp)),
            (
                "[127.0.0.1]:8080:80",
                one(Some("127.0.0.1"), Some(8080), 80, 1, Tcp),
            ),
            (
                "::ffff:127.0.0.1:8080:80",
                one(Some("127.0.0.1"), Some(8080), 80, 1, Tcp),
            ),
            ("65535:65535", one(None, Some(65535), 65535, 1, Tcp)),
            (
                "127.0.0.1:8000-8002:9000-9002/udp",
                one(Some("127.0.0.1"), Some(8000), 9000, 3, Udp),
            ),
            (
                "8000-8010:80",
                PortRequest {
                    host_port_last: Some(8010),
                    ..one(None, Some(8000), 80, 1, Tcp)
                },
            ),
            (
                "[::1]:8000-8010:80/sctp",
                PortRequest {
                    host_port_last: Some(8010),
                    ..one(Some("::1"), Some(8000), 80, 1, Sctp)
                },
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(parse(spec), Ok(vec![expected]), "{spec}");
        }
    }

    #[test]
    fn a_range_without_host_ports_is_one_ephemeral_port_each() {
        let requests = parse("127.0.0.1::80-82/udp").unwrap();
        let ports: Vec<u16> = requests.iter().map(|r| r.container_port).collect();
        assert_eq!(ports, [80, 81, 82]);
        assert!(
            requests
                .iter()
                .all(|r| r.host_port.is_none() && r.count == 1)
        );
    }

    #[test]
    fn of_a_range_from_zero_the_first_is_ephemeral() {
        let expected = [
            one(None, None, 80, 1, Protocol::Tcp),
            one(None, Some(1), 81, 5, Protocol::Tcp),
        ];
        assert_eq!(parse("0-5:80-85").unwrap(), expected);
    }

    #[test]
    fn bad_specs_are_refused_in_dockers_words() {
        let table = [
            ("99999:80", "invalid hostPort: 99999"),
            ("abc:80", "invalid hostPort: abc"),
            ("-1:80", "invalid hostPort: -1"),
            ("+1:80", "invalid hostPort: +1"),
            ("1-2-3:80", "invalid hostPort: 1-2-3"),
            ("80:99999", "invalid containerPort: 99999"),
            ("80:abc", "invalid containerPort: abc"),
            ("80:0", "invalid containerPort: 0"),
            ("99999", "invalid containerPort: 99999"),
            ("90-80:90-80", "invalid containerPort: 90-80"),
            ("80:80/foo", "invalid proto: foo"),
            ("80/tcp/udp", "invalid proto: tcp/udp"),
            ("", "no port specified: <empty>"),
            ("80:", "no port specified: 80:<empty>"),
            ("1.2.3:80:80", "invalid IP address: 1.2.3"),
            ("localhost:80:80", "invalid IP address: localhost"),
            (
                "[::1:80:80",
                "invalid IP address [::1: address [::1:: missing ']' in address",
            ),
            (
                "80-82:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 80-82",
            ),
            (
                "8000:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 8000",
            ),
            ("0-2:80", "invalid port range: 0-2"),
            ("/udp", "no port specified: /udp<empty>"),
            ("1.1.1.1:", "no port specified: 1.1.1.1:<empty>"),
            ("127.0.0.1:8080", "invalid hostPort: 127.0.0.1"),
            ("127.0.0.1:8080:80:80", "invalid IP address: 127.0.0.1:8080"),
            ("1:2:3:4", "invalid IP address: 1:2"),
            ("::8080:80", "invalid IP address: :"),
            ("80::80", "invalid IP address: 80"),
            ("256.1.1.1:80:80", "invalid IP address: 256.1.1.1"),
            ("[fe80::1%lo]:80:80", "invalid IP address: fe80::1%lo"),
            ("[1.2.3]:80:80", "invalid IP address: 1.2.3"),
            ("::1]:80:80", "invalid IP address: ::1]"),
            (
                "[::1]x:80:80",
                "invalid IP address [::1]x: address [::1]x:: missing port in address",
            ),
            (
                "[[::1]:80:80",
                "invalid IP address [[::1]: address [[::1]:: unexpected '[' in address",
            ),
            (
                "[::1]:9:80:80",
                "invalid IP address [::1]:9: address [::1]:9:: too many colons in address",
            ),
            (" 80", "invalid containerPort:  80"),
            ("8080 :80", "invalid hostPort: 8080 "),
            ("80-", "invalid containerPort: 80-"),
            ("8000-:80", "invalid hostPort: 8000-"),
            ("90-80:80", "invalid hostPort: 90-80"),
            ("65536:80", "invalid hostPort: 65536"),
            ("a/udp", "invalid containerPort: a"),
            ("foo/bar", "invalid containerPort: foo"),
            ("x:80/foo", "invalid hostPort: x"),
            ("x:80:", "invalid IP address: x"),
            ("1.2.3:80:80/foo", "invalid IP address: 1.2.3"),
            (
                "80:80-81/foo",
                "invalid ranges specified for container and host Ports: 80-81 and 80",
            ),
            ("80:/tcp", "no port specified: 80:/tcp<empty>"),
        ];
        for (spec, expected) in table {
            let error = parse(spec).expect_err(spec);
            assert_eq!(error.to_string(), expected, "{spec}");
        }
    }
}
