//! `events --filter`: which events are shown. Pure.

use runtime::events::Event;

use super::filter::has_label;

/// Filters of the same name are alternatives, different names must all hold. As with Docker, one that it does not know is ignored.
#[derive(Debug)]
pub struct Filters(Vec<(String, String)>);

impl Filters {
    pub fn new(pairs: &[(String, String)]) -> Filters {
        Filters(pairs.to_vec())
    }

    pub fn accept(&self, event: &Event) -> bool {
        let any = |wanted: &str, test: &dyn Fn(&str) -> bool| {
            let mut values = self.0.iter().filter(|(name, _)| name == wanted).peekable();
            values.peek().is_none() || values.any(|(_, value)| test(value))
        };
        let name = attribute(event, "name");
        let is = |subject: &str, wanted: &str| {
            event.subject == subject && (event.actor.starts_with(wanted) || name == wanted)
        };
        any("type", &|kind| event.subject == kind)
            && any("event", &|action| is_action(&event.action, action))
            && any("container", &|wanted| is("container", wanted))
            && any("network", &|wanted| is("network", wanted))
            && any("volume", &|wanted| is("volume", wanted))
            && any("image", &|wanted| is_image(event, wanted))
            && any("scope", &|scope| scope == "local")
            // Every label must be there.
            && self.0.iter().filter(|(name, _)| name == "label").all(|(_, label)| has_label(&event.attributes, label))
    }
}

fn attribute<'a>(event: &'a Event, wanted: &str) -> &'a str {
    let found = event.attributes.iter().find(|(name, _)| name == wanted);
    found.map_or("", |(_, value)| value)
}

/// `exec_create` stands for `exec_create: true` too.
fn is_action(action: &str, wanted: &str) -> bool {
    action == wanted
        || action
            .split_once(": ")
            .is_some_and(|(kind, _)| kind == wanted)
}

/// By name with or without the tag, or by ID.
fn is_image(event: &Event, wanted: &str) -> bool {
    let name = match event.subject.as_str() {
        "image" => attribute(event, "name"),
        "container" => attribute(event, "image"),
        _ => return false,
    };
    let without_tag = |text: &str| match text.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
        _ => text.to_owned(),
    };
    [name, &event.actor]
        .iter()
        .any(|text| *text == wanted || without_tag(text) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: bool) {
        let attributes = [("image", "reg:5000/bb:1"), ("k", "v"), ("name", "c1")];
        let event = Event {
            seq: 1,
            time: 1,
            subject: "container".into(),
            action: "exec_create: true".into(),
            actor: "abcdef".into(),
            attributes: attributes.map(|(k, v)| (k.into(), v.into())).into(),
        };
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        assert_eq!(Filters::new(&pairs).accept(&event), expected, "{pairs:?}");
    }

    #[test]
    fn events_are_told_apart() {
        check(&[], true);
        check(&[("type", "container")], true);
        check(&[("type", "network")], false);
        check(&[("type", "network"), ("type", "container")], true);
        check(&[("event", "exec_create")], true);
        check(&[("event", "exec_create: true")], true);
        check(&[("event", "exec")], false);
        check(&[("container", "c1")], true);
        check(&[("container", "abc")], true);
        check(&[("container", "c")], false);
        check(&[("network", "abc")], false);
        check(&[("image", "reg:5000/bb")], true);
        check(&[("image", "reg:5000/bb:1")], true);
        check(&[("image", "bb")], false);
        check(&[("label", "k=v"), ("label", "k")], true);
        check(&[("label", "k=x")], false);
        check(&[("container", "c1"), ("event", "die")], false);
    }
}
