//! Where networks that name no subnet get theirs.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::Subnet;
use crate::change::Pool;
use crate::error::Error;
use crate::model::Profile;

/// The default network's subnet: the profile's own, or a later one where the host already uses that. An engine inside
/// a container meets the outer engine's subnet as a route of its own host. Configured pools come first, as in Docker.
///
/// The search begins behind the last one in use: an engine in a container in a container sees the route of the level above
/// it alone, and must not take that of the level above that one, whose clients it answers.
pub fn default_subnet(profile: Profile, pools: &[Pool], taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let own = |second| pool([10, second, 0, 0], 16, 16);
    let mut all: Vec<Pool> = match (profile, pools) {
        (Profile::Coracle, []) => [200].into_iter().chain(217..=231).map(own).collect(),
        _ => Vec::new(),
    };
    let in_use = |pool: &Pool| taken.iter().any(|net| super::overlap(pool.base, *net));
    if let Some(last) = all.iter().rposition(in_use) {
        all.rotate_left(last + 1);
    }
    all.extend(in_order(profile, pools));
    first_of(&all, taken)
}

/// A user network's subnet: the first of the pools that is free.
pub fn next_subnet(profile: Profile, pools: &[Pool], taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    first_of(&in_order(profile, pools), taken)
}

/// Whether a pool of the configuration can be cut as it says.
pub fn check_pool(pool: &Pool) -> Result<(), Error> {
    let fits = (pool.base.prefix_len().max(1)..Ipv4Net::BITS).contains(&pool.size);
    match fits && !pool.base.is_reserved() {
        true => Ok(()),
        false => Err(Error::Pool {
            base: pool.base,
            size: pool.size,
        }),
    }
}

fn in_order(profile: Profile, pools: &[Pool]) -> Vec<Pool> {
    match pools.is_empty() {
        true => built_in(profile),
        false => pools.to_vec(),
    }
}

/// Ours: 4,096 subnets of 256 addresses, 10.201.0.0 to 10.216.255.255, then Docker's. Docker's: 15 of 65,536, then 16 of
/// 4,096 addresses, which is where its "31 networks and no more" comes from.
fn built_in(profile: Profile) -> Vec<Pool> {
    let small = (201..=216).map(|second| pool([10, second, 0, 0], 16, 24));
    let docker = (17..=31).map(|second| pool([172, second, 0, 0], 16, 16));
    small
        .filter(|_| profile == Profile::Coracle)
        .chain(docker)
        .chain([pool([192, 168, 0, 0], 16, 20)])
        .collect()
}

fn pool(base: [u8; 4], prefix: u8, size: u8) -> Pool {
    Pool {
        base: Ipv4Net::new_assert(Ipv4Addr::from(base), prefix),
        size,
    }
}

fn first_of(pools: &[Pool], taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let in_use = InUse::new(taken);
    pools
        .iter()
        .find_map(|pool| in_use.first_free(pool.base.trunc(), pool.size))
}

/// What is in use, as runs of addresses in order that do not touch: a search jumps over a run at once, however many candidates it covers.
pub(super) struct InUse(Vec<(u128, u128)>);

impl InUse {
    pub(super) fn new<S: Subnet>(taken: &[S]) -> InUse {
        let mut runs: Vec<(u128, u128)> =
            taken.iter().map(|net| (net.first(), net.last())).collect();
        // Mostly in order already, as they were chosen: this sort takes advantage of it.
        runs.sort();
        let mut joined: Vec<(u128, u128)> = Vec::new();
        for (first, last) in runs {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last)
                }
                _ => joined.push((first, last)),
            }
        }
        InUse(joined)
    }

    /// The lowest block of prefix length `size` in `base` that nothing in use touches.
    pub(super) fn first_free<S: Subnet>(&self, base: S, size: u8) -> Option<S> {
        let length = 1_u128 << (S::BITS - size);
        let mut first = base.first();
        loop {
            let last = first.checked_add(length - 1)?;
            if last > base.last() {
                return None;
            }
            let at = self.0.partition_point(|run| run.1 < first);
            match self.0.get(at) {
                // On to the first block behind what is in the way; blocks lie on multiples of their length.
                Some(run) if run.0 <= last => first = (run.1 / length + 1).checked_mul(length)?,
                _ => return Some(S::of(first, size)),
            }
        }
    }
}

/// The longest prefix that counts as a piece of a default route. A route as wide as this says "everything else goes
/// there" (a VPN's 0.0.0.0/1 and 128.0.0.0/1), not "this is in use".
const SPLIT_DEFAULT: u8 = 7;

/// Whether a route of the host says that its destination is in use there.
pub fn is_in_use(route: IpNet) -> bool {
    route.prefix_len() > SPLIT_DEFAULT
}

/// Whether a subnet lies in the way of a route of the host, or a route in its way; a default route is in nobody's.
pub fn overlaps_route(subnet: IpNet, route: IpNet) -> bool {
    is_in_use(route) && (route.contains(&subnet.network()) || subnet.contains(&route.network()))
}
