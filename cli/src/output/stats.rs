//! Rows of `stats`. Pure.

use runtime::engine::Sample;
use serde_json::{Map, Value, json};

use super::listing::Columns;
use super::short_id;
use super::words::{binary_size, size};

pub const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    headings: &[
        ("BlockIO", "BLOCK I/O"),
        ("CPUPerc", "CPU %"),
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("MemPerc", "MEM %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("Name", "NAME"),
        ("NetIO", "NET I/O"),
        ("PIDs", "PIDS"),
    ],
};

/// `before` is an earlier sample of the same container, from which its share of the CPU is reckoned.
pub fn row(sample: &Sample, before: Option<&Sample>, full: bool) -> Map<String, Value> {
    let cpu = before.map_or(0.0, |before| sample.cpu_percent(before));
    let id = match full {
        true => sample.id.as_str(),
        false => short_id(&sample.id),
    };
    let usage = &sample.usage;
    let pair = |(first, second)| format!("{} / {}", size(first), size(second));
    let row = json!({
        "BlockIO": pair((usage.block_read, usage.block_written)),
        "CPUPerc": format!("{cpu:.2}%"),
        "Container": sample.asked,
        "ID": id,
        "MemPerc": format!("{:.2}%", sample.memory_percent()),
        "MemUsage": format!(
            "{} / {}",
            binary_size(usage.memory),
            binary_size(sample.memory_limit)
        ),
        "Name": sample.name,
        "NetIO": pair(sample.network),
        "PIDs": usage.pids.to_string(),
    });
    match row {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}
