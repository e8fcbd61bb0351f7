//! Collects the rules of a chain and words their comments. Decides nothing.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::firewall::ruleset::{Chain, Match, Owner, Place, Rule, Sign, Table, Verdict};
use crate::model::{Endpoint, Profile};

/// What every comment of ours in the kernel starts with.
pub const COMMENT_TAG: &str = "coracle: ";

/// `xt_comment` holds 255 bytes; ours stay well below, names included.
const COMMENT_LIMIT: usize = 200;
const NAME_LIMIT: usize = 40;

/// Collects a chain's rules: sorts matches, writes comments, and keeps the first of equal rules (two host ports to one
/// container port need only one ACCEPT, as in Docker).
pub(super) struct Rules {
    profile: Profile,
    place: Place,
    seen: HashSet<(Vec<Match>, Verdict)>,
    rules: Vec<Rule>,
}

impl Rules {
    pub(super) fn new(profile: Profile) -> Rules {
        Rules {
            profile,
            place: Place::Tail,
            seen: HashSet::new(),
            rules: Vec::new(),
        }
    }

    pub(super) fn at(&mut self, place: Place) -> &mut Rules {
        self.place = place;
        self
    }

    pub(super) fn add(
        &mut self,
        mut matches: Vec<Match>,
        verdict: Verdict,
        why: String,
    ) -> &mut Rules {
        matches.sort();
        if !self.seen.insert((matches.clone(), verdict.clone())) {
            return self;
        }
        let comment = match self.profile {
            Profile::Coracle => Some(comment(&why)),
            Profile::Docker => None,
        };
        self.rules.push(Rule {
            place: self.place,
            matches,
            verdict,
            why,
            comment,
        });
        self
    }

    pub(super) fn chain(self, table: Table, name: &str, owner: Owner) -> Chain {
        Chain {
            table,
            name: name.to_owned(),
            owner,
            rules: self.rules,
        }
    }
}

pub(super) fn subject(endpoint: &Endpoint) -> String {
    let id: String = label(&endpoint.container_id).chars().take(12).collect();
    format!("container {} ({id})", label(&endpoint.container_name))
}

/// A name as it may stand in a comment: no quotes, blanks or line ends, whatever the database holds.
pub(super) fn label(name: &str) -> String {
    name.chars()
        .take(NAME_LIMIT)
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '.' | '-' => c,
            _ => '_',
        })
        .collect()
}

/// All of it is ASCII: `why` is ours and names went through [`label`].
fn comment(why: &str) -> String {
    format!("{COMMENT_TAG}{why}")
        .chars()
        .take(COMMENT_LIMIT)
        .collect()
}

pub(super) fn jump(chain: &str) -> Verdict {
    Verdict::Jump(chain.to_owned())
}

pub(super) fn input_is(interface: &str) -> Match {
    Match::In(Sign::Is, interface.to_owned())
}

pub(super) fn input_not(interface: &str) -> Match {
    Match::In(Sign::Not, interface.to_owned())
}

pub(super) fn output_is(interface: &str) -> Match {
    Match::Out(Sign::Is, interface.to_owned())
}

pub(super) fn output_not(interface: &str) -> Match {
    Match::Out(Sign::Not, interface.to_owned())
}

pub(super) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
