//! Where layers have been seen in their packed form.

use rusqlite::{Connection, params};

use crate::digest::Digest;
use crate::error::Error;

/// A layer's packed form in a repository: what another pull or push need not make or send again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownBlob {
    pub registry: String,
    pub repository: String,
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
}

/// Where a layer has been seen; in no order.
pub fn known_blobs(conn: &Connection, chain_id: &Digest) -> Result<Vec<KnownBlob>, Error> {
    const BLOBS: &str = "look up where a layer has been seen";
    type Row = (String, String, String, u64, String);
    let rows: Vec<Row> = conn
        .prepare_cached(
            "SELECT registry, repository, digest, size, media_type FROM layer_blobs WHERE chain_id = ?1",
        )
        .and_then(|mut statement| {
            let rows = statement.query_map([chain_id.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })?;
            rows.collect()
        })
        .map_err(Error::db(BLOBS))?;
    rows.into_iter()
        .map(|(registry, repository, digest, size, media_type)| {
            Ok(KnownBlob {
                registry,
                repository,
                digest: Digest::expect(&digest, "a blob's row")?,
                size,
                media_type,
            })
        })
        .collect()
}

/// Notes that a layer is in a repository.
pub(crate) fn note_blob(
    conn: &Connection,
    chain_id: &Digest,
    blob: &KnownBlob,
) -> Result<(), Error> {
    conn.execute(
        "INSERT OR REPLACE INTO layer_blobs (chain_id, registry, repository, digest, size, media_type)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            chain_id.as_str(),
            blob.registry,
            blob.repository,
            blob.digest.as_str(),
            blob.size,
            blob.media_type
        ],
    )
    .map_err(Error::db("note where a layer has been seen"))?;
    Ok(())
}
