//! The iptables backend's text, of both families: rules as `iptables-save` and `ip6tables-save` print them, batches for `iptables-restore`, and the way back.
//!
//! No policy here, and no command is run. Rules are written in the very form in which `iptables-save` prints them, so
//! that what we read back compares as text once it went through [`parse`].

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ruleset::{Dnat, Match, Owner, Rule, Ruleset, Sign, Table, Verdict};
use crate::model::Protocol;

/// A rule without its `-A CHAIN`: `-o coracle0 -j CORACLE`. Two rules are the same when their specs are.
pub fn spec(rule: &Rule) -> String {
    let mut out = String::with_capacity(96);
    for m in &rule.matches {
        write_match(&mut out, m);
    }
    if let Some(comment) = &rule.comment {
        let _ = write!(out, "-m comment --comment \"{}\" ", escape(comment));
    }
    out.push_str("-j ");
    write_verdict(&mut out, &rule.verdict);
    out
}

fn write_match(out: &mut String, m: &Match) {
    let not = |sign: &Sign| match sign {
        Sign::Is => "",
        Sign::Not => "! ",
    };
    // Writing to a String cannot fail.
    let _ = match m {
        Match::Source(sign, net) => write!(out, "{}-s {net} ", not(sign)),
        Match::Destination(sign, net) => write!(out, "{}-d {net} ", not(sign)),
        Match::In(sign, interface) => write!(out, "{}-i {interface} ", not(sign)),
        Match::Out(sign, interface) => write!(out, "{}-o {interface} ", not(sign)),
        Match::Ports(protocol, first, last) => {
            let p = protocol.as_str();
            if first == last {
                write!(out, "-p {p} -m {p} --dport {first} ")
            } else {
                write!(out, "-p {p} -m {p} --dport {first}:{last} ")
            }
        }
        Match::LocalDestination => write!(out, "-m addrtype --dst-type LOCAL "),
        Match::Established => write!(out, "-m conntrack --ctstate RELATED,ESTABLISHED "),
    };
}

fn write_verdict(out: &mut String, verdict: &Verdict) {
    match verdict {
        Verdict::Accept => out.push_str("ACCEPT"),
        Verdict::Drop => out.push_str("DROP"),
        Verdict::Return => out.push_str("RETURN"),
        Verdict::Masquerade => out.push_str("MASQUERADE"),
        Verdict::Jump(chain) => out.push_str(chain),
        Verdict::Dnat(dnat) => {
            let _ = match dnat.address {
                IpAddr::V4(ip) => write!(out, "DNAT --to-destination {ip}:{}", dnat.first),
                IpAddr::V6(ip) => write!(out, "DNAT --to-destination [{ip}]:{}", dnat.first),
            };
            if dnat.last != dnat.first {
                let _ = write!(out, "-{}", dnat.last);
            }
            if let Some(base) = dnat.base {
                let _ = write!(out, "/{base}");
            }
        }
        Verdict::Redirect(port) => {
            let _ = write!(out, "REDIRECT --to-ports {port}");
        }
    }
}

/// As `iptables-save` does (`xtables_save_string`).
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '"' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// What `iptables-save` would print for these tables, had nobody else a rule. `forward_policy` is the policy of FORWARD,
/// which is the host's and not part of a [`Ruleset`].
pub fn render_save(ruleset: &Ruleset, tables: &[Table], forward_policy: &str) -> String {
    let mut out = String::new();
    for &table in tables {
        let _ = writeln!(out, "*{}", table.as_str());
        for chain in table.built_in_chains() {
            let policy = if *chain == "FORWARD" {
                forward_policy
            } else {
                "ACCEPT"
            };
            let _ = writeln!(out, ":{chain} {policy} [0:0]");
        }
        let mut own: Vec<_> = ruleset
            .chains_of(table)
            .filter(|c| c.owner != Owner::Host)
            .collect();
        own.sort_by(|a, b| a.name.cmp(&b.name));
        for chain in &own {
            let _ = writeln!(out, ":{} - [0:0]", chain.name);
        }
        let built_in = table
            .built_in_chains()
            .iter()
            .filter_map(|name| ruleset.chain(table, name));
        for chain in built_in.chain(own) {
            for rule in &chain.rules {
                let _ = writeln!(out, "-A {} {}", chain.name, spec(rule));
            }
        }
        out.push_str("COMMIT\n");
    }
    out
}

/// One line of a batch for `iptables-restore --noflush`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// `:NAME - [0:0]`: makes the chain, or empties it if it is there.
    Chain(String),
    Append(String, String),
    /// Position from 1.
    Insert(String, usize, String),
    Delete(String, String),
    /// `-X NAME`: the chain must be empty and not referred to.
    RemoveChain(String),
}

/// A batch under construction: the lines of each table, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub raw: Vec<Line>,
    pub filter: Vec<Line>,
    pub nat: Vec<Line>,
}

impl Script {
    pub fn is_empty(&self) -> bool {
        Table::ALL.iter().all(|&t| self.lines(t).is_empty())
    }

    pub fn lines(&self, table: Table) -> &Vec<Line> {
        match table {
            Table::Raw => &self.raw,
            Table::Filter => &self.filter,
            Table::Nat => &self.nat,
        }
    }

    pub fn lines_mut(&mut self, table: Table) -> &mut Vec<Line> {
        match table {
            Table::Raw => &mut self.raw,
            Table::Filter => &mut self.filter,
            Table::Nat => &mut self.nat,
        }
    }

    /// The input of `iptables-restore --noflush`. Each table is one transaction; `nat` comes last, so that nothing is let
    /// in before the rules that confine it stand. What only removes goes the other way round, for the same reason.
    ///
    /// That order is also the faster one: after a table with removals iptables waits for an RCU grace period (8 to 15 ms)
    /// when it next asks the kernel about an extension, and `nat` needs all of those that the other tables need.
    pub fn render(&self) -> String {
        let mut tables = Table::ALL;
        if self.only_removes() {
            tables.reverse();
        }
        let mut out = String::new();
        for table in tables {
            if self.lines(table).is_empty() {
                continue;
            }
            let _ = writeln!(out, "*{}", table.as_str());
            for line in self.lines(table) {
                let _ = match line {
                    Line::Chain(name) => writeln!(out, ":{name} - [0:0]"),
                    Line::Append(chain, spec) => writeln!(out, "-A {chain} {spec}"),
                    Line::Insert(chain, 1, spec) => writeln!(out, "-I {chain} {spec}"),
                    Line::Insert(chain, at, spec) => writeln!(out, "-I {chain} {at} {spec}"),
                    Line::Delete(chain, spec) => writeln!(out, "-D {chain} {spec}"),
                    Line::RemoveChain(name) => writeln!(out, "-X {name}"),
                };
            }
            out.push_str("COMMIT\n");
        }
        out
    }

    fn only_removes(&self) -> bool {
        let adds = |line: &Line| matches!(line, Line::Append(..) | Line::Insert(..));
        !Table::ALL
            .iter()
            .any(|&table| self.lines(table).iter().any(adds))
    }
}

/// A rule as found: its spec in our own form where it is one that we could have written, else as it was printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    pub spec: String,
    pub comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundChain {
    pub table: Table,
    pub name: String,
    /// `ACCEPT` or `DROP` for a built-in chain, `-` else.
    pub policy: String,
    pub rules: Vec<FoundRule>,
}

/// Reads the output of `iptables-save`, and batches of ours as well. Tables that we never write are passed over.
pub fn parse(text: &str) -> Vec<FoundChain> {
    let mut chains: Vec<FoundChain> = Vec::new();
    let mut table = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = Table::ALL.into_iter().find(|t| t.as_str() == name);
            continue;
        }
        let Some(table) = table else { continue };
        if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split_whitespace();
            if let Some(name) = words.next() {
                let policy = words.next().unwrap_or("-").to_owned();
                find_chain(&mut chains, table, name).policy = policy;
            }
        } else if let Some((chain, spec)) = split_rule(line) {
            let rule = parse_rule(spec);
            find_chain(&mut chains, table, chain).rules.push(rule);
        }
    }
    chains
}

fn find_chain<'a>(chains: &'a mut Vec<FoundChain>, table: Table, name: &str) -> &'a mut FoundChain {
    let at = chains
        .iter()
        .position(|c| c.table == table && c.name == name)
        .unwrap_or_else(|| {
            chains.push(FoundChain {
                table,
                name: name.to_owned(),
                policy: "-".to_owned(),
                rules: Vec::new(),
            });
            chains.len() - 1
        });
    &mut chains[at]
}

/// `-A CHAIN SPEC` (and `-I CHAIN [N] SPEC`, `-D CHAIN SPEC`, which stand in batches), counters removed.
pub(super) fn split_rule(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ")?.1,
        None => line,
    };
    let rest = ["-A ", "-I ", "-D "]
        .iter()
        .find_map(|verb| line.strip_prefix(verb))?;
    let (chain, spec) = rest.split_once(' ').unwrap_or((rest, ""));
    match spec.split_once(' ') {
        Some((number, spec)) if number.parse::<usize>().is_ok() => Some((chain, spec)),
        _ => Some((chain, spec)),
    }
}

pub(super) fn parse_rule(text: &str) -> FoundRule {
    let words = split_words(text);
    let comment = words
        .windows(2)
        .find(|w| w[0] == "--comment")
        .map(|w| w[1].clone());
    let spec = match understand(&words) {
        Some(rule) => spec(&rule),
        None => text.to_owned(),
    };
    FoundRule { spec, comment }
}

/// Words as `iptables-save` quotes them: double quotes, with backslashes inside.
fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut started) = (false, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                started = true;
            }
            '\\' if quoted => word.extend(chars.next()),
            c if c.is_whitespace() && !quoted => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

/// Reads a rule of the kinds that we write, whatever the order of its matches; `None` for anything else.
pub(super) fn understand(words: &[String]) -> Option<Rule> {
    let mut matches = Vec::new();
    let mut comment = None;
    let mut verdict = None;
    let mut protocol = None;
    let mut sign = Sign::Is;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "!" {
            sign = Sign::Not;
            continue;
        }
        let value = words.next()?;
        // Only the first four can be negated in what we write.
        if sign == Sign::Not && !matches!(word, "-s" | "-d" | "-i" | "-o") {
            return None;
        }
        match word {
            "-s" => matches.push(Match::Source(sign, parse_net(value)?)),
            "-d" => matches.push(Match::Destination(sign, parse_net(value)?)),
            "-i" => matches.push(Match::In(sign, value.to_owned())),
            "-o" => matches.push(Match::Out(sign, value.to_owned())),
            "-p" => protocol = Some(parse_protocol(value)?),
            "-m" => match value {
                "comment" | "conntrack" | "addrtype" => {}
                other => {
                    // `-m tcp` comes before `--dport` and must agree with `-p`.
                    if Some(parse_protocol(other)?) != protocol {
                        return None;
                    }
                }
            },
            "--dport" => {
                let (first, last) = value.split_once(':').unwrap_or((value, value));
                let ports = (first.parse().ok()?, last.parse().ok()?);
                matches.push(Match::Ports(protocol.take()?, ports.0, ports.1));
            }
            "--ctstate" if value == "RELATED,ESTABLISHED" => matches.push(Match::Established),
            "--dst-type" if value == "LOCAL" => matches.push(Match::LocalDestination),
            "--comment" => comment = Some(value.to_owned()),
            "-j" => verdict = Some(parse_verdict(value, &mut words)?),
            _ => return None,
        }
        sign = Sign::Is;
    }
    // A protocol without a port is none of ours.
    if protocol.is_some() {
        return None;
    }
    matches.sort();
    Some(Rule {
        place: super::ruleset::Place::Tail,
        matches,
        verdict: verdict?,
        why: String::new(),
        comment,
    })
}

fn parse_verdict<'a>(name: &str, words: &mut impl Iterator<Item = &'a str>) -> Option<Verdict> {
    Some(match name {
        "ACCEPT" => Verdict::Accept,
        "DROP" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        "MASQUERADE" => Verdict::Masquerade,
        "DNAT" => {
            if words.next()? != "--to-destination" {
                return None;
            }
            Verdict::Dnat(parse_dnat(words.next()?)?)
        }
        "REDIRECT" => {
            if words.next()? != "--to-ports" {
                return None;
            }
            Verdict::Redirect(words.next()?.parse().ok()?)
        }
        // Targets with options of their own are met as unknown words afterwards.
        chain => Verdict::Jump(chain.to_owned()),
    })
}

fn parse_dnat(text: &str) -> Option<Dnat> {
    let (address, ports) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, ports) = rest.split_once("]:")?;
            (IpAddr::V6(address.parse().ok()?), ports)
        }
        None => {
            let (address, ports) = text.split_once(':')?;
            (IpAddr::V4(address.parse().ok()?), ports)
        }
    };
    let (ports, base) = match ports.split_once('/') {
        Some((ports, base)) => (ports, Some(base.parse().ok()?)),
        None => (ports, None),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some(Dnat {
        address,
        first: first.parse().ok()?,
        last: last.parse().ok()?,
        base,
    })
}

fn parse_net(text: &str) -> Option<IpNet> {
    match text.contains('/') {
        true => text.parse().ok(),
        false => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

fn parse_protocol(text: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|p| p.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_opens_last_and_closes_first() {
        let order = |line: fn(String, String) -> Line| {
            let mut script = Script::default();
            for table in Table::ALL {
                let lines = script.lines_mut(table);
                lines.push(line("C".to_owned(), "-j DROP".to_owned()));
            }
            let text = script.render();
            let tables = text.lines().filter_map(|line| line.strip_prefix('*'));
            tables.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(order(Line::Append), ["raw", "filter", "nat"]);
        assert_eq!(order(Line::Delete), ["nat", "filter", "raw"]);
    }

    fn only_spec(line: &str) -> String {
        let chains = parse(&format!("*filter\n{line}\nCOMMIT\n"));
        chains[0].rules[0].spec.clone()
    }

    #[test]
    fn our_rules_compare_equal_however_they_are_printed() {
        let ours =
            "! -i br0 -p tcp -m tcp --dport 80 -m comment --comment \"coracle: x\" -j ACCEPT";
        for printed in [
            "-A C ! -i br0 -p tcp -m comment --comment \"coracle: x\" -m tcp --dport 80 -j ACCEPT",
            "[12:3456] -A C -p tcp ! -i br0 -m tcp --dport 80:80 -m comment --comment \"coracle: x\" -j ACCEPT",
            "-I C 3 ! -i br0 -p tcp -m tcp --dport 80 -m comment --comment \"coracle: x\" -j ACCEPT",
        ] {
            assert_eq!(only_spec(printed), ours);
        }
        for (printed, ours) in [
            ("-s 10.0.0.1 -j DROP", "-s 10.0.0.1/32 -j DROP"),
            ("-s fd00:0::1 -j DROP", "-s fd00::1/128 -j DROP"),
            (
                "-p tcp --dport 80 -j DNAT --to-destination [fd00:0::2]:80",
                "-p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00::2]:80",
            ),
            (
                "-p tcp --dport 1:9 -j REDIRECT --to-ports 7",
                "-p tcp -m tcp --dport 1:9 -j REDIRECT --to-ports 7",
            ),
        ] {
            assert_eq!(only_spec(&format!("-A C {printed}")), ours);
        }
    }

    #[test]
    fn what_we_do_not_write_is_kept_to_the_letter() {
        for spec in [
            "-p tcp -j ACCEPT",
            "-p tcp -m tcp --sport 80 -j ACCEPT",
            "-p tcp -m tcp ! --dport 80 -j ACCEPT",
            "! -p tcp -j ACCEPT",
            "-j LOG --log-prefix \"a \\\"b\\\" c\"",
            "-j REJECT --reject-with icmp-port-unreachable",
            "-m conntrack --ctstate NEW -j DROP",
            "-m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP",
            "-j MASQUERADE --random",
            "-j DNAT --to-destination 10.0.0.1:80 --random",
            "-j DNAT --to-destination fd00::2",
            "-p tcp -m tcp --dport 80 -j REDIRECT",
            "-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 7-9",
            "-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 7 --random",
            "-p udp -m tcp --dport 80 -j ACCEPT",
            "-g ELSEWHERE",
            "-m",
            "",
        ] {
            assert_eq!(only_spec(&format!("-A C {spec}")), spec);
        }
    }

    #[test]
    fn comments_are_read_through_their_quotes() {
        let chains =
            parse("*nat\n-A C -m comment --comment \"it\\'s \\\"so\\\" \\\\\" -j RETURN\n");
        let rule = &chains[0].rules[0];
        assert_eq!(rule.comment.as_deref(), Some("it's \"so\" \\"));
        assert_eq!(
            rule.spec,
            "-m comment --comment \"it\\'s \\\"so\\\" \\\\\" -j RETURN"
        );
    }

    #[test]
    fn tables_of_others_and_torn_lines_are_passed_over() {
        let text = "# note\n*mangle\n:C - [0:0]\n-A C -j DROP\nCOMMIT\n*filter\n:\n-A\nnonsense\n[\n:D - [0:0]\n";
        let chains = parse(text);
        assert_eq!(chains.len(), 1);
        assert_eq!((chains[0].name.as_str(), chains[0].rules.len()), ("D", 0));
    }
}
