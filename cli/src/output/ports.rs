//! Published and exposed ports as `ps` and `port` show them. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netmgr::ports::LONGEST_BOUND;
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

/// Ports that are exposed and not published: `81/tcp`. A run is taken as a whole: it has an entry of its own where it was
/// published as one.
fn exposed(container: &Container, published: &[Published]) -> Vec<Published> {
    let is_published = |first: u16, last: u16, protocol| {
        published.iter().any(|run| {
            run.protocol == protocol && first >= run.container && last - run.container < run.count
        })
    };
    let ports = container.resolved.exposed_ports.iter();
    ports
        .filter_map(|text| parse_run(text))
        .filter(|(first, last, protocol)| !is_published(*first, *last, *protocol))
        .map(|(first, last, protocol)| Published {
            container: first,
            address: None,
            host: 0,
            protocol,
            count: last - first + 1,
        })
        .collect()
}

/// As the record has exposed ports: `80/tcp`, or `1024-65000/tcp` for a long run.
pub fn parse_run(text: &str) -> Option<(u16, u16, Protocol)> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, protocol) = parse_port(&format!("{first}/{protocol}"))?;
    let last = last.parse().ok()?;
    (0 < first && first <= last).then_some((first, last, protocol))
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
/// Docker; others come last, each for itself. A run that is too long for a socket each stays one range, where Docker
/// lists its thousands.
pub fn column(container: &Container) -> String {
    let runs = published(container);
    let mut runs: Vec<Published> = match container.state {
        runtime::State::Running { .. } => runs
            .iter()
            .copied()
            .chain(exposed(container, &runs))
            .flat_map(singles)
            .collect(),
        _ => runs.into_iter().flat_map(singles).collect(),
    };
    runs.sort_by_cached_key(docker_order);
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

/// Each port of a run, unless it is a long one.
fn singles(run: Published) -> Vec<Published> {
    if run.count > LONGEST_BOUND {
        return vec![run];
    }
    (0..run.count)
        .map(|offset| Published {
            container: run.container + offset,
            host: run.host.saturating_add(offset),
            count: 1,
            ..run
        })
        .collect()
}

/// Addresses and protocols compare as text.
fn docker_order(run: &Published) -> (u16, String, u16, &'static str) {
    let address = run.address.map(|ip| ip.to_string()).unwrap_or_default();
    (run.container, address, run.host, run.protocol.as_str())
}

/// The port after the last one.
fn end(run: &Published) -> u32 {
    u32::from(run.container) + u32::from(run.count)
}

fn words(run: &Published) -> String {
    let inside = format!(
        "{}/{}",
        range(run.container, run.count),
        run.protocol.as_str()
    );
    match run.address {
        Some(address) => format!("{}->{inside}", join(address, &range(run.host, run.count))),
        None => inside,
    }
}

fn range(first: u16, count: u16) -> String {
    match count {
        0 | 1 => first.to_string(),
        count => format!("{first}-{}", u32::from(first) + u32::from(count) - 1),
    }
}

/// `0.0.0.0:80`, `[::]:80`.
pub fn join(address: IpAddr, port: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// `docker port`'s lines: container port and where it is published, one port a line; a long run is one line.
pub fn lines(runs: &[Published]) -> Vec<String> {
    let mut runs: Vec<Published> = runs.iter().copied().flat_map(singles).collect();
    runs.sort_by_key(|run| (run.container, run.protocol.as_str(), run.address, run.host));
    let lines = runs.iter().filter_map(|run| {
        let at = join(run.address?, &range(run.host, run.count));
        let inside = range(run.container, run.count);
        Some(format!("{inside}/{} -> {at}", run.protocol.as_str()))
    });
    lines.collect()
}

/// Where one port of the container is published.
pub fn places(runs: &[Published], port: u16, protocol: &str) -> Vec<String> {
    let mut places: Vec<(IpAddr, u16)> = runs
        .iter()
        .filter(|run| run.protocol.as_str() == protocol)
        .filter_map(|run| {
            let offset = port.checked_sub(run.container)?;
            (offset < run.count).then_some((run.address?, run.host.checked_add(offset)?))
        })
        .collect();
    places.sort_unstable();
    let places = places.iter();
    places
        .map(|(address, host)| join(*address, &host.to_string()))
        .collect()
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

    /// Each was run with Docker 20.10 and the client of 28.
    #[test]
    fn the_column_equals_the_one_docker_prints_for_the_same_container() {
        use Protocol::{Tcp, Udp};
        let single = |port, protocol| map(None, port, port, 1, protocol);
        let expose = [
            "80/tcp", "81/tcp", "82/tcp", "443/tcp", "8000/tcp", "8001/tcp", "8002/tcp",
            "8003/tcp", "9000/udp",
        ];
        let own = |address, host, container, count, protocol| {
            map(Some(address), host, container, count, protocol)
        };
        type Case<'a> = (Vec<PortMap>, &'a [&'a str], &'a str);
        let table: Vec<Case> = vec![
            (
                vec![],
                &expose,
                "80-82/tcp, 443/tcp, 8000-8003/tcp, 9000/udp",
            ),
            (
                vec![single(80, Tcp)],
                &expose,
                "81-82/tcp, 443/tcp, 0.0.0.0:80->80/tcp, [::]:80->80/tcp, 8000-8003/tcp, 9000/udp",
            ),
            (
                vec![single(8000, Tcp), single(8002, Tcp)],
                &expose,
                "80-82/tcp, 443/tcp, 0.0.0.0:8000->8000/tcp, [::]:8000->8000/tcp, 8001/tcp, 8003/tcp, \
                 0.0.0.0:8002->8002/tcp, [::]:8002->8002/tcp, 9000/udp",
            ),
            (
                vec![
                    map(None, 8000, 8000, 2, Tcp),
                    own("127.0.0.1", 8002, 8002, 2, Tcp),
                ],
                &expose,
                "80-82/tcp, 443/tcp, 0.0.0.0:8000-8001->8000-8001/tcp, [::]:8000-8001->8000-8001/tcp, \
                 127.0.0.1:8002-8003->8002-8003/tcp, 9000/udp",
            ),
            (
                vec![
                    own("::1", 8000, 8000, 1, Tcp),
                    own("127.0.0.1", 8000, 8000, 1, Tcp),
                ],
                &expose,
                "80-82/tcp, 443/tcp, 8001-8003/tcp, 127.0.0.1:8000->8000/tcp, [::1]:8000->8000/tcp, 9000/udp",
            ),
            (
                vec![single(53, Udp), single(53, Tcp), single(54, Udp)],
                &[],
                "0.0.0.0:53->53/tcp, 0.0.0.0:53-54->53-54/udp, [::]:53->53/tcp, [::]:53-54->53-54/udp",
            ),
            (
                vec![
                    single(90, Tcp),
                    single(80, Tcp),
                    single(443, Udp),
                    single(443, Tcp),
                    map(None, 10, 5000, 1, Tcp),
                    map(None, 12, 5001, 1, Tcp),
                    single(7, Udp),
                ],
                &[],
                "0.0.0.0:80->80/tcp, [::]:80->80/tcp, 0.0.0.0:90->90/tcp, 0.0.0.0:7->7/udp, [::]:90->90/tcp, \
                 [::]:7->7/udp, 0.0.0.0:443->443/udp, [::]:443->443/udp, 0.0.0.0:443->443/tcp, \
                 [::]:443->443/tcp, 0.0.0.0:10->5000/tcp, [::]:10->5000/tcp, 0.0.0.0:12->5001/tcp, \
                 [::]:12->5001/tcp",
            ),
            (
                vec![
                    map(None, 8080, 80, 1, Tcp),
                    map(None, 8081, 80, 1, Tcp),
                    single(80, Tcp),
                ],
                &[],
                "0.0.0.0:80->80/tcp, [::]:80->80/tcp, 0.0.0.0:8080->80/tcp, 0.0.0.0:8081->80/tcp, \
                 [::]:8080->80/tcp, [::]:8081->80/tcp",
            ),
            (
                vec![
                    own("127.0.0.1", 8080, 80, 1, Tcp),
                    own("127.0.0.2", 8080, 80, 1, Tcp),
                    own("::1", 8080, 80, 1, Tcp),
                ],
                &[],
                "127.0.0.1:8080->80/tcp, 127.0.0.2:8080->80/tcp, [::1]:8080->80/tcp",
            ),
            (
                vec![
                    map(None, 80, 80, 3, Tcp),
                    map(None, 83, 83, 2, Udp),
                    map(None, 9000, 8000, 3, Tcp),
                ],
                &[],
                "0.0.0.0:80-82->80-82/tcp, [::]:80-82->80-82/tcp, 0.0.0.0:83-84->83-84/udp, \
                 [::]:83-84->83-84/udp, 0.0.0.0:9000->8000/tcp, [::]:9000->8000/tcp, 0.0.0.0:9001->8001/tcp, \
                 [::]:9001->8001/tcp, 0.0.0.0:9002->8002/tcp, [::]:9002->8002/tcp",
            ),
            (
                vec![own("127.0.0.1", 80, 80, 3, Tcp), map(None, 80, 80, 3, Udp)],
                &["90/tcp", "92/tcp", "93/tcp", "94/tcp", "91/tcp", "7/udp"],
                "7/udp, 0.0.0.0:80-82->80-82/udp, 127.0.0.1:80-82->80-82/tcp, [::]:80-82->80-82/udp, 90-94/tcp",
            ),
            (
                vec![
                    own("0.0.0.0", 80, 80, 1, Tcp),
                    own("::", 80, 80, 1, Tcp),
                    single(81, Tcp),
                ],
                &[],
                "0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp",
            ),
            (
                vec![
                    own("0.0.0.0", 80, 80, 1, Tcp),
                    own("127.0.0.1", 81, 81, 1, Tcp),
                    single(82, Tcp),
                ],
                &[],
                "0.0.0.0:80->80/tcp, 0.0.0.0:82->82/tcp, 127.0.0.1:81->81/tcp, [::]:82->82/tcp",
            ),
        ];
        for (maps, exposed, expected) in table {
            assert_eq!(column_of(maps.clone(), exposed), expected, "{maps:?}");
        }
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
    fn a_long_run_is_one_range_and_the_widest_fits() {
        use Protocol::Tcp;
        assert_eq!(
            column_of(vec![map(Some("10.0.0.1"), 1024, 2024, 60000, Tcp)], &[]),
            "10.0.0.1:1024-61023->2024-62023/tcp"
        );
        assert_eq!(
            column_of(vec![map(None, 1, 1, 65535, Tcp)], &["80/tcp"]),
            "0.0.0.0:1-65535->1-65535/tcp, [::]:1-65535->1-65535/tcp"
        );
    }

    #[test]
    fn a_long_run_is_exposed_where_it_is_not_published() {
        use Protocol::Tcp;
        let exposed = ["1024-65000/tcp", "80/tcp"];
        assert_eq!(column_of(vec![], &exposed), "80/tcp, 1024-65000/tcp");
        assert_eq!(
            column_of(vec![map(Some("::1"), 1024, 1024, 63977, Tcp)], &exposed),
            "80/tcp, [::1]:1024-65000->1024-65000/tcp"
        );
    }

    #[test]
    fn a_stopped_container_shows_no_ports() {
        let mut container = sample::exited();
        container.resolved.exposed_ports = vec!["80/tcp".into()];
        assert_eq!(column(&container), "");
    }

    fn published_as(maps: Vec<PortMap>) -> Vec<Published> {
        let mut container = sample::running();
        container.attachments[0].1.ports = maps;
        published(&container)
    }

    /// Each was run with Docker 20.10 and the client of 28.
    #[test]
    fn port_lists_what_docker_lists_for_the_same_container() {
        use Protocol::{Tcp, Udp};
        let table = [
            (
                vec![
                    map(None, 53, 53, 1, Udp),
                    map(None, 53, 53, 1, Tcp),
                    map(None, 7, 7, 1, Udp),
                    map(None, 8000, 80, 2, Tcp),
                ],
                "7/udp -> 0.0.0.0:7|7/udp -> [::]:7|53/tcp -> 0.0.0.0:53|53/tcp -> [::]:53|53/udp -> 0.0.0.0:53|\
                 53/udp -> [::]:53|80/tcp -> 0.0.0.0:8000|80/tcp -> [::]:8000|81/tcp -> 0.0.0.0:8001|\
                 81/tcp -> [::]:8001",
            ),
            (
                vec![
                    map(None, 8080, 80, 1, Tcp),
                    map(None, 8081, 80, 1, Tcp),
                    map(None, 80, 80, 1, Tcp),
                ],
                "80/tcp -> 0.0.0.0:80|80/tcp -> 0.0.0.0:8080|80/tcp -> 0.0.0.0:8081|80/tcp -> [::]:80|\
                 80/tcp -> [::]:8080|80/tcp -> [::]:8081",
            ),
            (
                vec![
                    map(Some("::1"), 8080, 80, 1, Tcp),
                    map(Some("127.0.0.2"), 8080, 80, 1, Tcp),
                    map(Some("127.0.0.1"), 8080, 80, 1, Tcp),
                ],
                "80/tcp -> 127.0.0.1:8080|80/tcp -> 127.0.0.2:8080|80/tcp -> [::1]:8080",
            ),
        ];
        for (maps, expected) in table {
            assert_eq!(lines(&published_as(maps)).join("|"), expected);
        }
    }

    #[test]
    fn a_long_run_is_one_line_and_each_of_its_ports_is_found() {
        let runs = published_as(vec![map(None, 1024, 2024, 60000, Protocol::Tcp)]);
        assert_eq!(
            lines(&runs),
            [
                "2024-62023/tcp -> 0.0.0.0:1024-61023",
                "2024-62023/tcp -> [::]:1024-61023",
            ]
        );
        let at = |port| places(&runs, port, "tcp");
        assert_eq!(at(2024), ["0.0.0.0:1024", "[::]:1024"]);
        assert_eq!(at(62023), ["0.0.0.0:61023", "[::]:61023"]);
        assert!(at(2023).is_empty() && at(62024).is_empty());
        assert!(places(&runs, 2024, "udp").is_empty());
    }
}
