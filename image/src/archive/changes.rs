//! The Dockerfile lines of `import --change` and `commit --change`, applied to an image's runtime configuration. Pure.

use serde_json::{Map, Value, json};

use crate::error::Error;

mod health;

/// The configuration that the lines describe, in the form of an image's `config`.
pub fn apply(lines: &[String]) -> Result<Value, Error> {
    apply_to(Value::Object(Map::new()), lines)
}

const INSTRUCTIONS: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The same over a configuration that is there.
pub fn apply_to(config: Value, lines: &[String]) -> Result<Value, Error> {
    let Value::Object(mut config) = config else {
        return apply(lines);
    };
    let mut has_cmd = false;
    for line in lines {
        let line = line.trim();
        let (instruction, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let name = instruction.to_ascii_uppercase();
        if !name.is_empty() && !INSTRUCTIONS.contains(&name.as_str()) {
            return Err(Error::NotAChange(instruction.to_ascii_lowercase()));
        }
        has_cmd |= name == "CMD";
        // A CMD that was made for another entry point means nothing to this one, as in a Dockerfile.
        if name == "ENTRYPOINT" && !has_cmd {
            config.remove("Cmd");
        }
        apply_line(&mut config, &name, rest.trim()).map_err(|why| Error::InvalidArgument {
            what: "change",
            value: line.to_owned(),
            why,
        })?;
    }
    Ok(Value::Object(config))
}

fn apply_line(
    config: &mut Map<String, Value>,
    instruction: &str,
    rest: &str,
) -> Result<(), String> {
    let command_is_empty = rest.is_empty() && !matches!(instruction, "CMD" | "ENTRYPOINT");
    if command_is_empty {
        return Err(format!("{instruction} needs a value"));
    }
    match instruction {
        "CMD" => drop(config.insert("Cmd".into(), command(rest))),
        "ENTRYPOINT" => drop(config.insert("Entrypoint".into(), command(rest))),
        "USER" => drop(config.insert("User".into(), rest.into())),
        "WORKDIR" => drop(config.insert(
            "WorkingDir".into(),
            workdir(config.get("WorkingDir"), rest).into(),
        )),
        "STOPSIGNAL" => drop(config.insert("StopSignal".into(), rest.into())),
        "ENV" => {
            for (name, value) in pairs(rest)? {
                set_env(config, &name, &value);
            }
        }
        "LABEL" => {
            for (name, value) in pairs(rest)? {
                object(config, "Labels").insert(name, value.into());
            }
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                object(config, "ExposedPorts").insert(exposed(port)?, json!({}));
            }
        }
        "VOLUME" => {
            let volumes = match json_strings(rest) {
                Some(volumes) => volumes,
                None => words(rest)?,
            };
            for volume in volumes {
                object(config, "Volumes").insert(volume, json!({}));
            }
        }
        "ONBUILD" => {
            let list = config.entry("OnBuild").or_insert_with(|| json!([]));
            if !list.is_array() {
                *list = json!([]);
            }
            list.as_array_mut()
                .expect("it was made a list above")
                .push(rest.into());
        }
        "HEALTHCHECK" => drop(config.insert("Healthcheck".into(), health::check(rest)?)),
        _ => return Err("it has no instruction".to_owned()),
    }
    Ok(())
}

/// The exec form if it is JSON; else the shell form.
fn command(text: &str) -> Value {
    match json_strings(text) {
        Some(words) => words.into(),
        None if text.is_empty() => Value::Array(Vec::new()),
        None => json!(["/bin/sh", "-c", text]),
    }
}

fn json_strings(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

fn workdir(before: Option<&Value>, path: &str) -> String {
    let before = before.and_then(Value::as_str).unwrap_or("/");
    let joined = std::path::Path::new(before).join(path);
    joined.to_string_lossy().into_owned()
}

fn set_env(config: &mut Map<String, Value>, name: &str, value: &str) {
    let list = config.entry("Env").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else {
        return;
    };
    let setting = Value::from(format!("{name}={value}"));
    let start = format!("{name}=");
    let same = |v: &&mut Value| v.as_str().is_some_and(|v| v.starts_with(&start));
    match list.iter_mut().find(same) {
        Some(old) => *old = setting,
        None => list.push(setting),
    }
}

fn object<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was made an object above")
}

/// `80` or `80/udp`.
fn exposed(port: &str) -> Result<String, String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let valid = number.parse::<u16>().is_ok_and(|number| number != 0);
    if !valid || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("Invalid containerPort: {port}"));
    }
    Ok(format!("{number}/{protocol}"))
}

/// `a=b c="d e"`, or in the old form `NAME all of the rest`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let first = text.split_whitespace().next().unwrap_or("");
    if !first.contains('=') {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{text} has no value"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words(text)?
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("{word} is not of the form name=value")),
        })
        .collect()
}

/// Splits at blanks outside quotes, takes the quotes away, and a backslash before any character.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or("it ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expect: Value) {
        let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        assert_eq!(apply(&lines).unwrap(), expect);
    }

    #[test]
    fn each_instruction_has_its_place() {
        check(&[], json!({}));
        check(&["CMD [\"a\", \"b c\"]"], json!({"Cmd": ["a", "b c"]}));
        check(&["cmd a b"], json!({"Cmd": ["/bin/sh", "-c", "a b"]}));
        check(
            &["ENTRYPOINT [\"/x\"]", "USER u:g"],
            json!({"Entrypoint": ["/x"], "User": "u:g"}),
        );
        check(
            &["ENV A=1 B=\"2 3\"", "ENV A=4", "ENV C x y"],
            json!({"Env": ["A=4", "B=2 3", "C=x y"]}),
        );
        check(
            &["EXPOSE 80 53/udp"],
            json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        );
        check(
            &["LABEL a=b c='d e'"],
            json!({"Labels": {"a": "b", "c": "d e"}}),
        );
        check(
            &["VOLUME /a /b", "VOLUME [\"/c\"]"],
            json!({"Volumes": {"/a": {}, "/b": {}, "/c": {}}}),
        );
        check(
            &["WORKDIR /a", "WORKDIR b", "STOPSIGNAL SIGINT"],
            json!({"WorkingDir": "/a/b", "StopSignal": "SIGINT"}),
        );
    }

    #[test]
    fn lines_go_over_a_configuration_that_is_there() {
        let before = json!({"Cmd": ["a"], "Env": ["A=1", "B=2"], "Labels": null, "OnBuild": null});
        let lines = [
            "ENV B=3 C=4",
            "LABEL x=y",
            "ONBUILD RUN z",
            "ENTRYPOINT [\"e\"]",
        ];
        let lines = lines.map(str::to_owned);
        assert_eq!(
            apply_to(before.clone(), &lines).unwrap(),
            json!({
                "Entrypoint": ["e"], "Env": ["A=1", "B=3", "C=4"], "Labels": {"x": "y"}, "OnBuild": ["RUN z"],
            })
        );
        let lines = ["CMD [\"c\"]", "ENTRYPOINT [\"e\"]"].map(str::to_owned);
        assert_eq!(apply_to(before, &lines).unwrap()["Cmd"], json!(["c"]));
    }

    #[test]
    fn lines_that_cannot_be_meant_are_refused() {
        for line in [
            "RUN x",
            "ENV",
            "ENV A",
            "ENV A=1 B",
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 80/icmp",
            "LABEL a='b",
            "",
            "VOLUME",
        ] {
            assert!(apply(&[line.to_owned()]).is_err(), "{line}");
        }
    }
}
