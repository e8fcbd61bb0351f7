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
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    #[error("invalid proto: {0}")]
    Protocol(String),
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges { container: String, host: String },
    /// Docker takes any free port of the range; the request has no field for that yet.
    #[error("a range of host ports for one container port is not built yet: {0}")]
    HostRange(String),
}

/// Parses `[[IP:][HOST]:]CONTAINER[/PROTOCOL]`, with ranges on both sides. A run of ephemeral ports comes back as one
/// request a port, because each gets a port of its own; every other spec is one request.
pub fn parse(spec: &str) -> Result<Vec<PortRequest>, PortSpecError> {
    let (address, host, container) = split(spec);
    let (container, protocol) = match container.split_once('/') {
        Some((port, name)) => (port, protocol(name)?),
        None => (container, Protocol::Tcp),
    };
    if container.is_empty() {
        return Err(PortSpecError::NoPort(spec.to_owned()));
    }
    let host_ip = parse_address(address)?;
    let (first, last) = range(container)
        .filter(|(first, _)| *first != 0)
        .ok_or_else(|| PortSpecError::ContainerPort(container.to_owned()))?;
    let host_range = match host {
        "" => None,
        text => Some(range(text).ok_or_else(|| PortSpecError::HostPort(text.to_owned()))?),
    };
    let request = |host_port, container_port, count| PortRequest {
        host_port_last: None,
        protocol,
        host_ip,
        host_port,
        container_port,
        count,
    };
    match host_range {
        // Host port 0 means the same as none: any free port, as bind(2) has it.
        None | Some((0, 0)) => Ok((first..=last).map(|port| request(None, port, 1)).collect()),
        Some((low, high)) if high - low == last - first && low != 0 => {
            // At most 65,534: neither range contains port 0.
            Ok(vec![request(Some(low), first, last - first + 1)])
        }
        Some((low, _)) if first == last && low != 0 => {
            Err(PortSpecError::HostRange(spec.to_owned()))
        }
        Some(_) => Err(PortSpecError::Ranges {
            container: container.to_owned(),
            host: host.to_owned(),
        }),
    }
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

fn parse_address(text: &str) -> Result<Option<IpAddr>, PortSpecError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .map(Some)
        .map_err(|_| PortSpecError::Address(text.to_owned()))
}

fn protocol(name: &str) -> Result<Protocol, PortSpecError> {
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
            ("[::1:80:80", "invalid IP address: [::1"),
            (
                "80-82:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 80-82",
            ),
            (
                "8000:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 8000",
            ),
            (
                "0-5:80-85",
                "invalid ranges specified for container and host Ports: 80-85 and 0-5",
            ),
            (
                "8000-8005:80",
                "a range of host ports for one container port is not built yet: 8000-8005:80",
            ),
        ];
        for (spec, expected) in table {
            let error = parse(spec).expect_err(spec);
            assert_eq!(error.to_string(), expected, "{spec}");
        }
    }
}
