//! `port`: where a container's ports are published.

use clap::Args;

use super::{Answer, Context, print_listing};
use crate::args::values;
use crate::failure::Failure;
use crate::output::ports;

/// List port mappings or a specific mapping for the container
#[derive(Debug, Args)]
#[command(override_usage = "coracle port CONTAINER [PORT[/PROTO]]")]
pub struct Port {
    #[arg(value_name = "CONTAINER")]
    container: String,
    #[arg(value_name = "PORT[/PROTO]")]
    port: Option<String>,
}

pub fn run(context: &Context, options: Port) -> Answer {
    let plain = |text: String| Failure::Plain { text, code: 1 };
    let wanted = options.port.as_deref().map(parse).transpose()?;
    let container = context.engine()?.find(&options.container)?;
    let published = ports::published(&container);
    let Some((port, protocol)) = wanted else {
        return print_listing(&ports::lines(&published).join("\n"));
    };
    let found = ports::places(&published, port, protocol);
    if found.is_empty() {
        return Err(plain(format!(
            "Error: No public port '{}' published for {}",
            options.port.unwrap_or_default(),
            options.container
        )));
    }
    print_listing(&found.join("\n"))
}

/// `80` or `80/udp`. Whatever stands for the protocol is looked for, as Docker does it.
fn parse(text: &str) -> Result<(u16, &str), Failure> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match values::parse_integer(port).map(u16::try_from) {
        Ok(Ok(port)) => Ok((port, protocol)),
        _ => Err(Failure::Plain {
            text: format!("Error: invalid port ({port})"),
            code: 1,
        }),
    }
}
