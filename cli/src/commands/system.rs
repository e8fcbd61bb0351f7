//! `system up|down|reload|rules|info`: what of ours is on this host; and the way to `df` and `prune`.

pub mod df;
pub mod prune;

use clap::{Args, Subcommand};
use runtime::engine::ExplainedRule;

use super::network::care;
use super::{Answer, Context, events, info, print_listing};
use crate::failure::chain;
use crate::output;

#[derive(Debug, Subcommand)]
pub enum System {
    /// Make the default network's bridge and the base chains, and start what should run by its restart policy
    #[command(override_usage = "coracle system up")]
    Up,
    /// Stop every container and take everything of ours off this host
    #[command(override_usage = "coracle system down")]
    Down,
    /// Compare the firewall and the bridges with what should be there, and mend the difference
    #[command(override_usage = "coracle system reload [OPTIONS]")]
    Reload(Reload),
    Rules(Rules),
    Df(df::Df),
    Prune(prune::Prune),
    #[command(override_usage = "coracle system info [OPTIONS]")]
    Info(info::Info),
    Events(events::Events),
}

#[derive(Debug, Args)]
pub struct Reload {
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Print the firewall rules of ours, each with its reason
#[derive(Debug, Args)]
#[command(override_usage = "coracle system rules [OPTIONS]")]
pub struct Rules {
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_default_value = true, value_parser = ["text", "json"], hide_possible_values = true)]
    format: String,
}

pub fn run(context: &Context, command: System) -> Answer {
    match command {
        System::Up => {
            let failed = context.engine()?.system_up()?;
            for (name, error) in &failed {
                eprintln!("coracle: cannot start {name}: {}", chain(error));
            }
            return Ok(i32::from(!failed.is_empty()));
        }
        System::Events(options) => return events::run(context, options),
        System::Down => {
            for note in context.engine()?.system_down()? {
                eprintln!("{note}");
            }
        }
        System::Reload(Reload { dry_run: true }) => {
            return care::show(&context.engine()?.preview_reload()?);
        }
        System::Reload(Reload { dry_run: false }) => {
            for note in context.engine()?.system_reload()? {
                eprintln!("{note}");
            }
        }
        System::Rules(options) => {
            let rules = context.engine()?.rules()?;
            return match options.format.as_str() {
                "json" => {
                    output::print(&json(&rules)?)?;
                    Ok(0)
                }
                _ => print_listing(&text(&rules)),
            };
        }
        System::Info(options) => return info::run(context, options),
        System::Df(options) => return df::run(context, &options),
        System::Prune(options) => return prune::run(context, &options),
    }
    Ok(0)
}

/// In the shape of `iptables-save`: a line for each table, and above each rule why it is there.
fn text(rules: &[ExplainedRule]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut table = "";
    let mut why = "";
    for rule in rules {
        if rule.table != table {
            table = &rule.table;
            why = "";
            lines.push(format!("*{table}"));
        }
        // Rules that belong together share one reason.
        if rule.why != why && !rule.why.is_empty() {
            lines.push(format!("# {}", rule.why));
        }
        why = &rule.why;
        lines.push(rule.rule.clone());
    }
    lines.join("\n")
}

fn json(rules: &[ExplainedRule]) -> anyhow::Result<String> {
    let list = rules
        .iter()
        .map(|rule| serde_json::json!({"Table": rule.table, "Rule": rule.rule, "Why": rule.why}));
    output::pretty_json(&list.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(table: &str, rule: &str, why: &str) -> ExplainedRule {
        ExplainedRule {
            table: table.into(),
            rule: rule.into(),
            why: why.into(),
        }
    }

    #[test]
    fn each_rule_stands_under_its_reason_and_its_table() {
        let rules = [
            rule("nat", "-A CORACLE -j A", "web1 publishes 8080"),
            rule("nat", "-A CORACLE -j B", "web1 publishes 8080"),
            rule("filter", "-A CORACLE -j C", "web1 publishes 8080"),
        ];
        assert_eq!(
            text(&rules),
            "*nat\n# web1 publishes 8080\n-A CORACLE -j A\n-A CORACLE -j B\n\
             *filter\n# web1 publishes 8080\n-A CORACLE -j C"
        );
        assert_eq!(text(&[]), "");
    }
}
