//! The tables of images and layers: their one place.

use rusqlite::Connection;

use crate::error::Error;

/// Creates this crate's tables where they are missing. Cheap when they are there.
pub fn create_tables(conn: &Connection) -> Result<(), Error> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS images (
             id TEXT PRIMARY KEY,           -- sha256:...
             created TEXT NOT NULL          -- RFC 3339, UTC
         ) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS layers (
             chain_id TEXT PRIMARY KEY,
             diff_id TEXT NOT NULL,
             size INTEGER NOT NULL          -- bytes of the files, unpacked
         ) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS image_layers (
             image_id TEXT NOT NULL,
             position INTEGER NOT NULL,     -- 0 is the lowest
             chain_id TEXT NOT NULL,
             PRIMARY KEY (image_id, position)
         ) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS image_layers_by_layer ON image_layers (chain_id);
         CREATE TABLE IF NOT EXISTS layer_blobs ( -- where a layer has been seen in its packed form
             chain_id TEXT NOT NULL,
             registry TEXT NOT NULL,        -- as references name it
             repository TEXT NOT NULL,
             digest TEXT NOT NULL,          -- of the blob
             size INTEGER NOT NULL,         -- of the blob, bytes
             media_type TEXT NOT NULL,
             PRIMARY KEY (chain_id, registry, repository, digest)
         ) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS kept_layers ( -- of no image yet, for the pull that was cut short
             chain_id TEXT PRIMARY KEY,
             since INTEGER NOT NULL         -- seconds since 1970
         ) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS image_names (
             name TEXT PRIMARY KEY,         -- the full form, with a tag or a digest
             repository TEXT NOT NULL,      -- the familiar form, without either
             tag TEXT,
             digest TEXT,
             image_id TEXT NOT NULL
         ) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS image_names_by_image ON image_names (image_id);",
    )
    .map_err(Error::db("create the tables of images"))
}
