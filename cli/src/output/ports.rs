//! Published and exposed ports as `ps` and `port` show them. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netmgr::{PortMap, Protocol};
use runtime::Container;

/// A run of ports on one address; `host` is `None` where a port is only exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    pub container: u16,
    pub address: Option<IpAddr>,
    pub host: u16,
    pub protocol: Protocol,
    pub count: u16,
}

/// What a container publishes now, address by address, in the order of its ports.
pub fn published(container: &Container) -> Vec<Published> {
    let maps = container
        .attachments
        .iter()
        .flat_map(|(_, endpoint)| &endpoint.ports);
    let mut runs: Vec<Published> = maps.flat_map(by_address).collect();
    runs.sort();
    runs
}

/// Every address of the host is two: one for each family.
fn by_address(map: &PortMap) -> Vec<Published> {
    let addresses = match map.host_ip {
        Some(address) => vec![address],
        None => vec![
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ],
    };
    let run = |address| Published {
        container: map.container_port,
        address: Some(address),
        host: map.host_port,
        protocol: map.protocol,
        count: map.count,
    };
    addresses.into_iter().map(run).collect()
}

/// Ports that are exposed and not published: `81/tcp`.
fn exposed(container: &Container, published: &[Published]) -> Vec<Published> {
    let is_published = |port: u16, protocol| {
        published.iter().any(|run| {
            run.protocol == protocol && port >= run.container && port - run.container < run.count
        })
    };
    let ports = container.resolved.exposed_ports.iter();
    ports
        .filter_map(|text| parse_port(text))
        .filter(|(port, protocol)| !is_published(*port, *protocol))
        .map(|(port, protocol)| Published {
            container: port,
            address: None,
            host: 0,
            protocol,
            count: 1,
        })
        .collect()
}

/// `80` or `80/udp`.
pub fn parse_port(text: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    Some((port.parse().ok()?, protocol))
}

/// The PORTS column. Ports that keep their number fold into ranges for each address and protocol and come first, as in
/// Docker; others come last, and fold only where they were published as a range: Docker lists each, which for a
/// range of thousands is no listing.
pub fn column(container: &Container) -> String {
    let mut runs = published(container);
    if matches!(container.state, runtime::State::Running { .. }) {
        runs.extend(exposed(container, &runs));
    }
    runs.sort();
    let mut folded: Vec<Published> = Vec::new();
    let mut result = Vec::new();
    let mut moved = Vec::new();
    for run in runs {
        if run.address.is_some() && run.host != run.container {
            moved.push(words(&run));
            continue;
        }
        let same =
            |open: &&mut Published| open.address == run.address && open.protocol == run.protocol;
        match folded.iter_mut().find(same) {
            None => folded.push(run),
            Some(open) if u32::from(run.container) == end(open) => open.count += run.count,
            Some(open) => result.push(words(&std::mem::replace(open, run))),
        }
    }
    result.extend(folded.iter().map(words));
    result.extend(moved);
    result.join(", ")
}

/// The port after the last one.
fn end(run: &Published) -> u32 {
    u32::from(run.container) + u32::from(run.count)
}

fn words(run: &Published) -> String {
    let range = |first: u16| match run.count {
        0 | 1 => first.to_string(),
        count => format!("{first}-{}", u32::from(first) + u32::from(count) - 1),
    };
    let inside = format!("{}/{}", range(run.container), run.protocol.as_str());
    match run.address {
        Some(address) => format!("{}->{inside}", join(address, &range(run.host))),
        None => inside,
    }
}

/// `0.0.0.0:80`, `[::]:80`.
pub fn join(address: IpAddr, port: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// `docker port`'s lines: container port and where it is published, one port a line.
pub fn lines(runs: &[Published]) -> Vec<(u16, Protocol, String)> {
    let mut lines = Vec::new();
    for run in runs {
        let Some(address) = run.address else { continue };
        for offset in 0..run.count {
            let host = u32::from(run.host) + u32::from(offset);
            let at = join(address, &host.to_string());
            lines.push((run.container.saturating_add(offset), run.protocol, at));
        }
    }
    // Stable: the addresses of one port keep their order, 0.0.0.0 first.
    lines.sort_by_key(|(port, protocol, _)| (*port, *protocol));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    fn map(ip: Option<&str>, host: u16, container: u16, count: u16, protocol: Protocol) -> PortMap {
        PortMap {
            listener: None,
            protocol,
            host_ip: ip.map(|text| text.parse().unwrap()),
            host_port: host,
            container_port: container,
            count,
        }
    }

    fn column_of(maps: Vec<PortMap>, exposed: &[&str]) -> String {
        let mut container = sample::running();
        container.attachments[0].1.ports = maps;
        container.resolved.exposed_ports = exposed.iter().map(|port| port.to_string()).collect();
        column(&container)
    }

    #[test]
    fn a_published_port_is_shown_for_both_families() {
        use Protocol::Tcp;
        assert_eq!(
            column_of(vec![map(None, 8080, 80, 1, Tcp)], &["80/tcp"]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(
            column_of(vec![map(Some("::1"), 8080, 80, 1, Tcp)], &[]),
            "[::1]:8080->80/tcp"
        );
    }

    #[test]
    fn the_column_equals_the_one_docker_prints_for_the_same_container() {
        use Protocol::{Tcp, Udp};
        let maps = vec![
            map(None, 8080, 80, 1, Tcp),
            map(None, 8443, 443, 1, Tcp),
            map(None, 53, 53, 1, Udp),
            map(None, 7000, 7000, 4, Tcp),
            map(Some("127.0.0.1"), 9000, 9000, 1, Tcp),
            map(None, 10000, 5000, 1, Tcp),
            map(None, 10002, 5001, 1, Tcp),
        ];
        assert_eq!(
            column_of(maps, &["80/tcp", "81/tcp"]),
            "0.0.0.0:53->53/udp, [::]:53->53/udp, 81/tcp, 0.0.0.0:7000-7003->7000-7003/tcp, \
             [::]:7000-7003->7000-7003/tcp, 127.0.0.1:9000->9000/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, \
             0.0.0.0:8443->443/tcp, [::]:8443->443/tcp, 0.0.0.0:10000->5000/tcp, [::]:10000->5000/tcp, \
             0.0.0.0:10002->5001/tcp, [::]:10002->5001/tcp"
        );
    }

    #[test]
    fn single_ports_in_a_row_fold_and_gaps_do_not() {
        use Protocol::Tcp;
        let single = |port| map(Some("10.0.0.1"), port, port, 1, Tcp);
        assert_eq!(
            column_of(vec![single(81), single(80), single(90)], &[]),
            "10.0.0.1:80-81->80-81/tcp, 10.0.0.1:90->90/tcp"
        );
        assert_eq!(
            column_of(vec![], &["90/tcp", "91/tcp", "92/tcp", "100/udp"]),
            "90-92/tcp, 100/udp"
        );
    }

    #[test]
    fn a_moved_range_is_one_entry_and_the_widest_range_fits() {
        use Protocol::Tcp;
        assert_eq!(
            column_of(vec![map(Some("10.0.0.1"), 8000, 9000, 11, Tcp)], &[]),
            "10.0.0.1:8000-8010->9000-9010/tcp"
        );
        assert_eq!(
            column_of(vec![map(Some("10.0.0.1"), 1, 1, 65535, Tcp)], &[]),
            "10.0.0.1:1-65535->1-65535/tcp"
        );
    }

    #[test]
    fn a_stopped_container_shows_no_ports() {
        let mut container = sample::exited();
        container.resolved.exposed_ports = vec!["80/tcp".into()];
        assert_eq!(column(&container), "");
    }

    #[test]
    fn port_lists_each_port_with_its_addresses() {
        let mut container = sample::running();
        container.attachments[0].1.ports = vec![
            map(None, 8000, 80, 2, Protocol::Tcp),
            map(Some("127.0.0.1"), 53, 53, 1, Protocol::Udp),
        ];
        let lines = lines(&published(&container));
        let text: Vec<String> = lines
            .iter()
            .map(|(port, protocol, at)| format!("{port}/{} -> {at}", protocol.as_str()))
            .collect();
        assert_eq!(
            text,
            [
                "53/udp -> 127.0.0.1:53",
                "80/tcp -> 0.0.0.0:8000",
                "80/tcp -> [::]:8000",
                "81/tcp -> 0.0.0.0:8001",
                "81/tcp -> [::]:8001",
            ]
        );
    }
}
