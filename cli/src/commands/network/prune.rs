//! `network prune`: removes the networks that nobody runs on.

use clap::Args;
use netmgr::Network;

use super::super::{Answer, Context};
use crate::args::prune::{Filters, PruneArgs};
use crate::output::{self, words};

/// Remove all networks that no running container is on
#[derive(Debug, Args)]
#[command(override_usage = "coracle network prune [OPTIONS]")]
pub struct Prune {
    #[command(flatten)]
    prune: PruneArgs,
}

pub fn run(context: &Context, options: Prune) -> Answer {
    let warning =
        "WARNING! This will remove all custom networks not used by at least one container.";
    let Some(filters) = options.prune.confirmed(warning)? else {
        return Ok(0);
    };
    let removed = context
        .engine()?
        .prune_networks(|network| accepts(&filters, network))?;
    let names: Vec<&str> = removed.iter().map(|n| n.name.as_str()).collect();
    let text = output::section("Deleted Networks:", &names);
    if let Some(text) = text.strip_suffix('\n') {
        output::print(text)?;
    }
    Ok(0)
}

fn accepts(filters: &Filters, network: &Network) -> bool {
    filters.accept(words::parse_rfc3339(&network.created), &network.labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::values;
    use crate::output::sample;

    #[track_caller]
    fn check(filter: &str, expected: bool) {
        let pair = values::parse_filter(filter).unwrap();
        // The sample was made an hour before.
        let filters = Filters::new(&[pair], sample::NOW).unwrap();
        assert_eq!(accepts(&filters, &sample::network()), expected, "{filter}");
    }

    #[test]
    fn networks_are_chosen_by_age_and_label() {
        check("until=30m", true);
        check("until=2h", false);
        check("until=1h30m", false);
        check("until=2026-11-23T08:30:00Z", true);
        check("until=1000", false);
        check("label=a=b", true);
        check("label=c", false);
        check("label!=a", false);
        let unknown = [("foo".to_owned(), "1h".to_owned())];
        let error = Filters::new(&unknown, sample::NOW).unwrap_err();
        assert_eq!(error.to_string(), "Invalid filter 'foo'");
    }
}
