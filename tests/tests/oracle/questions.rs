//! The questions of the network, from outside and inside: every one has a key, by which the answers of the engines are compared.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::rr::RecordType;

use crate::talk::{Patience, Protocol};
use crate::world::{OUTER_PORT, World};
use crate::{dns, talk};

pub enum Ask {
    /// Who answers there?
    Reach {
        from: &'static str,
        protocol: Protocol,
        to: String,
        port: u16,
    },
    Name {
        from: &'static str,
        server: &'static str,
        protocol: Protocol,
        name: String,
        kind: RecordType,
    },
    /// A file as a container sees it.
    File {
        of: &'static str,
        path: &'static str,
    },
    /// Its links, their addresses and the settings of its namespace.
    Links { of: &'static str },
    /// A program in the namespace of a container.
    Tool {
        of: &'static str,
        line: &'static str,
    },
}

pub struct Question {
    pub key: String,
    pub ask: Ask,
}

impl Question {
    pub fn new(ask: Ask) -> Question {
        let key = match &ask {
            Ask::Reach {
                from,
                protocol,
                to,
                port,
            } => format!("reach {to} {port}/{} from {from}", protocol.as_str()),
            Ask::Name {
                from,
                protocol,
                name,
                kind,
                ..
            } => format!("name {name} {kind} by {} from {from}", protocol.as_str()),
            Ask::File { of, path } => format!("file {path} of {of}"),
            Ask::Links { of } => format!("links of {of}"),
            Ask::Tool { of, line } => format!("tool {line} in {of}"),
        };
        Question { key, ask }
    }

    pub fn put(&self, world: &World, patience: Patience) -> String {
        const GONE: &str = "it is not there";
        let answer = match &self.ask {
            Ask::Reach {
                from,
                protocol,
                to,
                port,
            } => match world.address(to) {
                Some(address) => {
                    let to = SocketAddr::new(address, *port);
                    world.at(from, |netns| talk::ask(netns, *protocol, to, patience))
                }
                None => None,
            },
            Ask::Name {
                from,
                server,
                protocol,
                name,
                kind,
            } => {
                let server = SocketAddr::new(server.parse().expect("an address"), 53);
                world.at(from, |netns| {
                    dns::ask(netns, server, *protocol, name, *kind, patience)
                })
            }
            Ask::File { of, path } => Some(world.file(of, path)),
            Ask::Links { of } => Some(world.links(of)),
            Ask::Tool { of, line } => Some(world.tool(of, line)),
        };
        world.comparable(answer.as_deref().unwrap_or(GONE))
    }
}

/// Puts many questions side by side: nearly all of the time is spent waiting for silence.
pub fn put_all(world: &World, questions: &[&Question], patience: Patience) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(vec![String::new(); questions.len()]);
    std::thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(question) = questions.get(number) else {
                        break;
                    };
                    let answer = question.put(world, patience);
                    answers.lock().unwrap()[number] = answer;
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

fn reach(all: &mut Vec<Question>, from: &'static str, to: &str, port: u16, protocol: Protocol) {
    all.push(Question::new(Ask::Reach {
        from,
        protocol,
        to: to.to_owned(),
        port,
    }));
}

const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// Host ports of the scenario, tcp and udp: all forms of `-p`, and ports that nobody has published.
const PUBLISHED: &[(u16, Protocol)] = &[
    (8080, Protocol::Tcp),
    (8080, Protocol::Udp),
    (8081, Protocol::Udp),
    (8082, Protocol::Tcp),
    (8083, Protocol::Tcp),
    (8086, Protocol::Tcp),
    (8087, Protocol::Tcp),
    (8088, Protocol::Tcp),
    (8093, Protocol::Tcp),
    (8095, Protocol::Tcp),
    (8096, Protocol::Tcp),
    (8096, Protocol::Udp),
    (8099, Protocol::Udp),
    (8180, Protocol::Tcp),
    (8180, Protocol::Udp),
    (8280, Protocol::Tcp),
    (8380, Protocol::Tcp),
    (8380, Protocol::Udp),
    (8381, Protocol::Tcp),
    (8382, Protocol::Tcp),
    (8480, Protocol::Tcp),
    (8580, Protocol::Tcp),
    (8680, Protocol::Tcp),
    (8780, Protocol::Tcp),
    (8780, Protocol::Udp),
    (8880, Protocol::Tcp),
];

/// Every published port, from everywhere, by every address of the host that leads there.
pub fn published(inside: &[&'static str]) -> Vec<Question> {
    let mut all = Vec::new();
    for &(port, protocol) in PUBLISHED {
        for to in [
            "127.0.0.1",
            "127.0.0.2",
            "::1",
            "10.61.0.1",
            "gateway@bridge",
        ] {
            reach(&mut all, "host", to, port, protocol);
        }
        for to in HOST {
            for from in ["host", "neighbour"] {
                reach(&mut all, from, to, port, protocol);
            }
        }
        for from in inside {
            reach(&mut all, from, HOST[0], port, protocol);
            reach(&mut all, from, "10.61.0.1", port, protocol);
        }
        for from in ["six", "multi"] {
            reach(&mut all, from, HOST[1], port, protocol);
            reach(&mut all, from, "fd00:63::1", port, protocol);
        }
    }
    all
}

/// Addresses of containers, from everywhere; ports that are published somewhere and ports that are not.
pub fn direct(inside: &[&'static str]) -> Vec<Question> {
    let addresses = [
        "10.61.0.10",
        "10.61.0.11",
        "10.61.0.13",
        "10.61.0.14",
        "10.62.0.200",
        "10.63.0.10",
        "10.63.0.20",
        "fd00:63::10",
        "fd00:63::20",
        "10.64.0.10",
        "10.64.0.12",
        "10.65.0.10",
        "10.65.0.11",
        "10.66.0.10",
        "10.67.0.10",
        "plain@bridge",
        "plain2@bridge",
    ];
    let mut all = Vec::new();
    for from in inside.iter().chain(&["host", "attacker"]) {
        for to in addresses {
            for (port, protocol) in [
                (80, Protocol::Tcp),
                (99, Protocol::Tcp),
                (99, Protocol::Udp),
            ] {
                // It has no way to an address that only this host knows.
                if !(*from == "attacker" && to.contains('@')) {
                    reach(&mut all, from, to, port, protocol);
                }
            }
        }
    }
    all
}

/// The way out: to other machines, to the host by its addresses, to bridges.
pub fn outward(inside: &[&'static str]) -> Vec<Question> {
    let mut all = Vec::new();
    for from in inside {
        for to in [
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
            "10.61.0.1",
            "10.62.0.254",
            "10.63.0.1",
            "fd00:63::1",
            "10.64.0.1",
            "10.65.0.1",
            "gateway@bridge",
            "127.0.0.1",
        ] {
            for protocol in Protocol::ALL {
                reach(&mut all, from, to, OUTER_PORT, protocol);
            }
        }
    }
    all
}

/// Names on user networks, and the way to the resolver on the LAN.
pub fn names(inside: &[&'static str]) -> Vec<Question> {
    let mut all = Vec::new();
    let mut name = |from, server, protocol, name: &str, kind| {
        all.push(Question::new(Ask::Name {
            from,
            server,
            protocol,
            name: name.to_owned(),
            kind,
        }));
    };
    const OWN: &str = "127.0.0.11";
    for from in inside {
        for asked in [
            "web.",
            "WEB.",
            "www.",
            "shop.",
            "web.front.",
            "sib.",
            "pool.",
            "twin.",
            "multi.",
            "m2.",
            "backer.",
            "six.",
            "sixth.",
            "inside2.",
            "both.",
            "quiet2.",
            "plain.",
            "idle.",
            "joined.",
            "later.",
            "fresh.",
        ] {
            name(*from, OWN, Protocol::Udp, asked, RecordType::A);
        }
        for (asked, kind) in [
            ("web.", RecordType::AAAA),
            ("six.", RecordType::AAAA),
            ("multi.", RecordType::AAAA),
            ("web.", RecordType::MX),
            ("10.0.61.10.in-addr.arpa.", RecordType::PTR),
            ("11.0.61.10.in-addr.arpa.", RecordType::PTR),
            ("200.0.62.10.in-addr.arpa.", RecordType::PTR),
            ("12.0.64.10.in-addr.arpa.", RecordType::PTR),
        ] {
            name(*from, OWN, Protocol::Udp, asked, kind);
        }
        name(*from, OWN, Protocol::Tcp, "sib.", RecordType::A);
        name(*from, OWN, Protocol::Tcp, "both.", RecordType::A);
    }
    for from in ["web", "sib", "inside"] {
        for asked in [
            "outside.example.",
            "asker.example.",
            "nosuch.example.",
            "localhost.",
        ] {
            name(from, OWN, Protocol::Udp, asked, RecordType::A);
        }
        name(
            from,
            OWN,
            Protocol::Udp,
            "outside.example.",
            RecordType::AAAA,
        );
    }
    for asked in ["outside.example.", "asker.example.", "plain2.", "web."] {
        name("plain", "192.0.2.2", Protocol::Udp, asked, RecordType::A);
    }
    all
}

/// Files, links and routes of containers.
pub fn inner(inside: &[&'static str]) -> Vec<Question> {
    let mut all = Vec::new();
    for of in inside {
        for path in ["etc/hosts", "etc/resolv.conf", "etc/hostname"] {
            all.push(Question::new(Ask::File { of, path }));
        }
        // The host's own are not the engine's.
        if *of != "hosted" {
            all.push(Question::new(Ask::Links { of }));
            for line in [
                "ip -4 route",
                "ip -6 route show default",
                "ip rule",
                "ip -6 rule",
            ] {
                all.push(Question::new(Ask::Tool { of, line }));
            }
        }
    }
    all
}
