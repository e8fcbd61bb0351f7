//! Images made here: `import` makes one of one layer from a tar of a root filesystem, `commit` one from a container's changes.

use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use rusqlite::Connection;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::digest::Digest;
use crate::error::Error;
use crate::layer::recipe::Recorder;
use crate::layer::{LayerError, Limits};
use crate::lock::{LayerLock, Mode};
use crate::pull::stream;
use crate::registry::platform::Platform;
use crate::staging::Staging;
use crate::store::{self, ImageToCommit, LayerToCommit};
use crate::{Image, Reference};

mod changes;
mod commit;

pub use commit::{Commit, commit};

/// Makes an image of one layer from a tar (plain, gzip or zstd). `changes` are Dockerfile lines of `import --change`:
/// CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL, HEALTHCHECK.
pub fn import(
    conn: &mut Connection,
    root: &Path,
    tar: &mut dyn Read,
    name: Option<&Reference>,
    changes: &[String],
    message: Option<&str>,
) -> Result<Image, Error> {
    let config = changes::apply(changes)?;
    let staging = Staging::create(root)?;
    let dir = staging.subdirectory("0")?;
    let layer_error = |source| Error::Layer {
        layer: "of the archive".to_owned(),
        source,
    };
    let recorder = Recorder::create(&staging.path().join("0")).map_err(layer_error)?;
    let plain = decompress(tar)?;
    let (applied, diff_id) =
        stream::untar(plain, &dir, recorder, Limits::default()).map_err(layer_error)?;
    let size = applied.finish(&dir, &[]).map_err(layer_error)?;
    let config = image_config(&config, &diff_id, message);
    let bytes = config.to_string().into_bytes();
    let id = Digest::of(&bytes);
    let layer = LayerToCommit {
        chain_id: diff_id.clone(),
        diff_id: diff_id.clone(),
        staged: "0".to_owned(),
        size,
        blob: None,
    };
    // Whoever has this very layer in hand finishes first; then ours is not needed.
    let _lock = LayerLock::take(root, &diff_id, Mode::Exclusive)?;
    let layers = match store::has_layer(conn, root, &diff_id)? {
        true => Vec::new(),
        false => vec![layer],
    };
    let to_commit = ImageToCommit {
        id: &id,
        config: &bytes,
        manifest: None,
        created: config["created"].as_str(),
        chain: std::slice::from_ref(&diff_id),
        names: name.map_or(&[], std::slice::from_ref),
    };
    store::commit(conn, root, &staging, &layers, &to_commit)?;
    store::load(conn, root, id.as_str())
}

/// The plain tar, whichever way it is packed: told by its first bytes.
fn decompress<'a>(tar: &'a mut dyn Read) -> Result<Box<dyn Read + 'a>, Error> {
    let mut head = [0; 6];
    let mut filled = 0;
    while filled < head.len() {
        match tar.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read the archive", "-")(e)),
        }
    }
    let head = &head[..filled];
    let whole = BufReader::with_capacity(64 << 10, Cursor::new(head.to_vec()).chain(tar));
    let refuse = |why: &str| Error::InvalidArgument {
        what: "archive",
        value: "-".to_owned(),
        why: why.to_owned(),
    };
    match head {
        [] => Err(refuse("it is empty")),
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => stream::zstd_decoder(whole)
            .map_err(|e| Error::Layer {
                layer: "of the archive".to_owned(),
                source: LayerError::Read(e),
            })
            .map(|decoder| Box::new(decoder) as Box<dyn Read>),
        b"BZh91A" | [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(refuse(
            "it is packed with bzip2 or xz: unpack it first and pipe the tar in",
        )),
        _ => Ok(Box::new(whole)),
    }
}

fn image_config(config: &Value, diff_id: &Digest, message: Option<&str>) -> Value {
    let platform = Platform::host();
    let created = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default();
    json!({
        "created": created,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id.as_str()]},
        "history": [{"created": created, "comment": message.unwrap_or("Imported from -")}],
    })
}
