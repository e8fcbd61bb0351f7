//! `version`: which program this is. There is no daemon, so client and server are one.

use clap::Args;
use serde_json::{Value, json};

use super::info::refused;
use super::{Answer, Context};
use crate::args::format::FormatArg;
use crate::output;
use crate::output::template::{Missing, Template};

/// Show the version information
#[derive(Debug, Args)]
#[command(override_usage = "coracle version [OPTIONS]")]
pub struct Version {
    #[command(flatten)]
    format: FormatArg,
}

pub fn run(_: &Context, options: Version) -> Answer {
    let value = gather();
    let text = match options.format.format.as_str() {
        "" => text(&value),
        "json" => value.to_string(),
        template => Template::parse(template)
            .and_then(|template| template.render(&value, Missing::Field))
            .map_err(|error| refused(&error))?,
    };
    output::print(&text)?;
    Ok(0)
}

/// Docker's keys for what both have; scripts ask for either of the two.
fn gather() -> Value {
    let host = rustix::system::uname();
    let part = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": "linux",
        "Arch": image::registry::platform::Platform::host().architecture,
        "KernelVersion": host.release().to_string_lossy(),
    });
    json!({"Client": part, "Server": part})
}

fn text(value: &Value) -> String {
    let part = &value["Client"];
    let word = |name: &str| part[name].as_str().unwrap_or_default().to_owned();
    format!(
        "Coracle:\n Version:  {}\n OS/Arch:  {}/{}\n Kernel:   {}",
        word("Version"),
        word("Os"),
        word("Arch"),
        word("KernelVersion"),
    )
}
