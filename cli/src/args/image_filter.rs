//! `images --filter` and its argument: which names of which images are shown. Pure, but for the labels that it is handed.

use image::ImageSummary;
use time::OffsetDateTime;

use super::filter::{FilterError, has_label};
use super::glob::Glob;
use super::values::parse_bool;
use crate::output::words;

/// Patterns and `dangling` are alternatives among themselves; labels and different filters must all hold.
#[derive(Debug, Default)]
pub struct Filters {
    dangling: Option<bool>,
    labels: Vec<String>,
    /// The names of the images whose age counts.
    pub before: Option<String>,
    pub since: Option<String>,
    patterns: Vec<Glob>,
}

/// What the filters refer to, looked up.
#[derive(Debug, Default)]
pub struct Found {
    pub before: Option<OffsetDateTime>,
    pub since: Option<OffsetDateTime>,
}

impl Filters {
    pub fn new(pairs: &[(String, String)], name: Option<&str>) -> Result<Filters, FilterError> {
        let mut filters = Filters::default();
        for (name, value) in pairs {
            match name.as_str() {
                "dangling" => {
                    let (name, value) = (name.clone(), value.clone());
                    filters.dangling =
                        Some(parse_bool(&value).map_err(|_| FilterError::Value { name, value })?);
                }
                "label" => filters.labels.push(value.clone()),
                "before" => filters.before = Some(value.clone()),
                "since" => filters.since = Some(value.clone()),
                "reference" => filters.patterns.push(pattern(value)?),
                _ => return Err(FilterError::Unknown(name.clone())),
            }
        }
        if let Some(name) = name {
            filters.patterns.push(pattern(name)?);
        }
        Ok(filters)
    }

    /// The row as it is to be shown: digests that no pattern names are left out. `None`: not at all.
    pub fn pick(
        &self,
        image: &ImageSummary,
        found: &Found,
        labels: impl FnOnce() -> Vec<(String, String)>,
    ) -> Option<ImageSummary> {
        let mut image = image.clone();
        let has_tag = image.tag != NONE;
        if !self.patterns.is_empty() {
            let repository = &image.repository;
            let any = |name: &str| {
                let mut patterns = self.patterns.iter();
                patterns.any(|pattern| pattern.matches(name) || pattern.matches(repository))
            };
            let is_tag = has_tag && any(&format!("{repository}:{}", image.tag));
            let named = |digest: &&String| any(&format!("{repository}@{digest}"));
            let digests: Vec<String> = image.digests.iter().filter(named).cloned().collect();
            if !is_tag && digests.is_empty() {
                return None;
            }
            image.digests = digests;
            if !is_tag {
                image.tag = NONE.to_owned();
            }
        }
        let created = words::parse_rfc3339(&image.created);
        let is_older = |then: OffsetDateTime| created.is_some_and(|created| created < then);
        let is_newer = |then: OffsetDateTime| created.is_some_and(|created| created > then);
        // They are in a file of each image: only for who asks.
        let labels = match self.labels.is_empty() {
            true => Vec::new(),
            false => labels(),
        };
        let is_picked = self.dangling.is_none_or(|wanted| wanted != has_tag)
            && found.before.is_none_or(is_older)
            && found.since.is_none_or(is_newer)
            && self.labels.iter().all(|label| has_label(&labels, label));
        is_picked.then_some(image)
    }
}

const NONE: &str = "<none>";

/// Of names as they are shown: what Docker's hub is left out of.
fn pattern(text: &str) -> Result<Glob, FilterError> {
    let short = text.strip_prefix("docker.io/").unwrap_or(text);
    let short = match short.strip_prefix("library/") {
        Some(rest) if !rest.contains('/') && short.len() < text.len() => rest,
        _ => short,
    };
    Glob::parse(short).ok_or(FilterError::Pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aa";

    fn image(repository: &str, tag: &str) -> ImageSummary {
        ImageSummary {
            id: "sha256:1".into(),
            repository: repository.into(),
            tag: tag.into(),
            created: "2026-11-23T08:00:00Z".into(),
            size: 1,
            digests: vec![DIGEST.into()],
        }
    }

    fn pick(filter: &str, image: &ImageSummary) -> Option<ImageSummary> {
        let pair = super::super::values::parse_filter(filter).unwrap();
        let filters = Filters::new(&[pair], None).unwrap();
        let labels = || vec![("a".to_owned(), "b".to_owned())];
        filters.pick(image, &Found::default(), labels)
    }

    #[test]
    fn names_are_patterns_of_the_repository_or_of_all() {
        for (name, repository, tag, expected) in [
            ("redis", "redis", "7", true),
            ("redis:7", "redis", "7", true),
            ("redis:8", "redis", "7", false),
            ("r*", "redis", "7", true),
            ("r*:7", "redis", "7", true),
            ("*", "me/app", "1", false),
            ("*/*", "me/app", "1", true),
            ("docker.io/library/redis", "redis", "7", true),
            ("docker.io/me/app", "me/app", "1", true),
            ("host:5000/*", "host:5000/x", "1", true),
            ("redi", "redis", "7", false),
            ("library/x", "library/x", "1", true),
        ] {
            let filters = Filters::new(&[], Some(name)).unwrap();
            let picked = filters.pick(&image(repository, tag), &Found::default(), Vec::new);
            assert_eq!(picked.is_some(), expected, "{name} {repository}:{tag}");
        }
    }

    #[test]
    fn a_digest_alone_names_no_tag() {
        let picked = pick("reference=redis@sha256:a*", &image("redis", "7")).unwrap();
        assert_eq!((picked.tag.as_str(), picked.digests.len()), ("<none>", 1));
        let picked = pick("reference=redis:7", &image("redis", "7")).unwrap();
        assert_eq!((picked.tag.as_str(), picked.digests.len()), ("7", 0));
    }

    #[test]
    fn images_are_told_apart() {
        for (filter, expected) in [
            ("dangling=true", false),
            ("dangling=false", true),
            ("label=a", true),
            ("label=a=b", true),
            ("label=a=c", false),
        ] {
            assert_eq!(
                pick(filter, &image("x", "1")).is_some(),
                expected,
                "{filter}"
            );
        }
        assert!(pick("dangling=true", &image("x", NONE)).is_some());
        let filters = Filters::default();
        let then = words::parse_rfc3339("2026-11-23T08:00:00Z");
        let hour = time::Duration::HOUR;
        for (before, since, expected) in [
            (then.map(|t| t + hour), None, true),
            (then, None, false),
            (None, then.map(|t| t - hour), true),
            (None, then, false),
        ] {
            let found = Found { before, since };
            let picked = filters.pick(&image("x", "1"), &found, Vec::new);
            assert_eq!(picked.is_some(), expected);
        }
    }

    #[test]
    fn unknown_filters_are_refused_in_dockers_words() {
        for (name, value, text) in [
            ("foo", "x", "Invalid filter 'foo'"),
            ("dangling", "x", "Invalid filter 'dangling=x'"),
            ("reference", "[", "syntax error in pattern"),
        ] {
            let error = Filters::new(&[(name.into(), value.into())], None).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }
}
