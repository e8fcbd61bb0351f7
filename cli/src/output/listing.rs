//! One shape for every listing: a table, bare IDs, JSON lines or a template. Pure.

use serde_json::{Map, Value};

use super::table;
use super::template::{self, Missing, Template, TemplateError};

/// A listing's columns: field name and heading, in the table's order for those that the table shows.
pub struct Columns {
    pub table: &'static str,
    /// Every field, with the heading it has in a table.
    pub headings: &'static [(&'static str, &'static str)],
}

#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    #[error("failed to parse template: {0}")]
    Parse(#[source] TemplateError),
    #[error("failed to execute template: {0}")]
    Execute(#[source] TemplateError),
}

/// A format that has been understood.
#[derive(Debug)]
pub struct Listing {
    kind: Kind,
    headings: Map<String, Value>,
}

#[derive(Debug)]
enum Kind {
    Json,
    Table(Template),
    Rows(Template),
}

impl Listing {
    /// Empty or `table` for the usual table, `json`, `table TEMPLATE`, or a template for each row. An unknown field is
    /// refused here, so that it does not pass unseen where there are no rows.
    pub fn parse(columns: &Columns, format: &str) -> Result<Listing, ListingError> {
        let template = |text: &str| Template::parse(&unescape(text)).map_err(ListingError::Parse);
        let kind = match format {
            "json" => Kind::Json,
            "" | "table" => Kind::Table(template(columns.table)?),
            _ => match format.strip_prefix("table ") {
                Some(text) => Kind::Table(template(text)?),
                None => Kind::Rows(template(format)?),
            },
        };
        let headings = headings(columns);
        if let Kind::Table(template) | Kind::Rows(template) = &kind {
            execute(template, headings.clone())?;
        }
        Ok(Listing { kind, headings })
    }

    pub fn render(&self, rows: &[Map<String, Value>]) -> Result<String, ListingError> {
        match &self.kind {
            Kind::Json => Ok(lines(rows.iter().map(template::row_json))),
            Kind::Rows(template) => Ok(lines(each(template, rows)?)),
            Kind::Table(template) => {
                let mut table = vec![execute(template, self.headings.clone())?];
                table.extend(each(template, rows)?);
                Ok(table::format(&table))
            }
        }
    }
}

/// Parses a format and sets rows in it.
#[cfg(test)]
pub fn render(
    columns: &Columns,
    format: &str,
    rows: &[Map<String, Value>],
) -> Result<String, ListingError> {
    Listing::parse(columns, format)?.render(rows)
}

fn each(template: &Template, rows: &[Map<String, Value>]) -> Result<Vec<String>, ListingError> {
    rows.iter()
        .map(|row| execute(template, row.clone()))
        .collect()
}

fn headings(columns: &Columns) -> Map<String, Value> {
    let heading = |(field, heading): &(&str, &str)| (field.to_string(), Value::from(*heading));
    columns.headings.iter().map(heading).collect()
}

fn execute(template: &Template, row: Map<String, Value>) -> Result<String, ListingError> {
    template
        .render(&Value::Object(row), Missing::Field)
        .map_err(ListingError::Execute)
}

/// `\t` and `\n` typed in a shell's single quotes.
fn unescape(template: &str) -> String {
    template.replace("\\t", "\t").replace("\\n", "\n")
}

fn lines(rows: impl IntoIterator<Item = String>) -> String {
    rows.into_iter().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: Columns = Columns {
        table: "{{.ID}}\t{{.Name}}",
        headings: &[("ID", "THING ID"), ("Name", "NAME")],
    };

    fn rows() -> Vec<Map<String, Value>> {
        let row = |value: Value| value.as_object().cloned().unwrap();
        vec![
            row(json!({"Name": "<none>", "ID": "1"})),
            row(json!({"Name": "b", "ID": "2"})),
        ]
    }

    #[test]
    fn every_format_of_docker_is_there() {
        let table = [
            ("", "THING ID   NAME\n1          <none>\n2          b"),
            ("table", "THING ID   NAME\n1          <none>\n2          b"),
            (
                "table {{.Name}}\\t{{.ID}}",
                "NAME      THING ID\n<none>    1\nb         2",
            ),
            ("{{.ID}} {{.Name}}", "1 <none>\n2 b"),
            (
                "json",
                "{\"ID\":\"1\",\"Name\":\"\\u003cnone\\u003e\"}\n{\"ID\":\"2\",\"Name\":\"b\"}",
            ),
        ];
        for (format, expected) in table {
            assert_eq!(
                render(&COLUMNS, format, &rows()).unwrap(),
                expected,
                "{format}"
            );
        }
    }

    #[test]
    fn an_unknown_field_is_an_error_even_without_rows() {
        let error = render(&COLUMNS, "{{.Nope}}", &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to execute template: executing \"\" at <.Nope>: can't evaluate field Nope"
        );
        let error = render(&COLUMNS, "{{.ID", &rows()).unwrap_err();
        assert!(error.to_string().starts_with("failed to parse template: "));
    }
}
