//! The list of images, as `images` shows it.

use rusqlite::Connection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Error;

const NONE: &str = "<none>";

/// One row of `images`.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    pub id: String,
    /// `<none>` where the image has no name.
    pub repository: String,
    pub tag: String,
    /// RFC 3339, from the config; the import's time where the config has none.
    pub created: String,
    /// Bytes of the files of all layers, unpacked.
    pub size: u64,
    /// Of the manifests by which this repository knows it.
    pub digests: Vec<String>,
}

/// All images, newest first, a row for each name.
pub fn list(conn: &Connection) -> Result<Vec<ImageSummary>, Error> {
    const LIST: &str = "list the images";
    // An image whose tags have gone is still known by its digest; then that row counts, without a tag.
    let mut statement = conn
        .prepare(
            "SELECT images.id, names.repository, names.tag, images.created,
                    (SELECT coalesce(sum(layers.size), 0) FROM image_layers JOIN layers USING (chain_id)
                     WHERE image_layers.image_id = images.id),
                    (SELECT group_concat(digest) FROM image_names AS d
                     WHERE d.image_id = images.id AND d.repository = names.repository)
             FROM images LEFT JOIN (
                 SELECT DISTINCT image_id, repository, tag FROM image_names AS n
                 WHERE tag IS NOT NULL OR NOT EXISTS (
                     SELECT 1 FROM image_names AS m
                     WHERE m.image_id = n.image_id AND m.repository = n.repository AND m.tag IS NOT NULL)
             ) AS names ON names.image_id = images.id",
        )
        .map_err(Error::db(LIST))?;
    let rows = statement
        .query_map([], |row| {
            Ok(ImageSummary {
                id: row.get(0)?,
                repository: row
                    .get::<_, Option<String>>(1)?
                    .unwrap_or_else(|| NONE.into()),
                tag: row
                    .get::<_, Option<String>>(2)?
                    .unwrap_or_else(|| NONE.into()),
                created: row.get(3)?,
                size: row.get(4)?,
                digests: row
                    .get::<_, Option<String>>(5)?
                    .map(|digests| digests.split(',').map(str::to_owned).collect())
                    .unwrap_or_default(),
            })
        })
        .map_err(Error::db(LIST))?;
    let mut images: Vec<ImageSummary> = rows.collect::<Result<_, _>>().map_err(Error::db(LIST))?;
    let age = |image: &ImageSummary| OffsetDateTime::parse(&image.created, &Rfc3339).ok();
    images.sort_by(|a, b| {
        let names = |i: &ImageSummary| (i.repository.clone(), i.tag.clone());
        age(b).cmp(&age(a)).then_with(|| names(a).cmp(&names(b)))
    });
    Ok(images)
}
