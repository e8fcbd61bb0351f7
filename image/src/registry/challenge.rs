//! What a 401 asks for: the header `WWW-Authenticate` (RFC 9110, 11.6.1), and scopes of tokens. Pure.

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case.
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[cfg(fuzzing)]
pub fn challenges(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let challenges = parse_challenges(text).into_iter();
    challenges.map(|c| (c.scheme, c.parameters)).collect()
}

/// `Bearer realm="...",service="...", Basic realm=...` (RFC 9110, 11.6.1).
pub fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(value) = after.strip_prefix('=') {
            let (value, after) = parameter_value(value);
            if let Some(challenge) = challenges.last_mut() {
                challenge
                    .parameters
                    .push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                ..Challenge::default()
            });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    challenges
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// The scopes of a token: what we are going to do (`repository:x:pull,push`), and what the registry asks for beyond.
pub fn scopes(own: Option<&str>, asked: Option<&str>) -> Vec<String> {
    let mut scopes: Vec<String> = own
        .into_iter()
        .flat_map(|own| own.split(' '))
        .map(str::to_owned)
        .collect();
    for scope in asked.unwrap_or("").split(' ').filter(|it| !it.is_empty()) {
        let (object, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        let same = scopes
            .iter_mut()
            .find(|known| known.rsplit_once(':').is_some_and(|(it, _)| it == object));
        match same {
            None => scopes.push(scope.to_owned()),
            Some(known) => {
                let have = known[object.len() + 1..].to_owned();
                for action in actions.split(',') {
                    if !have.split(',').any(|it| it == action) {
                        known.push(',');
                        known.push_str(action);
                    }
                }
            }
        }
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let text = r#"Bearer realm="https://a/t",service="r, x",scope="repository:x:pull,push", Basic realm=y"#;
        let challenges = parse_challenges(text);
        assert_eq!(challenges.len(), 2);
        assert_eq!(challenges[0].get("realm"), Some("https://a/t"));
        assert_eq!(challenges[0].get("service"), Some("r, x"));
        assert_eq!(challenges[0].get("scope"), Some("repository:x:pull,push"));
        assert_eq!(
            (challenges[1].scheme.as_str(), challenges[1].get("realm")),
            ("basic", Some("y"))
        );
        for hostile in [
            "",
            ",",
            "=",
            "\"",
            "Bearer realm=\"x",
            "a=b",
            "Bearer realm=\"\\",
            "é=\"é\"",
        ] {
            parse_challenges(hostile);
        }
    }

    #[test]
    fn scopes_are_ours_and_what_is_asked_for() {
        let check = |own: Option<&str>, asked: Option<&str>, expect: &[&str]| {
            assert_eq!(scopes(own, asked), expect, "{own:?} {asked:?}");
        };
        check(Some("repository:x:pull"), None, &["repository:x:pull"]);
        check(
            Some("repository:x:pull,push"),
            Some("repository:x:pull"),
            &["repository:x:pull,push"],
        );
        check(
            Some("repository:x:pull"),
            Some("repository:x:pull,push repository:y:pull"),
            &["repository:x:pull,push", "repository:y:pull"],
        );
        check(None, Some("registry:catalog:*"), &["registry:catalog:*"]);
        check(None, None, &[]);
    }
}
