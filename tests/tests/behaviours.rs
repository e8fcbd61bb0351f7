//! The behaviours of a container network, each tried from outside over every firewall, family, protocol and FORWARD policy to which it
//! applies. The matrix is generated; its size is printed.
//!
//! A cell is a test of its own: `behaviours nftables/forward-drop/v6/udp/03`. Cells of one world share a host and run side by side.

#[path = "behaviours/isolation.rs"]
mod isolation;
#[path = "behaviours/lifecycle.rs"]
mod lifecycle;
#[path = "behaviours/names.rs"]
mod names;
#[path = "behaviours/published.rs"]
mod published;
#[path = "behaviours/spoof.rs"]
mod spoof;
#[path = "behaviours/talk.rs"]
mod talk;
#[path = "behaviours/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};

use talk::{Family, Protocol};
use world::{Forward, World};

/// What a behaviour varies with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axes {
    /// Family, protocol and policy.
    All,
    /// Family and policy.
    Families,
    /// Protocol and policy, with one family only.
    Protocols(Family),
    /// Policy alone.
    Once,
    /// The firewall alone: on a host of its own.
    Firewall,
}

struct Behaviour {
    number: u8,
    title: &'static str,
    axes: Axes,
    check: fn(&World, Family, Protocol),
}

const fn behaviour(
    number: u8,
    title: &'static str,
    axes: Axes,
    check: fn(&World, Family, Protocol),
) -> Behaviour {
    Behaviour {
        number,
        title,
        axes,
        check,
    }
}

/// By the numbers of section 4 of the reference on networking; 40 and above are ours.
const BEHAVIOURS: &[Behaviour] = &[
    behaviour(
        1,
        "published-from-every-host-address",
        Axes::All,
        published::from_every_address_of_the_host,
    ),
    behaviour(
        2,
        "published-from-another-machine",
        Axes::All,
        published::from_another_machine,
    ),
    behaviour(
        3,
        "hairpin-to-another-network",
        Axes::All,
        published::hairpin_to_another_network,
    ),
    behaviour(
        4,
        "own-port-and-siblings",
        Axes::All,
        published::own_published_port_and_a_siblings,
    ),
    behaviour(
        5,
        "from-another-network-by-gateways",
        Axes::All,
        published::from_another_network_by_gateways,
    ),
    behaviour(
        6,
        "v6-host-address-to-v4-container",
        Axes::Protocols(Family::V6),
        published::v6_host_address_to_a_v4_container,
    ),
    behaviour(
        7,
        "unpublished-port",
        Axes::All,
        published::unpublished_port,
    ),
    behaviour(
        8,
        "route-to-the-container",
        Axes::All,
        published::route_to_the_container,
    ),
    behaviour(
        9,
        "published-on-loopback",
        Axes::All,
        published::published_on_loopback,
    ),
    behaviour(
        10,
        "two-loopback-addresses",
        Axes::Protocols(Family::V4),
        published::two_loopback_addresses,
    ),
    behaviour(
        11,
        "ephemeral-ports",
        Axes::Protocols(Family::V4),
        published::ephemeral_ports,
    ),
    behaviour(
        12,
        "restart-in-time-wait",
        Axes::All,
        lifecycle::restart_while_in_time_wait,
    ),
    behaviour(
        13,
        "no-stale-connection",
        Axes::Families,
        lifecycle::no_stale_connection,
    ),
    behaviour(
        14,
        "same-network-by-address",
        Axes::All,
        isolation::same_network,
    ),
    behaviour(
        14,
        "same-network-by-name",
        Axes::Once,
        names::same_network_by_name,
    ),
    behaviour(
        15,
        "two-networks-are-apart",
        Axes::All,
        isolation::two_networks,
    ),
    behaviour(
        16,
        "published-across-networks",
        Axes::All,
        isolation::published_across_networks,
    ),
    behaviour(
        17,
        "internal-network",
        Axes::All,
        isolation::internal_network,
    ),
    behaviour(
        19,
        "address-that-moves",
        Axes::Families,
        isolation::address_that_moves,
    ),
    behaviour(
        20,
        "read-only-proc",
        Axes::Firewall,
        lifecycle::read_only_proc,
    ),
    behaviour(21, "port-in-use", Axes::All, lifecycle::port_in_use),
    behaviour(
        22,
        "flushed-rules",
        Axes::Firewall,
        lifecycle::flushed_rules,
    ),
    behaviour(
        23,
        "switched-backend",
        Axes::Firewall,
        lifecycle::switched_backend,
    ),
    behaviour(
        24,
        "failing-firewall-24-and-25",
        Axes::Firewall,
        lifecycle::failing_firewall,
    ),
    behaviour(
        26,
        "one-broken-network",
        Axes::Firewall,
        lifecycle::one_broken_network,
    ),
    behaviour(
        27,
        "unusual-networks",
        Axes::Families,
        lifecycle::unusual_networks,
    ),
    behaviour(
        28,
        "names-and-aliases",
        Axes::Families,
        names::names_and_aliases,
    ),
    behaviour(
        29,
        "internal-networks-do-not-forward",
        Axes::Once,
        names::internal_networks_do_not_forward,
    ),
    behaviour(
        30,
        "input-chain-drops",
        Axes::Families,
        names::input_chain_drops,
    ),
    behaviour(
        31,
        "hosts-file-follows",
        Axes::Once,
        names::hosts_file_follows,
    ),
    behaviour(40, "way-out", Axes::All, isolation::way_out),
    behaviour(41, "without-icc", Axes::All, isolation::without_icc),
    behaviour(42, "escape-hatches", Axes::All, isolation::escape_hatches),
    behaviour(
        43,
        "spoofed-sources",
        Axes::Families,
        published::spoofed_sources,
    ),
    behaviour(
        45,
        "chosen-by-itself",
        Axes::Firewall,
        lifecycle::chosen_by_itself,
    ),
    behaviour(
        44,
        "own-server-on-port-53",
        Axes::All,
        names::own_server_on_port_53,
    ),
];

/// 18 is a world of its own: these are what a foreign DROP at the end of FORWARD must not break.
const BESIDE_A_FOREIGN_DROP: [u8; 8] = [1, 2, 3, 5, 14, 15, 40, 41];

const FIREWALLS: [&str; 2] = ["iptables", "nftables"];

/// The older flavour of iptables writes the same rules: what shows that they are in force.
const WITH_LEGACY_IPTABLES: [u8; 9] = [1, 2, 3, 7, 8, 9, 14, 15, 17];

/// The hosts, made when they are first needed and taken down at the end.
type Worlds = Mutex<BTreeMap<(&'static str, &'static str), Arc<World>>>;

fn world(worlds: &Worlds, firewall: &'static str, forward: Forward) -> Arc<World> {
    let mut worlds = worlds.lock().unwrap_or_else(|poison| poison.into_inner());
    let key = (firewall, forward.as_str());
    Arc::clone(
        worlds
            .entry(key)
            .or_insert_with(|| Arc::new(World::new(firewall, forward))),
    )
}

fn cells(behaviour: &Behaviour, forward: Forward) -> Vec<(String, Family, Protocol)> {
    let mut cells = Vec::new();
    for family in Family::ALL {
        for protocol in Protocol::ALL {
            let first = (Family::V4, Protocol::Udp);
            let (applies, name) = match behaviour.axes {
                Axes::All => (true, format!("{}/{}/", family.as_str(), protocol.as_str())),
                // Those that look at datagrams are about those.
                Axes::Families => (protocol == Protocol::Udp, format!("{}/", family.as_str())),
                Axes::Protocols(only) => (family == only, format!("{}/", protocol.as_str())),
                Axes::Once => ((family, protocol) == first, String::new()),
                Axes::Firewall => (
                    (family, protocol) == first && forward == Forward::Accept,
                    String::new(),
                ),
            };
            if applies {
                cells.push((name, family, protocol));
            }
        }
    }
    cells
}

/// The two smaller worlds are about what they differ in.
fn applies(firewall: &str, forward: Forward, number: u8) -> bool {
    match (firewall, forward) {
        ("iptables-legacy", Forward::Accept) => WITH_LEGACY_IPTABLES.contains(&number),
        ("iptables-legacy", _) => false,
        (_, Forward::AppendedDrop) => BESIDE_A_FOREIGN_DROP.contains(&number),
        _ => true,
    }
}

fn matrix(worlds: &Arc<Worlds>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for firewall in FIREWALLS.into_iter().chain(["iptables-legacy"]) {
        for forward in [Forward::Accept, Forward::Drop, Forward::AppendedDrop] {
            for behaviour in BEHAVIOURS {
                if !applies(firewall, forward, behaviour.number) {
                    continue;
                }
                for (name, family, protocol) in cells(behaviour, forward) {
                    let worlds = Arc::clone(worlds);
                    let check = behaviour.check;
                    let name = format!(
                        "{firewall}/{}/{name}{:02}-{}",
                        forward.as_str(),
                        behaviour.number,
                        behaviour.title
                    );
                    trials.push(Trial::test(name, move || {
                        check(&world(&worlds, firewall, forward), family, protocol);
                        Ok::<(), Failed>(())
                    }));
                }
            }
        }
    }
    trials
}

fn main() {
    let mut arguments = Arguments::from_args();
    // The cells wait far more than they compute.
    if let Some(threads) = &mut arguments.test_threads {
        *threads *= 3;
    }
    let worlds: Arc<Worlds> = Arc::default();
    let trials = matrix(&worlds);
    println!(
        "{} behaviours make {} cells",
        BEHAVIOURS.len() + 1,
        trials.len()
    );
    let conclusion = libtest_mimic::run(&arguments, trials);
    // After the last cell a host must be as clean as after any other test.
    let worlds = std::mem::take(&mut *worlds.lock().unwrap_or_else(|poison| poison.into_inner()));
    for (key, world) in worlds {
        println!("taking down {key:?}");
        world.host.remove_everything();
        world.host.assert_clean();
    }
    conclusion.exit();
}
