//! `--network` and the options that go with it: names, the long form, and Docker's words for what does not go together.
//! Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{anyhow, bail};
use clap::Args;
use runtime::{Connection, NetworkMode};

/// The networks of `run` and `create`.
#[derive(Debug, Default, Args)]
pub struct NetworkArgs {
    /// Network to join: bridge, host, none, container:NAME, a network's name, or
    /// name=NETWORK[,alias=NAME][,ip=ADDRESS][,ip6=ADDRESS][,mac-address=ADDRESS]
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = parse)]
    pub network: Vec<Connection>,
    /// Further name of the container on its (first) network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// IPv4 address on its (first) network
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// IPv6 address on its (first) network
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<String>,
    /// MAC address on its (first) network
    #[arg(long, value_name = "ADDRESS")]
    pub mac_address: Option<String>,
}

impl NetworkArgs {
    /// The mode, and the networks with what is wished for on each; none where only the mode was said.
    pub fn request(&self) -> anyhow::Result<(NetworkMode, Vec<Connection>)> {
        let mut connections = match self.network.is_empty() {
            true => vec![Connection::to(netmgr::Network::DEFAULT)],
            false => self.network.clone(),
        };
        for (at, connection) in connections.iter().enumerate() {
            if connections[..at]
                .iter()
                .any(|c| c.network == connection.network)
            {
                bail!(
                    "network {:?} is specified multiple times",
                    connection.network
                );
            }
        }
        self.apply(&mut connections[0])?;
        let users = connections.iter().filter(|c| is_user_defined(&c.network));
        let users = users.count();
        if users != 0 && users != connections.len() {
            bail!(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            );
        }
        if connections.len() > 1 && users == 0 {
            bail!("conflicting options: a container has one network-mode");
        }
        let first = &connections[0];
        if users == 0 && !first.aliases.is_empty() {
            bail!("network-scoped aliases are only supported for user-defined networks");
        }
        let mode = mode(&first.network)?;
        if connections.len() == 1 && *first == Connection::to(&first.network) {
            connections.clear();
        }
        Ok((mode, connections))
    }

    /// The options that stand by themselves mean the first network.
    fn apply(&self, to: &mut Connection) -> anyhow::Result<()> {
        let both = |option: &str, field: &str| {
            anyhow!("conflicting options: cannot specify both --{option} and per-network {field}")
        };
        if !self.network_alias.is_empty() {
            if !to.aliases.is_empty() {
                return Err(both("network-alias", "alias"));
            }
            to.aliases.clone_from(&self.network_alias);
        }
        if let Some(text) = given(&self.ip) {
            if to.address.is_some() {
                return Err(both("ip", "IPv4 address"));
            }
            to.address = Some(parse_v4(text).map_err(|e| anyhow!(e))?);
        }
        if let Some(text) = given(&self.ip6) {
            if to.address6.is_some() {
                return Err(both("ip6", "IPv6 address"));
            }
            to.address6 = Some(parse_v6(text).map_err(|e| anyhow!(e))?);
        }
        if let Some(text) = given(&self.mac_address) {
            if to.mac.is_some() {
                return Err(both("mac-address", "MAC address"));
            }
            to.mac = Some(parse_mac(text).map_err(|e| anyhow!(e))?);
        }
        Ok(())
    }
}

/// Scripts pass on what is empty.
fn given(option: &Option<String>) -> Option<&str> {
    option.as_deref().filter(|text| !text.is_empty())
}

fn is_user_defined(network: &str) -> bool {
    !["default", "bridge", "host", "none"].contains(&network) && !network.starts_with("container:")
}

fn mode(network: &str) -> anyhow::Result<NetworkMode> {
    Ok(match network {
        "" => bail!("no name set for network"),
        "bridge" => NetworkMode::Bridge,
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        name => match name.strip_prefix("container:") {
            Some(other) => NetworkMode::Container(other.to_owned()),
            None => NetworkMode::Named(name.to_owned()),
        },
    })
}

/// A name, or `name=...,alias=...`.
pub fn parse(text: &str) -> Result<Connection, String> {
    let is_key = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    if !text.split_once('=').is_some_and(|(key, _)| is_key(key)) {
        return Ok(Connection::to(name_of(text)));
    }
    let mut connection = Connection::default();
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field {field}"))?;
        let value = value.trim();
        match key.trim().to_lowercase().as_str() {
            "name" => connection.network = name_of(value).to_owned(),
            "alias" => connection.aliases.push(value.to_owned()),
            "ip" => connection.address = Some(parse_v4(value)?),
            "ip6" => connection.address6 = Some(parse_v6(value)?),
            "mac-address" => connection.mac = Some(parse_mac(value)?),
            key => return Err(format!("invalid field key {key}")),
        }
    }
    match connection.network.is_empty() {
        true => Err("network name/id is not specified".to_owned()),
        false => Ok(connection),
    }
}

/// Docker's own word for the default network.
fn name_of(text: &str) -> &str {
    match text {
        "default" => netmgr::Network::DEFAULT,
        name => name,
    }
}

pub fn parse_v4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse()
        .map_err(|_| format!("invalid IPv4 address: {text}"))
}

pub fn parse_v6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse()
        .map_err(|_| format!("invalid IPv6 address: {text}"))
}

/// Six bytes with colons or dashes between them, of one interface and not of a group.
pub fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let refused = || format!("{text} is not a valid mac address");
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2);
        let part = part.ok_or_else(refused)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
    }
    let is_group = mac[0] & 1 != 0;
    match parts.next().is_some() || is_group || mac == [0; 6] {
        true => Err(refused()),
        false => Ok(mac),
    }
}

/// `--expose`: `80`, `80-90/udp`; one port each, as the record has them.
pub fn parse_expose(text: &str) -> anyhow::Result<Vec<String>> {
    if text.contains(':') {
        bail!("invalid port format for --expose: {text}");
    }
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        bail!("invalid protocol for --expose: {text}");
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let refused = |why: &str| anyhow!("invalid range format for --expose: {text}, error: {why}");
    let port = |word: &str| {
        word.parse::<u16>().map_err(|error| {
            use std::num::IntErrorKind::PosOverflow;
            let why = match error.kind() {
                PosOverflow => "value out of range",
                _ => "invalid syntax",
            };
            refused(&format!("strconv.ParseUint: parsing {word:?}: {why}"))
        })
    };
    let (first, last) = (port(first)?, port(last)?);
    if first == 0 || last < first {
        return Err(refused(&format!(
            "invalid range specified for port: {range}"
        )));
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        networks: NetworkArgs,
    }

    fn request(words: &[&str]) -> anyhow::Result<(NetworkMode, Vec<Connection>)> {
        let words = std::iter::once("x").chain(words.iter().copied());
        Only::try_parse_from(words)?.networks.request()
    }

    #[test]
    fn networks_are_modes_or_names() {
        for (words, expected) in [
            (&[][..], NetworkMode::Bridge),
            (&["--network", "host"], NetworkMode::Host),
            (&["--net", "none"], NetworkMode::None),
            (&["--network", "default"], NetworkMode::Bridge),
            (&["--network", "web"], NetworkMode::Named("web".into())),
            (
                &["--network", "container:c1"],
                NetworkMode::Container("c1".into()),
            ),
        ] {
            assert_eq!(request(words).unwrap(), (expected, Vec::new()), "{words:?}");
        }
        assert!(request(&["--network", ""]).is_err());
    }

    #[test]
    fn the_long_form_says_everything_of_one_network() {
        let long =
            "name=web,alias=db,alias=sql,ip=10.5.0.9,ip6=fd00::9,mac-address=02:42:0a:05:00:09";
        let (mode, connections) = request(&["--network", long, "--network", "back"]).unwrap();
        assert_eq!(mode, NetworkMode::Named("web".into()));
        let web = Connection {
            network: "web".into(),
            address: Some([10, 5, 0, 9].into()),
            address6: Some("fd00::9".parse().unwrap()),
            mac: Some([2, 0x42, 10, 5, 0, 9]),
            aliases: vec!["db".into(), "sql".into()],
        };
        assert_eq!(connections, [web, Connection::to("back")]);
        assert_eq!(
            parse("name=web,foo=bar").unwrap_err(),
            "invalid field key foo"
        );
        assert_eq!(
            parse("alias=x").unwrap_err(),
            "network name/id is not specified"
        );
    }

    #[test]
    fn single_options_mean_the_first_network() {
        let words = [
            "--network",
            "a",
            "--network",
            "b",
            "--network-alias",
            "x",
            "--ip",
            "10.0.0.9",
        ];
        let (_, connections) = request(&words).unwrap();
        assert_eq!(connections[0].aliases, ["x"]);
        assert_eq!(connections[0].address, Some([10, 0, 0, 9].into()));
        assert_eq!(connections[1], Connection::to("b"));
    }

    #[test]
    fn what_does_not_go_together_is_refused_in_dockers_words() {
        for (words, expected) in [
            (
                &["--network", "a", "--network", "host"][..],
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ),
            (
                &["--network", "a", "--network", "a"],
                "network \"a\" is specified multiple times",
            ),
            (
                &["--network-alias", "x"],
                "network-scoped aliases are only supported for user-defined networks",
            ),
            (
                &["--network", "name=a,ip=10.0.0.9", "--ip", "10.0.0.8"],
                "conflicting options: cannot specify both --ip and per-network IPv4 address",
            ),
            (
                &["--network", "a", "--ip", "zz"],
                "invalid IPv4 address: zz",
            ),
            (
                &["--network", "a", "--ip6", "10.0.0.1"],
                "invalid IPv6 address: 10.0.0.1",
            ),
            (&["--mac-address", "zz"], "zz is not a valid mac address"),
            (
                &["--mac-address", "01:00:5e:00:00:01"],
                "01:00:5e:00:00:01 is not a valid mac address",
            ),
        ] {
            let error = request(words).unwrap_err();
            assert_eq!(error.to_string(), expected, "{words:?}");
        }
    }

    #[test]
    fn exposed_ports_are_listed_one_by_one() {
        assert_eq!(parse_expose("80").unwrap(), ["80/tcp"]);
        assert_eq!(
            parse_expose("90-92/udp").unwrap(),
            ["90/udp", "91/udp", "92/udp"]
        );
        for (text, expected) in [
            ("80:81", "invalid port format for --expose: 80:81"),
            (
                "zz",
                "invalid range format for --expose: zz, error: strconv.ParseUint: parsing \"zz\": invalid syntax",
            ),
            (
                "99999",
                "invalid range format for --expose: 99999, error: strconv.ParseUint: parsing \"99999\": value out of range",
            ),
            ("80/foo", "invalid protocol for --expose: 80/foo"),
        ] {
            assert_eq!(parse_expose(text).unwrap_err().to_string(), expected);
        }
    }
}
