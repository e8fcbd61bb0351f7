//! `inspect`: everything about containers, images, networks and volumes, as JSON or through a template.

use clap::Args;
use runtime::Engine;
use runtime::engine::InspectedImage;
use serde_json::Value;

use super::{Answer, Context, is_not_found, network, volume};
use crate::args::format::FormatArg;
use crate::failure::Failure;
use crate::output;
use crate::output::template::{Missing, Template};
use crate::output::{inspect, inspect_image};

/// Return low-level information on containers, images, networks and volumes
#[derive(Debug, Args)]
#[command(override_usage = "coracle inspect [OPTIONS] NAME|ID [NAME|ID...]")]
pub struct Inspect {
    #[command(flatten)]
    format: FormatArg,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Look only among these: container, image, network or volume
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    kind: String,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Network => "network",
            Kind::Volume => "volume",
        }
    }

    /// `None`: any. Docker's text for what is none.
    fn parse(text: &str) -> Result<Option<Kind>, Failure> {
        let all = [Kind::Container, Kind::Image, Kind::Network, Kind::Volume];
        match all.into_iter().find(|kind| kind.as_str() == text) {
            None if !text.is_empty() => Err(Failure::Plain {
                text: format!(
                    "unknown type: {text:?}: must be one of \"container\", \"image\", \"network\", \"volume\""
                ),
                code: 1,
            }),
            kind => Ok(kind),
        }
    }
}

impl Inspect {
    /// `container inspect` and `image inspect`.
    pub fn of(kind: Kind, names: Vec<String>, format: FormatArg, size: bool) -> Inspect {
        Inspect {
            format,
            size,
            kind: kind.as_str().to_owned(),
            names,
        }
    }
}

pub fn run(context: &Context, options: Inspect) -> Answer {
    let kind = Kind::parse(&options.kind)?;
    let format = Format::parse(&options.format.format)?;
    let mut engine = context.engine()?;
    show(&options.names, &format, |name| {
        object(&mut engine, name, kind, options.size)
    })
}

/// `--format`.
pub enum Format {
    /// One list of everything.
    List,
    /// An object a line.
    Json,
    Template(Template),
}

impl Format {
    pub fn parse(text: &str) -> Result<Format, Failure> {
        match text {
            "" => Ok(Format::List),
            "json" => Ok(Format::Json),
            text => Template::parse(text)
                .map(Format::Template)
                .map_err(|error| template_failure(&error, 64)),
        }
    }
}

/// Prints what was found, all of it, and then says what was not.
pub fn show(
    names: &[String],
    format: &Format,
    mut find: impl FnMut(&str) -> Result<Value, Failure>,
) -> Answer {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match find(name) {
            Ok(value) => found.push(value),
            Err(failure) => failures.push(failure),
        }
    }
    match format {
        Format::List => output::print(&list(found)?)?,
        Format::Json => {
            for value in &found {
                output::print(&value.to_string())?;
            }
        }
        Format::Template(template) => {
            for value in &found {
                let text = template.render(&inspect::with_absent(value.clone()), Missing::Key);
                output::print(&text.map_err(|error| template_failure(&error, 1))?)?;
            }
        }
    }
    for failure in &failures {
        super::tell(failure);
    }
    Ok(i32::from(!failures.is_empty()))
}

/// An empty list has no line of its own for its brackets.
fn list(values: Vec<Value>) -> anyhow::Result<String> {
    output::pretty_json(&Value::Array(values))
}

/// Docker ends with 64 where a template cannot be parsed, and with 1 where it asks for what is not there.
fn template_failure(error: &output::template::TemplateError, code: i32) -> Failure {
    Failure::Plain {
        text: format!("template parsing error: {error}"),
        code,
    }
}

/// The first of container, image, network and volume that goes by the name.
fn object(
    engine: &mut Engine,
    name: &str,
    kind: Option<Kind>,
    size: bool,
) -> Result<Value, Failure> {
    let wanted = |this: Kind| kind.is_none_or(|kind| kind == this);
    if wanted(Kind::Container) {
        match engine.find(name).map_err(Failure::from) {
            Ok(container) => {
                let mut value = inspect::container(&container, &engine.paths(&container.id));
                // Gone with its image, the layers of a container cannot be told.
                let image = engine.find_image(&container.image_id)?;
                value["GraphDriver"]["Data"]["LowerDir"] =
                    image.map(|image| inspect_image::layers(&image)).into();
                if size {
                    let (own, whole) = engine.sizes(&container)?;
                    value["SizeRw"] = own.into();
                    value["SizeRootFs"] = whole.into();
                }
                return Ok(value);
            }
            Err(failure) if is_not_found(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
    if wanted(Kind::Image)
        && let Some(found) = inspect_image_of(engine, name)?
    {
        return Ok(inspect_image::image(&found));
    }
    if wanted(Kind::Network) {
        match network::find(engine, name) {
            Ok(value) => return Ok(value),
            Err(failure) if is_not_found(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
    if wanted(Kind::Volume) {
        match volume::find(engine, name) {
            Ok(value) => return Ok(value),
            Err(failure) if is_not_found(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
    let text = match kind {
        // With the tag that was meant, as all image commands say it.
        Some(Kind::Image) => return Err(image::store::not_found(name).into()),
        Some(Kind::Volume) => format!("Error: get {name}: no such volume"),
        Some(Kind::Network) => format!("Error: network {name} not found"),
        kind => {
            let what = kind.map_or("object", Kind::as_str);
            format!("Error: No such {what}: {name}")
        }
    };
    Err(Failure::Plain { text, code: 1 })
}

/// What is no reference at all names no image.
fn inspect_image_of(engine: &mut Engine, name: &str) -> Result<Option<InspectedImage>, Failure> {
    match engine.inspect_image(name) {
        Err(error) if error.kind() == runtime::ErrorKind::Invalid => Ok(None),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_found_is_an_empty_list() {
        assert_eq!(list(Vec::new()).unwrap(), "[]");
        assert_eq!(
            list(vec![serde_json::json!({"Id": "x"})]).unwrap(),
            "[\n    {\n        \"Id\": \"x\"\n    }\n]"
        );
    }
}
