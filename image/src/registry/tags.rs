//! Which tags a repository has ("OCI distribution-spec, Listing Tags"): page after page, strictly read.

use std::collections::HashSet;

use serde::Deserialize;

use super::url::Url;
use super::{Client, Document};
use crate::Reference;
use crate::error::Error;

/// A list of more tags, or in more pages, is refused: a registry could go on for ever.
const MOST_TAGS: usize = 100_000;
const MOST_PAGES: usize = 1_000;

#[derive(Deserialize)]
struct Page {
    /// Absent or null where there are none.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client<'_> {
    /// All tags of the repository, each once, in the registry's order.
    pub fn tags(&self) -> Result<Vec<String>, Error> {
        let what = format!("tags of {}", self.familiar);
        let refuse = |why: String| Error::untrusted(what.clone(), why);
        let mut path = format!("/v2/{}/tags/list", self.repository);
        let mut seen = HashSet::new();
        let mut tags = Vec::new();
        for _ in 0..MOST_PAGES {
            let (page, link) = self.page(&path, "application/json", &what, None)?;
            for tag in read(&page).map_err(refuse)? {
                if seen.insert(tag.clone()) {
                    tags.push(tag);
                }
            }
            if tags.len() > MOST_TAGS {
                return Err(refuse(format!("there are more than {MOST_TAGS}")));
            }
            match next(&path, &link).map_err(refuse)? {
                Some(next) => path = next,
                None => return Ok(tags),
            }
        }
        Err(refuse(format!("the list has more than {MOST_PAGES} pages")))
    }
}

/// A tag becomes part of a URL and of a name, so it must be one.
fn read(page: &Document) -> Result<Vec<String>, String> {
    let page: Page = serde_json::from_slice(&page.bytes)
        .map_err(|error| format!("the list is malformed: {error}"))?;
    let tags = page.tags.unwrap_or_default();
    match tags.iter().find(|tag| !is_tag(tag)) {
        Some(tag) => Err(format!("{tag:?} is no tag")),
        None => Ok(tags),
    }
}

fn is_tag(text: &str) -> bool {
    Reference::parse(&format!("x:{text}"))
        .is_ok_and(|name| name.tag.as_deref() == Some(text) && name.digest.is_none())
}

/// The path of the next page, from `Link: </v2/x/tags/list?last=b&n=2>; rel="next"` (RFC 8288); `None` after the last.
/// Only the path counts: the registry that was asked first is asked again, whichever host the link names.
fn next(path: &str, link: &str) -> Result<Option<String>, String> {
    let Some((target, _)) = link
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .filter(|(_, parameters)| {
            let parameters = parameters.to_ascii_lowercase().replace(['"', ' '], "");
            parameters.contains("rel=next")
        })
    else {
        return Ok(None);
    };
    let base = Url::new("https", "registry", path);
    let list = path.split('?').next().unwrap_or_default();
    let found = match target.starts_with('?') {
        true => Some(format!("{list}{target}")),
        false => base.join(target).map(|url| url.path),
    };
    // Below a mirror's prefix the list stands elsewhere; what differs from page to page is the query.
    let query = found.as_deref().and_then(|next| next.split_once('?'));
    let next = query.map(|(_, query)| format!("{list}?{query}"));
    match next {
        Some(next) if next != path && next.bytes().all(|b| b.is_ascii_graphic()) => Ok(Some(next)),
        _ => Err(format!(
            "the link to its next page, {link:?}, leads nowhere"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_whichever_way_it_is_written() {
        let path = "/v2/me/x/tags/list";
        let second = Ok(Some("/v2/me/x/tags/list?last=b&n=2".to_owned()));
        for link in [
            "</v2/me/x/tags/list?last=b&n=2>; rel=\"next\"",
            "<https://elsewhere.example/v2/me/x/tags/list?last=b&n=2>; rel=next",
            "</prefix/v2/me/x/tags/list?last=b&n=2>;rel=\"next\"",
            "<?last=b&n=2>; rel=\"Next\"",
            "<list?last=b&n=2>; title=\"more\"; rel=\"next\"",
        ] {
            assert_eq!(next(path, link), second, "{link}");
        }
        assert_eq!(next(path, ""), Ok(None));
        assert_eq!(next(path, "</first>; rel=\"prev\""), Ok(None));
        for link in [
            "</v2/me/x/tags/list>; rel=\"next\"",
            "<>; rel=\"next\"",
            "<?a b>; rel=\"next\"",
        ] {
            assert!(next(path, link).is_err(), "{link}");
        }
        // The same page for ever.
        let here = "/v2/me/x/tags/list?last=b";
        assert!(next(here, "<?last=b>; rel=\"next\"").is_err());
    }

    #[test]
    fn only_tags_are_tags() {
        for good in ["1", "latest", "v1.2_3-x", "_x"] {
            assert!(is_tag(good), "{good}");
        }
        for bad in ["", "a/b", "../x", "a b", "-x", "x\u{1b}[2J", "a@b", "a:b"] {
            assert!(!is_tag(bad), "{bad}");
        }
        assert!(!is_tag(&"x".repeat(129)));
    }
}
