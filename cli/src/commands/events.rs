//! `events`: what has happened, and what happens.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use regex::Regex;
use runtime::Engine;
use serde_json::json;
use time::OffsetDateTime;

use super::{Answer, Context};
use crate::args::event_filter::Filters;
use crate::args::{moment, values};
use crate::failure::Failure;
use crate::output::event;
use crate::output::template::{Missing, Template, TemplateError};

/// Get real time events from the engine
#[derive(Debug, Args)]
#[command(override_usage = "coracle events [OPTIONS]")]
pub struct Events {
    /// Only those that match: type=, event=, container=, image=, network=, volume=, label=
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
    /// From this time on: a duration ago, RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Until this time, and then end
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// json or a Go template
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    format: String,
}

pub fn run(context: &Context, options: Events) -> Answer {
    let format = Format::parse(&options.format)?;
    let filters = Filters::new(&options.filter);
    let now = OffsetDateTime::now_utc();
    let time = |text: &Option<String>| -> Result<Option<i64>, Failure> {
        let text = text.as_ref().filter(|text| !text.is_empty());
        let time = text.map(|text| moment::parse(text, now)).transpose();
        time.map_err(|text| Failure::Plain { text, code: 1 })
    };
    let (since, until) = (time(&options.since)?, time(&options.until)?);
    let engine = context.engine()?;
    let watch = engine.watch_events()?;
    // As with Docker, only who names a time hears of what has been.
    let mut seen = match (since, until) {
        (None, None) => engine.newest_event()?,
        _ => 0,
    };
    loop {
        let left = until.map(|until| until.saturating_sub(nanoseconds_now()));
        seen = print_after(&engine, seen, |event| {
            let in_time = since.is_none_or(|since| event.time >= since)
                && until.is_none_or(|until| event.time <= until);
            match in_time && filters.accept(event) {
                true => format.line(event).map(Some),
                false => Ok(None),
            }
        })?;
        match left {
            // What came before was printed after this was asked.
            Some(left) if left <= 0 => return Ok(0),
            left => watch.wait(left.map(|left| Duration::from_nanos(left.unsigned_abs()))),
        }
    }
}

fn nanoseconds_now() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

/// Prints what came after `seen`; the number of the last that was looked at.
fn print_after(
    engine: &Engine,
    seen: i64,
    line: impl Fn(&runtime::events::Event) -> Result<Option<String>, Failure>,
) -> Result<i64, Failure> {
    let mut last = seen;
    let mut out = std::io::stdout().lock();
    for event in engine.events_after(seen)? {
        last = event.seq;
        if let Some(line) = line(&event)? {
            writeln!(out, "{line}").context("write to stdout")?;
        }
    }
    out.flush().context("write to stdout")?;
    Ok(last)
}

enum Format {
    Line,
    Json,
    Template {
        template: Template,
        /// The attributes that it names; not every event has them.
        attributes: BTreeSet<String>,
    },
}

impl Format {
    fn parse(text: &str) -> Result<Format, Failure> {
        match text {
            "" => return Ok(Format::Line),
            "json" | "{{json .}}" | "{{ json . }}" => return Ok(Format::Json),
            _ => {}
        }
        let refused = |error: &TemplateError| Failure::Plain {
            text: format!("Error parsing format: {error}"),
            code: 64,
        };
        let names = Regex::new(r"\.Actor\.Attributes\.(\w+)").expect("it is written here");
        let format = Format::Template {
            template: Template::parse(text).map_err(|error| refused(&error))?,
            attributes: names
                .captures_iter(text)
                .map(|found| found[1].to_owned())
                .collect(),
        };
        // An unknown field is refused now, and not at the first event.
        let nothing = runtime::events::Event {
            seq: 0,
            time: 0,
            subject: String::new(),
            action: String::new(),
            actor: String::new(),
            attributes: Vec::new(),
        };
        match format.set(&nothing) {
            Ok(_) => Ok(format),
            Err(error) => Err(refused(&error)),
        }
    }

    fn line(&self, event: &runtime::events::Event) -> Result<String, Failure> {
        self.set(event).map_err(|error| Failure::Plain {
            text: format!("Error parsing format: {error}"),
            code: 64,
        })
    }

    fn set(&self, event: &runtime::events::Event) -> Result<String, TemplateError> {
        match self {
            Format::Line => Ok(event::line(event)),
            Format::Json => Ok(event::json(event).to_string()),
            Format::Template {
                template,
                attributes,
            } => {
                let mut value = event::fields(event);
                for name in attributes {
                    let place = &mut value["Actor"]["Attributes"][name.as_str()];
                    if place.is_null() {
                        *place = json!("<no value>");
                    }
                }
                template.render(&value, Missing::Field)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::event::tests::sample;

    #[test]
    fn templates_have_dockers_fields_and_attributes_may_be_missing() {
        let set = |text: &str| Format::parse(text).map(|format| format.set(&sample()).unwrap());
        let (event, text) = (
            set("{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.x}}"),
            "container die c1 <no value>",
        );
        assert_eq!(event.unwrap(), text);
        let status = set("{{.Status}} {{.From}} {{.Time}} {{.TimeNano}} {{.Scope}}").unwrap();
        assert_eq!(status, "die bb 1136073600 1136073600000000001 local");
        for text in ["{{.Foo}}", "{{"] {
            match set(text).unwrap_err() {
                Failure::Plain { text, code: 64 } => {
                    assert!(text.starts_with("Error parsing format: "), "{text}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
