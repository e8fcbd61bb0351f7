//! What is another at every engine and says nothing: IDs, names of bridges, ports and addresses that nobody chose. Replaced by what it is.

use std::net::IpAddr;

use serde_json::Value;

#[derive(Default)]
pub struct Words {
    /// What to replace, by what.
    known: Vec<(String, String)>,
    gateway: Option<IpAddr>,
}

impl Words {
    fn know(&mut self, word: &str, meaning: String) {
        if !word.is_empty() && word != "0" {
            self.known.push((word.to_owned(), meaning));
        }
    }

    pub fn learn_network(&mut self, network: &Value) {
        let name = text(&network["Name"]);
        let id = text(&network["Id"]);
        for prefix in ["br-", "cr-"] {
            let bridge = format!("{prefix}{}", &id[..12]);
            self.know(&bridge, format!("<bridge of {name}>"));
        }
        self.know(id, format!("<id of {name}>"));
        self.know(&id[..12], format!("<short id of {name}>"));
        if name == "bridge" {
            for bridge in ["docker0", "coracle0"] {
                self.know(bridge, "<bridge of bridge>".to_owned());
            }
            for config in network["IPAM"]["Config"].as_array().into_iter().flatten() {
                self.know(text(&config["Subnet"]), "<subnet of bridge>".to_owned());
                let base = text(&config["Subnet"])
                    .split('/')
                    .next()
                    .unwrap_or_default();
                self.know(base, "<base of bridge>".to_owned());
                // Both take a /16 for it, which the answers of the links show.
                let last = base.replace(".0.0", ".255.255");
                self.know(&last, "<broadcast of bridge>".to_owned());
                self.know(text(&config["Gateway"]), "<gateway of bridge>".to_owned());
                self.gateway = self
                    .gateway
                    .or_else(|| text(&config["Gateway"]).parse().ok());
            }
        }
    }

    pub fn learn_container(&mut self, container: &Value) {
        let name = text(&container["Name"]).trim_start_matches('/').to_owned();
        let id = text(&container["Id"]);
        self.know(id, format!("<id of {name}>"));
        self.know(&id[..12], format!("<short id of {name}>"));
        let settings = &container["NetworkSettings"];
        let place = &settings["Networks"]["bridge"];
        self.know(text(&place["IPAddress"]), format!("<{name} on bridge>"));
        // An engine that chose it itself may tell it here alone.
        self.know(text(&place["Gateway"]), "<gateway of bridge>".to_owned());
        self.gateway = self
            .gateway
            .or_else(|| text(&place["Gateway"]).parse().ok());
        if let Ok(IpAddr::V4(address)) = text(&place["IPAddress"]).parse() {
            let [a, b, c, d] = address.octets();
            let mac = format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
            self.know(&mac, format!("<02:42 and {name} on bridge>"));
            self.know(
                &format!("{d}.{c}.{b}.{a}.in-addr.arpa"),
                format!("<reverse of {name} on bridge>"),
            );
        }
        for bindings in settings["Ports"]
            .as_object()
            .into_iter()
            .flat_map(|all| all.values())
        {
            for binding in bindings.as_array().into_iter().flatten() {
                let host = text(&binding["HostPort"]);
                if host.parse().is_ok_and(|number: u16| number >= 32768) {
                    self.know(host, "<ephemeral>".to_owned());
                }
            }
        }
    }

    pub fn default_gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    pub fn apply(&self, given: &str) -> String {
        let mut known: Vec<_> = self.known.iter().collect();
        known.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        let mut result = given.to_owned();
        for (word, meaning) in known {
            result = replace_word(&result, word, meaning);
        }
        without_random(&result)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Replaces a word where it stands alone.
fn replace_word(given: &str, word: &str, by: &str) -> String {
    let mut result = String::new();
    let mut rest = given;
    let alone = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
    while let Some(at) = rest.find(word) {
        let (before, found) = rest.split_at(at);
        let after = &found[word.len()..];
        let last = before
            .chars()
            .next_back()
            .or_else(|| result.chars().next_back());
        result += before;
        result += match alone(last) && alone(after.chars().next()) {
            true => by,
            false => word,
        };
        rest = after;
    }
    result + rest
}

/// IDs of what is not listed anywhere (endpoints, sandboxes, containers that are gone), times, and whose client it is.
fn without_random(given: &str) -> String {
    let mut result = String::new();
    for line in given.lines() {
        // Where to read more is the client's to say, and not the same in its own versions.
        if line.starts_with("See '") || line.starts_with("Run '") || line.contains(" --help'") {
            continue;
        }
        let mut word = String::new();
        for c in line.chars().chain(['\n']) {
            if c.is_ascii_alphanumeric() {
                word.push(c);
                continue;
            }
            let hex = word.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
            match word.len() {
                64 if hex => result += "<an id>",
                12 if hex && word.contains(|c: char| c.is_ascii_alphabetic()) => {
                    result += "<a short id>";
                }
                _ => result += &word,
            }
            word.clear();
            result.push(c);
        }
    }
    let mut lines: Vec<_> = result.trim_end().lines().map(complaint).collect();
    // How a command is used is not the network's matter.
    if let Some(usage) = lines.iter().position(|line| line.starts_with("Usage:")) {
        lines.truncate(usage);
    }
    lines.retain(|line| !line.starts_with("time=\""));
    lines.join("\n").trim_end().to_owned()
}

/// The text of an error, without who says it and how it is written: capitals, full stops.
fn complaint(line: &str) -> String {
    let mut line = line.to_owned();
    if let Some((before, _)) = line.split_once("\"Created\": \"") {
        line = format!("{before}\"Created\"");
    }
    let (mark, mut text) = match line.strip_prefix("stderr: ") {
        Some(text) => ("stderr: ", text),
        None => ("", line.as_str()),
    };
    let mut said = !mark.is_empty();
    for who in [
        "docker: ",
        "coracle: ",
        "Error response from daemon: ",
        "Error: ",
    ] {
        if let Some(rest) = text.strip_prefix(who) {
            (text, said) = (rest, true);
        }
    }
    if !said {
        return line;
    }
    let text = match text.split_once("driver failed programming external connectivity on endpoint ")
    {
        Some((_, rest)) => rest.split_once("): ").map_or(rest, |(_, rest)| rest),
        None => text,
    };
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    format!(
        "{mark}{}{}",
        first.map(String::from).unwrap_or_default(),
        letters.as_str()
    )
}
