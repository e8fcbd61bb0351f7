//! Address arithmetic: which subnet a network gets and which address a container gets. Pure.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::Error;
use crate::model::Profile;

/// The default network's subnet: the profile's own, or a later one where the host already uses that. An engine inside
/// a container meets the outer engine's subnet as a route of its own host.
pub fn default_subnet(profile: Profile, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let own: Vec<Ipv4Net> = match profile {
        Profile::Coracle => [200].into_iter().chain(217..=231).map(ten).collect(),
        Profile::Docker => Vec::new(),
    };
    let in_use = InUse::new(taken);
    own.into_iter()
        .chain(pool(profile))
        .find(|candidate| in_use.leaves_free(candidate))
}

/// A user network's subnet: the first of the pool that is free.
pub fn next_subnet(profile: Profile, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let in_use = InUse::new(taken);
    pool(profile).find(|candidate| in_use.leaves_free(candidate))
}

/// Ours: 4,096 subnets of 256 addresses, 10.201.0.0 to 10.216.255.255, then Docker's. Docker's: 15 of 65,536, then 16 of
/// 4,096 addresses, which is where its "31 networks and no more" comes from.
fn pool(profile: Profile) -> impl Iterator<Item = Ipv4Net> {
    let small =
        (201..=216u8).flat_map(|b| (0..=255u8).map(move |c| net(Ipv4Addr::new(10, b, c, 0), 24)));
    let docker = (17..=31u8)
        .map(|b| net(Ipv4Addr::new(172, b, 0, 0), 16))
        .chain((0..=15u8).map(|c| net(Ipv4Addr::new(192, 168, c << 4, 0), 20)));
    small
        .filter(move |_| profile == Profile::Coracle)
        .chain(docker)
}

fn ten(second: u8) -> Ipv4Net {
    net(Ipv4Addr::new(10, second, 0, 0), 16)
}

fn net(address: Ipv4Addr, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(address, prefix)
}

/// What is in use, as runs of addresses in order: thousands of networks are looked up once for each candidate.
struct InUse(Vec<(u32, u32)>);

impl InUse {
    fn new(taken: &[Ipv4Net]) -> InUse {
        let mut runs: Vec<(u32, u32)> = taken
            .iter()
            .filter(|net| net.prefix_len() > SPLIT_DEFAULT)
            .map(|net| (net.network().to_bits(), net.broadcast().to_bits()))
            .collect();
        runs.sort_unstable();
        // Subnets nest or are apart: a run that ends earlier than one before it lies inside that one.
        let mut end = None;
        runs.retain(|run| {
            let outer = end.is_none_or(|end| run.1 > end);
            end = end.max(Some(run.1));
            outer
        });
        InUse(runs)
    }

    fn leaves_free(&self, candidate: &Ipv4Net) -> bool {
        let (first, last) = (
            candidate.network().to_bits(),
            candidate.broadcast().to_bits(),
        );
        let at = self.0.partition_point(|run| run.1 < first);
        self.0.get(at).is_none_or(|run| run.0 > last)
    }
}

/// The longest prefix that counts as a piece of a default route. A route as wide as this says "everything else goes
/// there" (a VPN's 0.0.0.0/1 and 128.0.0.0/1), not "this is in use".
const SPLIT_DEFAULT: u8 = 7;

pub fn overlaps(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Whether a subnet that a user asks for can be a network's at all.
pub fn check_subnet(subnet: Ipv4Net) -> Result<(), Error> {
    let canonical = subnet.trunc();
    if subnet != canonical {
        return Err(Error::SubnetHasHostBits { subnet, canonical });
    }
    if subnet.prefix_len() > 31 {
        return Err(Error::SubnetTooSmall(subnet));
    }
    let first = subnet.network();
    if subnet.prefix_len() == 0
        || first.is_loopback()
        || first.is_multicast()
        || first.octets()[0] == 0
    {
        return Err(Error::SubnetReserved(subnet));
    }
    Ok(())
}

/// The gateway asked for, checked, or the first address of the subnet.
pub fn gateway(subnet: Ipv4Net, asked: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
    let Some(gateway) = asked else {
        return subnet.hosts().next().ok_or(Error::SubnetTooSmall(subnet));
    };
    if !subnet.contains(&gateway) {
        return Err(Error::GatewayOutsideSubnet(gateway));
    }
    // Both addresses of a /31 are hosts' (RFC 3021).
    let is_edge = gateway == subnet.network() || gateway == subnet.broadcast();
    if is_edge && subnet.prefix_len() < 31 {
        return Err(Error::GatewayNotHost { gateway, subnet });
    }
    Ok(gateway)
}

/// The lowest address of a subnet that neither the gateway nor a container has.
pub fn lowest_free(
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    used: &HashSet<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    subnet
        .hosts()
        .find(|address| *address != gateway && !used.contains(address))
}

/// `02:42:` and the address, as Docker makes it: unique on the bridge, and a neighbour's cache stays right when an
/// address comes back.
pub fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn first_networks_are_the_documented_ones() {
        assert_eq!(
            default_subnet(Profile::Coracle, &[]),
            Some(n("10.200.0.0/16"))
        );
        assert_eq!(
            default_subnet(Profile::Docker, &[]),
            Some(n("172.17.0.0/16"))
        );
        assert_eq!(next_subnet(Profile::Coracle, &[]), Some(n("10.201.0.0/24")));
        let taken = [n("172.17.0.0/16")];
        assert_eq!(
            next_subnet(Profile::Docker, &taken),
            Some(n("172.18.0.0/16"))
        );
    }

    #[test]
    fn nested_engine_avoids_the_outer_ones_subnet() {
        let outer = [n("10.200.0.5/16"), n("10.201.0.0/24")];
        assert_eq!(
            default_subnet(Profile::Coracle, &outer),
            Some(n("10.217.0.0/16"))
        );
        assert_eq!(
            next_subnet(Profile::Coracle, &outer),
            Some(n("10.201.1.0/24"))
        );
    }

    #[test]
    fn pool_holds_4096_small_networks_before_it_turns_to_others() {
        let taken: Vec<_> = pool(Profile::Coracle).take(4096).collect();
        assert!(taken.iter().all(|net| net.prefix_len() == 24));
        assert_eq!(taken.last(), Some(&n("10.216.255.0/24")));
        assert_eq!(
            next_subnet(Profile::Coracle, &taken[..4095]),
            taken.last().copied()
        );
        assert_eq!(
            next_subnet(Profile::Coracle, &taken),
            Some(n("172.17.0.0/16"))
        );
    }

    #[test]
    fn nested_and_unordered_subnets_are_all_avoided() {
        let taken = [
            "10.201.3.0/24",
            "10.201.0.0/23",
            "10.201.1.128/25",
            "10.201.2.7/32",
            "10.201.0.0/30",
        ];
        let taken: Vec<_> = taken.into_iter().map(n).collect();
        assert_eq!(
            next_subnet(Profile::Coracle, &taken),
            Some(n("10.201.4.0/24"))
        );
    }

    #[test]
    fn docker_pool_ends_after_31_networks() {
        let all: Vec<_> = pool(Profile::Docker).collect();
        assert_eq!(all.len(), 31);
        assert_eq!(next_subnet(Profile::Docker, &all), None);
    }

    #[test]
    fn route_for_everything_is_no_use_of_a_subnet() {
        let vpn = [n("0.0.0.0/1"), n("128.0.0.0/1"), n("0.0.0.0/0")];
        assert_eq!(
            default_subnet(Profile::Coracle, &vpn),
            Some(n("10.200.0.0/16"))
        );
    }

    #[test]
    fn a_route_for_all_of_ten_moves_us_elsewhere() {
        let corporate = [n("10.0.0.0/8")];
        assert_eq!(
            default_subnet(Profile::Coracle, &corporate),
            Some(n("172.17.0.0/16"))
        );
    }

    #[test]
    fn lowest_free_address_is_reused() {
        let subnet = n("10.1.0.0/29");
        let gw = gateway(subnet, None).unwrap();
        assert_eq!(gw, Ipv4Addr::new(10, 1, 0, 1));
        let mut used = HashSet::new();
        let all: Vec<_> = std::iter::from_fn(|| {
            let next = lowest_free(subnet, gw, &used)?;
            used.insert(next);
            Some(next.octets()[3])
        })
        .collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        used.remove(&Ipv4Addr::new(10, 1, 0, 3));
        assert_eq!(
            lowest_free(subnet, gw, &used),
            Some(Ipv4Addr::new(10, 1, 0, 3))
        );
    }

    #[test]
    fn smallest_subnet_joins_a_gateway_and_one_container() {
        let subnet = n("10.1.0.4/31");
        check_subnet(subnet).unwrap();
        let gw = gateway(subnet, None).unwrap();
        assert_eq!(gw, Ipv4Addr::new(10, 1, 0, 4));
        let mut used = HashSet::new();
        let only = lowest_free(subnet, gw, &used).unwrap();
        assert_eq!(only, Ipv4Addr::new(10, 1, 0, 5));
        used.insert(only);
        assert_eq!(lowest_free(subnet, gw, &used), None);
        assert!(matches!(
            check_subnet(n("10.1.0.4/32")),
            Err(Error::SubnetTooSmall(_))
        ));
    }

    #[test]
    fn unusable_gateways_are_refused() {
        let subnet = n("10.1.0.0/24");
        let at = |text: &str| gateway(subnet, Some(text.parse().unwrap()));
        assert!(matches!(
            at("10.2.0.1"),
            Err(Error::GatewayOutsideSubnet(_))
        ));
        assert!(matches!(at("10.1.0.0"), Err(Error::GatewayNotHost { .. })));
        assert!(matches!(
            at("10.1.0.255"),
            Err(Error::GatewayNotHost { .. })
        ));
        assert_eq!(at("10.1.0.254").unwrap(), Ipv4Addr::new(10, 1, 0, 254));
    }

    #[test]
    fn unusable_subnets_are_refused() {
        assert!(matches!(
            check_subnet(n("10.1.0.1/24")),
            Err(Error::SubnetHasHostBits { .. })
        ));
        for reserved in ["0.0.0.0/0", "0.0.0.0/8", "127.1.0.0/16", "224.0.0.0/24"] {
            assert!(
                matches!(check_subnet(n(reserved)), Err(Error::SubnetReserved(_))),
                "{reserved}"
            );
        }
    }
}
