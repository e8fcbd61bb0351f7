//! `network create`: the options of both families, sorted to the one subnet that each has.

use std::net::IpAddr;

use anyhow::{anyhow, bail};
use clap::Args;
use ipnet::IpNet;
use netmgr::NetworkRequest;

use super::super::{Answer, Context};
use super::care;
use crate::args::values;
use crate::failure::Failure;
use crate::output;

/// Create a network
#[derive(Debug, Args)]
#[command(override_usage = "coracle network create [OPTIONS] NETWORK")]
pub struct Create {
    /// Subnet in CIDR notation, one for each family; without it the next free one is taken
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    subnet: Vec<String>,
    /// Address of the bridge, one for each family; without it the first of the subnet
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Part of the subnet from which containers get their addresses, one for each family
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Address that no container gets
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = values::parse_option)]
    aux_address: Vec<(String, String)>,
    /// IPv6 beside IPv4; an IPv6 subnet means it too, and without one it is cut from this host's own prefix
    #[arg(long)]
    ipv6: bool,
    /// No way out of the network and none in
    #[arg(long)]
    internal: bool,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = values::parse_label)]
    label: Vec<(String, String)>,
    /// Set a driver option, such as com.docker.network.bridge.name=NAME (docs/networking.md lists them)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::parse_option)]
    opt: Vec<(String, String)>,
    /// Driver: bridge is the only one
    #[arg(
        short,
        long,
        value_name = "DRIVER",
        default_value = "bridge",
        hide_default_value = true
    )]
    driver: String,
    /// Every network is: taken for the sake of scripts
    #[arg(long, hide = true)]
    attachable: bool,
    #[arg(long, value_name = "SCOPE", hide = true)]
    scope: Option<String>,
    #[arg(
        long,
        value_name = "DRIVER",
        default_value = "default",
        hide_default_value = true,
        hide = true
    )]
    ipam_driver: String,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Its name: letters, digits, and after the first also _ . -
    #[arg(value_name = "NETWORK")]
    name: String,
}

pub fn run(context: &Context, options: Create) -> Answer {
    let dry_run = options.dry_run;
    let request = request(options).map_err(Failure::Refused)?;
    if dry_run {
        return care::show(&context.engine()?.preview_create_network(&request)?);
    }
    let network = context.engine()?.create_network(&request)?;
    output::print(&network.id)?;
    Ok(0)
}

fn request(options: Create) -> anyhow::Result<NetworkRequest> {
    check_kind(&options)?;
    let mut request = NetworkRequest {
        name: options.name,
        ipv6: options.ipv6,
        internal: options.internal,
        labels: options.label,
        options: options.opt,
        ..NetworkRequest::default()
    };
    for text in &options.subnet {
        set_subnet(&mut request, text)?;
    }
    for text in &options.ip_range {
        set_range(&mut request, text)?;
    }
    for text in &options.gateway {
        set_gateway(&mut request, text)?;
    }
    for (name, text) in &options.aux_address {
        let address = text.parse::<IpAddr>().ok();
        let address = address.filter(|address| is_covered(&request, *address));
        let address =
            address.ok_or_else(|| anyhow!("no matching subnet for aux-address {text}"))?;
        request.aux_addresses.push((name.clone(), address));
    }
    Ok(request)
}

/// Docker's words for drivers and scopes that are not here.
fn check_kind(options: &Create) -> anyhow::Result<()> {
    match options.driver.as_str() {
        "bridge" => {}
        name @ ("host" | "null") => bail!("only one instance of {name:?} network is allowed"),
        name => bail!("plugin {name:?} not found"),
    }
    if options.ipam_driver != "default" {
        bail!("plugin {:?} not found", options.ipam_driver);
    }
    match options.scope.as_deref() {
        None | Some("" | "local") => Ok(()),
        Some(scope) => bail!("a network's scope is local: {scope} would need a swarm"),
    }
}

fn set_subnet(request: &mut NetworkRequest, text: &str) -> anyhow::Result<()> {
    let subnet = text
        .parse::<IpNet>()
        .map_err(|_| anyhow!("Invalid subnet {text} : invalid CIDR address: {text}"))?;
    let before = match subnet {
        IpNet::V4(subnet) => request.subnet.replace(subnet).map(IpNet::V4),
        IpNet::V6(subnet) => {
            // Who gives it a subnet wants the family.
            request.ipv6 = true;
            request.subnet6.replace(subnet).map(IpNet::V6)
        }
    };
    match before {
        None => Ok(()),
        Some(_) => bail!("bridge driver doesn't support multiple subnets"),
    }
}

fn set_range(request: &mut NetworkRequest, text: &str) -> anyhow::Result<()> {
    let range = text
        .parse::<IpNet>()
        .map_err(|_| anyhow!("invalid CIDR address: {text}"))?;
    need_a_subnet(request)?;
    if !is_covered(request, range.addr()) {
        bail!("no matching subnet for range {text}");
    }
    let before = match range {
        IpNet::V4(range) => request.ip_range.replace(range).map(IpNet::V4),
        IpNet::V6(range) => request.ip_range6.replace(range).map(IpNet::V6),
    };
    match before {
        None => Ok(()),
        Some(before) => {
            bail!("cannot configure multiple ranges ({before}, {text}) on the same subnet")
        }
    }
}

fn set_gateway(request: &mut NetworkRequest, text: &str) -> anyhow::Result<()> {
    need_a_subnet(request)?;
    let gateway = text.parse::<IpAddr>().ok();
    let gateway = gateway.filter(|address| is_covered(request, *address));
    let before = match gateway {
        Some(IpAddr::V4(gateway)) => request.gateway.replace(gateway).map(IpAddr::V4),
        Some(IpAddr::V6(gateway)) => request.gateway6.replace(gateway).map(IpAddr::V6),
        None => bail!("no matching subnet for gateway {text}"),
    };
    match before {
        None => Ok(()),
        Some(before) => {
            bail!("cannot configure multiple gateways ({text}, {before}) for the same subnet")
        }
    }
}

fn need_a_subnet(request: &NetworkRequest) -> anyhow::Result<()> {
    match request.subnet.is_none() && request.subnet6.is_none() {
        true => bail!("every ip-range or gateway must have a corresponding subnet"),
        false => Ok(()),
    }
}

fn is_covered(request: &NetworkRequest, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => request.subnet.is_some_and(|net| net.contains(&address)),
        IpAddr::V6(address) => request.subnet6.is_some_and(|net| net.contains(&address)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        create: Create,
    }

    fn made(words: &str) -> anyhow::Result<NetworkRequest> {
        let words = std::iter::once("x").chain(words.split_whitespace());
        request(Only::try_parse_from(words)?.create)
    }

    #[test]
    fn options_of_both_families_find_their_subnet() {
        let request = made(
            "--subnet fd00:6::/64 --subnet 10.6.0.0/16 --gateway 10.6.0.7 --gateway fd00:6::7 \
             --ip-range 10.6.5.0/24 --ip-range fd00:6::100/120 --aux-address a=10.6.0.3 \
             --aux-address b=fd00:6::3 n",
        )
        .unwrap();
        assert!(request.ipv6);
        assert_eq!(request.subnet, Some("10.6.0.0/16".parse().unwrap()));
        assert_eq!(request.subnet6, Some("fd00:6::/64".parse().unwrap()));
        assert_eq!(request.gateway, Some("10.6.0.7".parse().unwrap()));
        assert_eq!(request.gateway6, Some("fd00:6::7".parse().unwrap()));
        assert_eq!(request.ip_range, Some("10.6.5.0/24".parse().unwrap()));
        assert_eq!(request.aux_addresses.len(), 2);
    }

    #[test]
    fn refusals_are_dockers() {
        for (words, expected) in [
            ("-d foo n", "plugin \"foo\" not found"),
            (
                "-d host n",
                "only one instance of \"host\" network is allowed",
            ),
            ("--ipam-driver foo n", "plugin \"foo\" not found"),
            (
                "--subnet zz n",
                "Invalid subnet zz : invalid CIDR address: zz",
            ),
            (
                "--subnet 10.7.0.0/16 --subnet 10.8.0.0/16 n",
                "bridge driver doesn't support multiple subnets",
            ),
            (
                "--gateway 10.7.0.1 n",
                "every ip-range or gateway must have a corresponding subnet",
            ),
            (
                "--subnet 10.7.0.0/16 --gateway 10.9.0.1 n",
                "no matching subnet for gateway 10.9.0.1",
            ),
            (
                "--subnet 10.7.0.0/16 --gateway zz n",
                "no matching subnet for gateway zz",
            ),
            (
                "--subnet 10.7.0.0/16 --ip-range 10.9.0.0/24 n",
                "no matching subnet for range 10.9.0.0/24",
            ),
            (
                "--subnet 10.7.0.0/16 --ip-range zz n",
                "invalid CIDR address: zz",
            ),
            (
                "--subnet 10.7.0.0/16 --aux-address a=10.9.0.1 n",
                "no matching subnet for aux-address 10.9.0.1",
            ),
        ] {
            assert_eq!(made(words).unwrap_err().to_string(), expected, "{words}");
        }
    }
}
