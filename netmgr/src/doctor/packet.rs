//! Sample packets of ours, and how a chain of anyone's rules treats them. Pure.
//!
//! A rule is tests and a verdict; a test may be one that is not understood. What is not certain never makes a drop
//! certain: an accept that may apply turns a drop after it into a doubtful one, and a drop that may apply is passed over.

use std::net::IpAddr;

use ipnet::IpNet;

/// Yes, no, or not to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    Perhaps,
}

impl Answer {
    pub(super) fn from(answer: bool) -> Answer {
        match answer {
            true => Answer::Yes,
            false => Answer::No,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// Names, `+` or `*` at the end standing for anything.
    In(Vec<String>),
    Out(Vec<String>),
    Source(Vec<IpNet>),
    Destination(Vec<IpNet>),
    Protocol(Vec<String>),
    Port(Vec<(u16, u16)>),
    /// Connection tracking states, in lower case; `dnat` for a translated destination.
    State(Vec<String>),
    Family(u8),
    Not(Box<Test>),
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
    /// Counts, logs, marks: the next rule comes.
    Nothing,
    /// May accept.
    Unknown,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) tests: Vec<Test>,
    pub(super) verdict: Verdict,
    /// `rule 3 (-j DROP)`, or `rule with handle 7`.
    pub(super) name: String,
    /// Carries a comment of ours.
    pub(super) ours: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) rules: Vec<Rule>,
    /// Of a base chain: the hook, and whether its policy is to drop.
    pub(super) base: Option<(String, bool)>,
}

/// A table of one family: whose, and in which order.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// `table inet filter`, `iptables table filter`.
    pub(super) title: String,
    /// 4, 6, or both for `inet`.
    pub(super) families: &'static [u8],
    pub(super) name: String,
    /// `nft add rule inet filter`, to which chain and rule are added; or `iptables -I`.
    pub(super) allow: Allow,
    pub(super) chains: Vec<Chain>,
}

/// In which words the administrator lets our packets through.
#[derive(Clone, Debug)]
pub(super) enum Allow {
    Nft { family: String },
    Xtables { command: String, table: String },
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// `containers of network net reach the outside`.
    pub(super) what: String,
    pub(super) hook: &'static str,
    pub(super) bridge: String,
    /// The bridge is where it comes from, or where it goes to.
    pub(super) from_bridge: bool,
    pub(super) input: Option<String>,
    pub(super) output: Option<String>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    pub(super) states: &'static [&'static str],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Passes,
    Dropped {
        chain: String,
        /// `policy drop`, or the rule's name.
        by: String,
        certain: bool,
        ours: bool,
        policy: bool,
    },
}

enum Step {
    Fate(Fate),
    /// The chain came to its end.
    Through,
    Returned,
}

/// What becomes of a packet in a base chain.
pub(super) fn fate(table: &Table, base: &Chain, packet: &Packet) -> Fate {
    let mut doubtful = false;
    match walk(table, base, packet, &mut doubtful, true, 0) {
        Step::Fate(fate) => fate,
        Step::Through | Step::Returned => match &base.base {
            Some((_, true)) => Fate::Dropped {
                chain: base.name.clone(),
                by: "policy drop".to_owned(),
                certain: !doubtful,
                ours: false,
                policy: true,
            },
            _ => Fate::Passes,
        },
    }
}

/// The kernel allows 16 jumps one into the other.
const DEPTH: usize = 16;

fn walk(
    table: &Table,
    chain: &Chain,
    packet: &Packet,
    doubtful: &mut bool,
    reached: bool,
    depth: usize,
) -> Step {
    for rule in &chain.rules {
        let applies = all(&rule.tests, packet);
        if applies == Answer::No {
            continue;
        }
        let certain = applies == Answer::Yes && reached;
        match &rule.verdict {
            Verdict::Nothing => {}
            Verdict::Accept if certain => return Step::Fate(Fate::Passes),
            Verdict::Accept | Verdict::Unknown => *doubtful = true,
            Verdict::Drop if certain => {
                return Step::Fate(Fate::Dropped {
                    chain: chain.name.clone(),
                    by: rule.name.clone(),
                    certain: !*doubtful,
                    ours: rule.ours,
                    policy: false,
                });
            }
            Verdict::Drop => {}
            Verdict::Return if certain => return Step::Returned,
            // What comes after may be skipped.
            Verdict::Return => *doubtful = true,
            Verdict::Jump(name) | Verdict::Goto(name) => {
                let next = table.chains.iter().find(|c| c.name == *name);
                let Some(next) = next.filter(|_| depth < DEPTH) else {
                    // A target that is an extension of xtables, or a set.
                    *doubtful = true;
                    continue;
                };
                match walk(table, next, packet, doubtful, certain, depth + 1) {
                    Step::Fate(fate) => return Step::Fate(fate),
                    Step::Through | Step::Returned
                        if certain && matches!(rule.verdict, Verdict::Goto(_)) =>
                    {
                        return Step::Returned;
                    }
                    Step::Through | Step::Returned => {}
                }
            }
        }
    }
    Step::Through
}

fn all(tests: &[Test], packet: &Packet) -> Answer {
    let mut answer = Answer::Yes;
    for test in tests {
        match ask(test, packet) {
            Answer::No => return Answer::No,
            Answer::Perhaps => answer = Answer::Perhaps,
            Answer::Yes => {}
        }
    }
    answer
}

fn ask(test: &Test, packet: &Packet) -> Answer {
    let within = |nets: &[IpNet], address: &IpAddr| nets.iter().any(|n| n.contains(address));
    match test {
        Test::In(names) => interface(names, packet.input.as_deref()),
        Test::Out(names) => interface(names, packet.output.as_deref()),
        Test::Source(nets) => Answer::from(within(nets, &packet.source)),
        Test::Destination(nets) => Answer::from(within(nets, &packet.destination)),
        Test::Protocol(names) => Answer::from(names.iter().any(|n| n == packet.protocol)),
        Test::Port(runs) => Answer::from(runs.iter().any(|r| (r.0..=r.1).contains(&packet.port))),
        Test::State(states) => {
            Answer::from(states.iter().any(|s| packet.states.contains(&s.as_str())))
        }
        Test::Family(family) => Answer::from((*family == 4) == packet.destination.is_ipv4()),
        Test::Not(test) => match ask(test, packet) {
            Answer::Yes => Answer::No,
            Answer::No => Answer::Yes,
            Answer::Perhaps => Answer::Perhaps,
        },
        Test::Unknown => Answer::Perhaps,
    }
}

fn interface(names: &[String], found: Option<&str>) -> Answer {
    let Some(found) = found else {
        return Answer::No;
    };
    let is = |name: &String| match name.strip_suffix(['+', '*']) {
        Some(start) => found.starts_with(start),
        None => found == name,
    };
    Answer::from(names.iter().any(is))
}
