//! The steps of an image as rows of `history`. Pure.

use image::store::Step;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::container::Length;
use super::listing::Columns;
use super::{short_id, words};

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

pub const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    headings: HEADINGS,
};

/// Where sizes and dates are not rounded.
pub const EXACT_COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    headings: HEADINGS,
};

/// Characters of the command line that are shown.
const CREATED_BY: usize = 45;

/// How a row is shown.
pub struct Shown {
    /// Rounded sizes, and times by how long ago.
    pub human: bool,
    pub length: Length,
    pub now: OffsetDateTime,
}

pub fn row(step: &Step, shown: &Shown) -> Map<String, Value> {
    let created = step.created.as_deref().and_then(words::parse_rfc3339);
    // Whole seconds, as Docker keeps them.
    let whole = created.and_then(|then| then.replace_nanosecond(0).ok());
    let at = whole.map_or_else(|| "N/A".to_owned(), words::rfc3339);
    let since = match created {
        Some(then) if shown.human => words::ago(then, shown.now),
        _ => at.clone(),
    };
    let created_by = step.created_by.replace('\t', " ");
    let id = step.id.as_deref().unwrap_or("<missing>");
    let (id, created_by) = match shown.length {
        Length::Cut => (short_id(id), words::ellipsis(&created_by, CREATED_BY)),
        Length::Full => (id, created_by),
    };
    let size = match shown.human {
        true => words::size(step.size),
        false => step.size.to_string(),
    };
    let value = json!({
        "ID": id,
        "CreatedSince": since,
        "CreatedAt": at,
        "CreatedBy": created_by,
        "Size": size,
        "Comment": step.comment,
    });
    match value {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{listing, sample};

    #[test]
    fn the_table_is_the_one_docker_prints() {
        let steps = [
            Step {
                id: Some(format!("sha256:{}", sample::id('a'))),
                created: Some("2026-11-23T08:58:59.25Z".into()),
                created_by: "sh -c echo hi >/new; rm /www/index.html; mkdir -p /tmp/a".into(),
                comment: "my message".into(),
                size: 3,
            },
            Step {
                created: Some("2026-11-23T08:59:00Z".into()),
                created_by: "a\tb".into(),
                size: 1_984_311,
                ..Step::default()
            },
        ];
        let render = |columns, human, length| {
            let now = sample::NOW;
            let shown = Shown { human, length, now };
            let rows: Vec<_> = steps.iter().map(|step| row(step, &shown)).collect();
            listing::render(columns, "", &rows).unwrap()
        };
        assert_eq!(
            render(&COLUMNS, true, Length::Cut),
            "IMAGE          CREATED              CREATED BY                                      SIZE      COMMENT\n\
             aaaaaaaaaaaa   About a minute ago   sh -c echo hi >/new; rm /www/index.html; mkd…   3B        my message\n\
             <missing>      About a minute ago   a b                                             1.98MB    "
        );
        let exact = render(&EXACT_COLUMNS, false, Length::Full);
        assert!(exact.contains("2026-11-23T08:58:59Z"), "{exact}");
        assert!(exact.contains("mkdir -p /tmp/a   3         my"), "{exact}");
    }
}
