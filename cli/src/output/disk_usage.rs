//! `system df` in the shape of Docker's. Pure.

use std::collections::HashMap;

use image::ImageSummary;
use runtime::Container;
use runtime::engine::{Amount, DiskUsage};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::container::Length;
use super::listing::Columns;
use super::{container, inspect_image, inspect_volume, words};

/// The table without `-v`. What ends in `Bytes` is exact.
pub const COLUMNS: Columns = Columns {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headings: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("SizeBytes", "SIZE BYTES"),
        ("ReclaimableBytes", "RECLAIMABLE BYTES"),
    ],
};

const IMAGES: Columns = Columns {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    headings: inspect_image::COLUMNS.headings,
};

const CONTAINERS: Columns = Columns {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    headings: container::COLUMNS.headings,
};

const VOLUMES: Columns = Columns {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    headings: inspect_volume::COLUMNS.headings,
};

const BUILD_CACHE: Columns = Columns {
    table: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    headings: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
    ],
};

const OTHERS: Columns = Columns {
    table: "{{.What}}\t{{.Size}}\t{{.Freed}}",
    headings: &[
        ("What", "WHAT"),
        ("Size", "SIZE"),
        ("SizeBytes", "SIZE BYTES"),
        ("Freed", "FREED BY"),
    ],
};

pub type Row = Map<String, Value>;

/// One row for each kind of thing.
pub fn rows(usage: &DiskUsage) -> Vec<Row> {
    [
        ("Images", usage.of_images()),
        ("Containers", usage.of_containers()),
        ("Local Volumes", usage.of_volumes()),
        // There is none: images are built elsewhere.
        ("Build Cache", Amount::default()),
    ]
    .into_iter()
    .map(|(kind, amount)| {
        object(json!({
            "Type": kind,
            "TotalCount": amount.total.to_string(),
            "Active": amount.active.to_string(),
            "Size": size(amount.size),
            "Reclaimable": reclaimable(kind, &amount),
            "SizeBytes": amount.size,
            "ReclaimableBytes": amount.reclaimable,
        }))
    })
    .collect()
}

/// With its share, where there is anything at all; Docker gives the build cache none.
fn reclaimable(kind: &str, amount: &Amount) -> String {
    let bytes = size(amount.reclaimable);
    if amount.size == 0 || kind == "Build Cache" {
        return bytes;
    }
    let percent = u128::from(amount.reclaimable) * 100 / u128::from(amount.size);
    format!("{bytes} ({percent}%)")
}

/// A table of `system df -v`.
pub struct Section {
    pub title: &'static str,
    /// In JSON.
    key: &'static str,
    pub columns: &'static Columns,
    pub rows: Vec<Row>,
    /// The same, with nothing cut.
    full: Vec<Row>,
}

pub struct Sections {
    pub all: Vec<Section>,
    total: u64,
}

impl Sections {
    /// One object, as Docker has it; `Others` and `TotalBytes` are ours.
    pub fn json(&self) -> Value {
        let tables = self.all.iter();
        let mut object: Row = tables
            .map(|section| (section.key.to_owned(), json!(section.full)))
            .collect();
        object.insert("TotalBytes".into(), self.total.into());
        object.into()
    }
}

/// Without what is only there for templates to look into.
fn plain(mut rows: Vec<Row>) -> Vec<Row> {
    for row in &mut rows {
        row.remove("Label");
    }
    rows
}

/// `image_of`: what a container's image goes by now.
pub fn sections(
    usage: &DiskUsage,
    images: &[ImageSummary],
    image_of: impl Fn(&Container) -> String,
    now: OffsetDateTime,
) -> Sections {
    let both = |make: &dyn Fn(Length) -> Vec<Row>| (make(Length::Cut), make(Length::Full));
    let of_images = both(&|length| image_rows(usage, images, now, length));
    let of_containers = both(&|length| {
        let rows = usage.containers.iter().map(|found| {
            let image = image_of(&found.container);
            let row = container::row(&found.container, &image, now, length);
            with_size(row, found.size)
        });
        rows.collect()
    });
    let of_volumes = both(&|_| volume_rows(usage));
    let of_others = both(&|_| other_rows(usage));
    let section = |title, key, columns, (rows, full)| Section {
        title,
        key,
        columns,
        rows,
        full: plain(full),
    };
    Sections {
        all: vec![
            section("Images space usage:", "Images", &IMAGES, of_images),
            section(
                "Containers space usage:",
                "Containers",
                &CONTAINERS,
                of_containers,
            ),
            section(
                "Local Volumes space usage:",
                "Volumes",
                &VOLUMES,
                of_volumes,
            ),
            section(
                "Build cache usage: 0B",
                "BuildCache",
                &BUILD_CACHE,
                Default::default(),
            ),
            section("Other space usage:", "Others", &OTHERS, of_others),
        ],
        total: usage.total(),
    }
}

/// One for each image, by the first of its names.
fn image_rows(
    usage: &DiskUsage,
    images: &[ImageSummary],
    now: OffsetDateTime,
    length: Length,
) -> Vec<Row> {
    let mut named: HashMap<&str, &ImageSummary> = HashMap::new();
    for image in images {
        named.entry(&image.id).or_insert(image);
    }
    let rows = usage.images.images.iter().filter_map(|found| {
        let summary = named.get(found.id.as_str())?;
        let mut row = inspect_image::row(summary, None, now, length);
        let unique = found.size - found.shared;
        row.insert("SharedSize".into(), size(found.shared).into());
        row.insert("UniqueSize".into(), size(unique).into());
        row.insert("SharedSizeBytes".into(), found.shared.into());
        row.insert("UniqueSizeBytes".into(), unique.into());
        row.insert("VirtualSize".into(), size(found.size).into());
        let holders = usage.holders(&found.id).to_string();
        row.insert("Containers".into(), holders.into());
        Some(with_size(row, found.size))
    });
    rows.collect()
}

fn volume_rows(usage: &DiskUsage) -> Vec<Row> {
    let rows = usage.volumes.iter().map(|found| {
        let mut row = inspect_volume::row(&found.volume.volume);
        let links = found.volume.users.len().to_string();
        row.insert("Links".into(), links.into());
        with_size(row, found.size)
    });
    rows.collect()
}

/// What is neither image, container nor volume, or is so no longer. Of it Docker says nothing.
fn other_rows(usage: &DiskUsage) -> Vec<Row> {
    let unused: u64 = usage
        .images
        .unused_layers
        .iter()
        .map(|(_, size)| size)
        .sum();
    let frame = usage.images.frame + usage.frame;
    let foreign = usage.images.foreign + usage.foreign;
    let left_over = usage.left_over;
    let rows = [
        ("layers of no image (in Images)", unused, "image prune"),
        ("rubbish (in Images)", usage.images.rubbish, "image prune"),
        (
            "being pulled or removed (in Images)",
            usage.images.in_hand,
            "",
        ),
        ("directories without container or volume", left_over, ""),
        ("database", usage.database, ""),
        ("set aside for a full disk", usage.reserve, ""),
        ("seccomp filters", usage.filters, ""),
        ("folders that hold the others", frame, ""),
        ("unknown", foreign, ""),
    ];
    rows.into_iter()
        .map(|(what, bytes, freed)| with_size(object(json!({"What": what, "Freed": freed})), bytes))
        .collect()
}

fn with_size(mut row: Row, bytes: u64) -> Row {
    row.insert("Size".into(), size(bytes).into());
    row.insert("SizeBytes".into(), bytes.into());
    row
}

fn size(bytes: u64) -> String {
    words::size_with(bytes, 4)
}

fn object(value: Value) -> Row {
    match value {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}
