//! Log events on stderr. Without `--debug` or `CORACLE_LOG`: the warnings of our own crates, in the words of the rest of
//! the command line.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatFields};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

const OURS: [&str; 4] = ["coracle", "runtime", "netmgr", "image"];

pub fn start(debug: bool) {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let wanted = std::env::var("CORACLE_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    match wanted.or_else(|| debug.then(|| "debug".to_owned())) {
        Some(filter) => tracing_subscriber::registry()
            .with(layer.with_filter(EnvFilter::new(filter)))
            .init(),
        None => {
            let targets = OURS.map(|target| (target, LevelFilter::WARN));
            tracing_subscriber::registry()
                .with(
                    layer
                        .event_format(Plain)
                        .with_filter(Targets::new().with_targets(targets)),
                )
                .init();
        }
    }
}

/// `WARNING: half made veth left behind: no such device (veth=cr1)`
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut words = Words::default();
        event.record(&mut words);
        writeln!(writer, "{words}")
    }
}

/// An event's message, its error and the rest of its fields.
#[derive(Default)]
struct Words {
    message: String,
    error: String,
    rest: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.message = value,
            "error" => self.error = value,
            name => {
                let comma = if self.rest.is_empty() { "" } else { ", " };
                let _ = write!(self.rest, "{comma}{name}={value}");
            }
        }
    }

    /// Without the quotation marks of `Debug`.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WARNING: {}", self.message)?;
        if !self.error.is_empty() {
            write!(f, ": {}", self.error)?;
        }
        match self.rest.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", self.rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_warning_is_a_sentence() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Plain)
            .with_writer(move || writer.clone());
        let error = io::Error::other("no such device");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(%error, veth = "cr1", "half made veth left behind");
            tracing::warn!("the last change was cut short: repairing");
        });
        let bytes = kept.0.lock().unwrap().clone();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "WARNING: half made veth left behind: no such device (veth=cr1)\n\
             WARNING: the last change was cut short: repairing\n"
        );
    }
}
